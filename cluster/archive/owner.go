package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/wpfs/wpfs/fs/object"
)

// Owner is the object OWNER: which cluster the bucket, or the part of it below the
// configured prefix, belongs to (rule R38).
type Owner struct {
	Version int    `json:"version"`
	Cluster string `json:"cluster"` // UUID
	Name    string `json:"name"`    // the configured one, for people
	Epoch   uint64 `json:"epoch"`   // 1 at first; a restore adds one
	Node    string `json:"node"`    // that wrote this
	// Founders are the first nodes as the configuration lists them (id=addr,
	// sorted, with commas); "" after a restore.
	Founders string `json:"founders,omitempty"`
	// Restored: a restore wrote this, and the new cluster has not run since.
	Restored bool      `json:"restored,omitempty"`
	Time     time.Time `json:"time"`
}

const ownerVersion = 1

func (o Owner) encode() ([]byte, error) {
	o.Version = ownerVersion
	b, err := json.MarshalIndent(o, "", " ")
	return append(b, '\n'), err
}

// ErrForeign means that the bucket belongs to another cluster.
var ErrForeign = errors.New("the bucket belongs to another cluster")

// ForeignError says to which. It is ErrForeign.
type ForeignError struct {
	Owner Owner
	Mine  string // this cluster's UUID; "" while it has none
}

func (e *ForeignError) Error() string {
	s := fmt.Sprintf("%v: cluster %q (%s, epoch %d), last confirmed by its node %s at %s",
		ErrForeign, e.Owner.Name, e.Owner.Cluster, e.Owner.Epoch, e.Owner.Node, e.Owner.Time.UTC().Format(time.RFC3339))
	if e.Mine != "" {
		s += "; this is cluster " + e.Mine
	}
	return s
}

func (e *ForeignError) Unwrap() error { return ErrForeign }

// ReadOwner reads OWNER and its version for [object.PutOptions]. Without one the
// version is "".
func ReadOwner(ctx context.Context, st object.Store) (o Owner, version string, err error) {
	// The version first: if OWNER changes between the two calls, the bytes are
	// newer than the version, and a change under it is refused.
	info, err := st.Stat(ctx, OwnerKey)
	if errors.Is(err, object.NotExist) {
		return o, "", nil
	}
	if err != nil {
		return o, "", err
	}
	b, err := get(ctx, st, OwnerKey)
	if err != nil {
		return o, "", err
	}
	if err := json.Unmarshal(b, &o); err != nil || o.Cluster == "" || o.Epoch == 0 {
		return o, "", fmt.Errorf("read %s: %w: %q", OwnerKey, ErrDamaged, b[:min(len(b), 200)])
	}
	if o.Version > ownerVersion {
		return o, "", fmt.Errorf("read %s: %w", OwnerKey, ErrNewer)
	}
	return o, info.Version, nil
}

// TakeOver makes next the owner in place of the version of OWNER that was read;
// "" for a bucket without one. [object.Changed] or [object.Exists]: somebody was
// faster.
func TakeOver(ctx context.Context, st object.Store, next Owner, version string) error {
	b, err := next.encode()
	if err != nil {
		return err
	}
	return st.Put(ctx, OwnerKey, b, object.PutOptions{IfMatch: version, IfAbsent: version == ""})
}

// Times of an Ownership.
const (
	ownerEvery  = 10 * time.Second       // between two looks at OWNER
	ownerWrite  = 30 * time.Second       // and, by the leader, between two times that it is written
	ownerPoll   = 250 * time.Millisecond // until it was seen for the first time
	ownerRetry  = 2 * time.Second        // after a failure
	ownerMax    = 20 * time.Second       // for one look, retries included
	noOwnerWarn = 15 * time.Second       // between two warnings that there is none
	// AliveFor is how long after its last sign in the bucket a cluster may still
	// be running: its leader writes OWNER every ownerWrite.
	AliveFor = 3 * time.Minute
)

// OwnershipOptions for NewOwnership; all but Founders and Log are required.
type OwnershipOptions struct {
	Store object.Store
	// UUID is this cluster's, "" while it is not known.
	UUID func() string
	// Leads tells whether this node may claim a bucket that nobody owns.
	Leads    func() bool
	Name     string // of the cluster
	Node     string
	Founders string // see Owner
	// First: no node of this cluster may serve before the bucket was found to be
	// its own, so a foreign one ends Run. Later a foreign bucket is an alarm only.
	First bool
	Log   *slog.Logger
}

// Ownership knows whether the bucket is this cluster's.
type Ownership struct {
	o         OwnershipOptions
	confirmed chan struct{} // closed when it was found so for the first time

	mu     sync.Mutex
	epoch  uint64    // 0: not known yet
	at     time.Time // of the last confirmation
	fenced error     // a ForeignError: for good
	last   error     // of the last look
}

// NewOwnership starts nothing; see Run.
func NewOwnership(o OwnershipOptions) *Ownership {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Ownership{o: o, confirmed: make(chan struct{})}
}

// Run watches OWNER until ctx ends. It returns an error, a *[ForeignError], only if
// the bucket is found to be another cluster's before it ever was this one's and
// First is set.
func (w *Ownership) Run(ctx context.Context) error {
	warnAt := time.Now().Add(noOwnerWarn)
	for ctx.Err() == nil {
		pause := ownerPoll
		if w.o.UUID() != "" {
			err := w.Confirm(ctx)
			switch {
			case errors.Is(err, ErrForeign) && w.o.First && w.Epoch() == 0:
				return err
			case errors.Is(err, errNoOwner):
				if time.Now().After(warnAt) {
					warnAt = time.Now().Add(noOwnerWarn)
					w.o.Log.Warn("the bucket has no owner although the cluster runs: is object.url the same as on the other nodes, and does the leader reach the bucket?")
				}
			case err != nil:
				pause = ownerRetry
			default:
				pause = ownerEvery
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// errNoOwner: the leader has not claimed the bucket yet.
var errNoOwner = errors.New("the bucket has no owner yet")

// Confirm looks at OWNER now. The leader claims a bucket without one, and writes
// OWNER again with the time if that is old, so that a restore can see that the
// cluster lives.
func (w *Ownership) Confirm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ownerMax)
	defer cancel()
	epoch, err := w.look(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fenced != nil {
		return w.fenced // for good: what was shipped meanwhile is not ours to go on from
	}
	w.last = err
	switch {
	case errors.Is(err, ErrForeign):
		if w.fenced = err; w.epoch > 0 || !w.o.First {
			w.o.Log.Error("ALARM: nothing is put into the bucket any more; this cluster goes on serving from its nodes' disks. Stop the other cluster or give one of them another object.url", "err", err)
		}
	case err == nil && w.epoch != 0 && epoch != w.epoch:
		w.fenced = fmt.Errorf("%w: its epoch was %d and is %d", ErrForeign, w.epoch, epoch)
		w.o.Log.Error("ALARM: nothing is put into the bucket any more", "err", w.fenced)
		return w.fenced
	case err == nil:
		w.at = time.Now()
		if w.epoch == 0 {
			w.epoch = epoch
			close(w.confirmed)
		}
	}
	return err
}

func (w *Ownership) look(ctx context.Context) (epoch uint64, err error) {
	uuid := w.o.UUID()
	if uuid == "" {
		return 0, errNoOwner
	}
	o, version, err := ReadOwner(ctx, w.o.Store)
	if err != nil {
		return 0, err
	}
	me := Owner{Cluster: uuid, Name: w.o.Name, Epoch: 1, Node: w.o.Node, Founders: w.o.Founders, Time: time.Now().UTC()}
	switch {
	case version == "" && !w.o.Leads():
		return 0, errNoOwner
	case version == "":
		if me.Epoch, err = w.claimEpoch(ctx, uuid); err != nil {
			return 0, err
		}
		if err := TakeOver(ctx, w.o.Store, me, ""); err != nil {
			return 0, err // whoever was faster is seen at the next look
		}
		w.o.Log.Info("the bucket belongs to this cluster now", "cluster", uuid)
		return me.Epoch, nil
	case o.Cluster != uuid:
		return 0, &ForeignError{Owner: o, Mine: uuid}
	case !w.o.Leads() || !o.Restored && time.Since(o.Time).Abs() < ownerWrite:
		return o.Epoch, nil
	}
	me.Epoch, me.Founders = o.Epoch, o.Founders
	// Changed: another leader of this cluster, or a restore. The next look tells.
	return o.Epoch, TakeOver(ctx, w.o.Store, me, version)
}

// claimEpoch is the epoch for a bucket without an owner: this cluster's, if OWNER
// was deleted behind its back; above all that is there, if it is somebody's copy
// without an owner, so that neither is mixed with the other; else 1.
func (w *Ownership) claimEpoch(ctx context.Context, uuid string) (epoch uint64, err error) {
	if epoch := w.Epoch(); epoch > 0 {
		return epoch, nil
	}
	for _, prefix := range []string{snapPrefix, logPrefix} {
		for info, err := range w.o.Store.List(ctx, prefix, "") {
			if err != nil {
				return 0, err
			}
			if p, ok := parseKey(info.Key); ok {
				epoch = max(epoch, p.epoch)
			}
		}
	}
	if epoch == 0 {
		return 1, nil
	}
	own, err := manifests(ctx, w.o.Store, uuid, epoch, func(string, error) {})
	if err != nil || len(own) > 0 {
		return epoch, err
	}
	return epoch + 1, nil
}

// Confirmed is closed when the bucket was found to be this cluster's.
func (w *Ownership) Confirmed() <-chan struct{} { return w.confirmed }

// Epoch is the cluster's, 0 while it is not known.
func (w *Ownership) Epoch() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.epoch
}

// Owned returns nil if, as far as this node knows, the bucket is this cluster's.
// Whoever puts something into the bucket asks first: ErrForeign means never again,
// another error not now. It does not block, and knows of a change ownerEvery late;
// whoever deletes content calls Confirm right before.
func (w *Ownership) Owned() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.fenced != nil:
		return w.fenced
	case w.epoch == 0 && w.last != nil:
		return fmt.Errorf("whose bucket it is is not known: %w", w.last)
	case w.epoch == 0:
		return errNoOwner
	}
	return nil
}

// Fenced is the reason, once the bucket was found to be another cluster's.
func (w *Ownership) Fenced() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fenced
}
