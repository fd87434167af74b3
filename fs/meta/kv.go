package meta

// Reader reads one state of an ordered store.
type Reader interface {
	// Get returns the value of key. The caller must not change it, and may keep it.
	Get(key []byte) (value []byte, ok bool, err error)
	// Scan calls f for each pair with lo <= key < hi in key order until f
	// returns false. hi nil means no upper bound. f must neither keep nor change
	// k and v and must not write to the store.
	Scan(lo, hi []byte, f func(k, v []byte) bool) error
	// Last returns the pair with the greatest key in [lo, hi). The caller may
	// keep both slices but must not change them.
	Last(lo, hi []byte) (k, v []byte, ok bool, err error)
}

// Write is one change of a store. A nil Value is not a deletion: Delete is.
type Write struct {
	Key    []byte
	Value  []byte
	Delete bool
}

// KV is the ordered store below a [State]. Its methods may be called from many
// goroutines at once; only one of them calls Commit.
type KV interface {
	Reader
	// Commit makes all of w visible at once. w is sorted by key without
	// repetitions, and not kept. After an error nothing may be relied upon and
	// the store must be closed. Commit need not be durable before Flush returns,
	// but a crash leaves the effect of a prefix of the Commits, each whole.
	Commit(w []Write) error
	// Snapshot returns an unchanging copy of the present state, which the caller
	// closes.
	Snapshot() (Snapshot, error)
	// Flush returns when everything committed before the call survives a crash.
	Flush() error
	// Checkpoint writes a copy of the present state into dir, which must not
	// exist, and returns when it is durable. The same kind of KV opens it.
	Checkpoint(dir string) error
	// Close releases the store. What was not flushed may be lost.
	Close() error
}

// Snapshot is an unchanging copy of a store's state.
type Snapshot interface {
	Reader
	Close() error
}
