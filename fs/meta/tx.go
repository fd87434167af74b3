package meta

import (
	"encoding/binary"
	"sort"

	"github.com/cespare/xxhash/v2"

	"github.com/wpfs/wpfs/fs"
)

const (
	dirSize     = 4096 // what stat says of a directory
	firstCookie = 3    // 1 and 2 are "." and ".."
)

// tx applies one entry: an overlay over the store, and per command a cache of
// decoded inodes that is written to the overlay when the command succeeds.
type tx struct {
	reader
	o   *overlay
	at  fs.Index
	sys system

	// Of the command being run.
	cmd        int // its index in the entry
	now        fs.Time
	inodes     map[fs.Ino]*inode
	cmdKeys    []fs.Key
	cmdDropped []droppedInline
	cmdSys     system

	// Of the entry.
	keys    []fs.Key
	by      []int          // beside keys: the command that touched it, or several
	seen    map[fs.Key]int // where it is in keys
	dropped []droppedInline
}

// several stands for a command's index where more than one touched a key.
const several = -1

type droppedInline struct {
	id      fs.ChunkID
	content []byte
}

func newTx(base Reader, at fs.Index, sys system) *tx {
	o := newOverlay(base)
	return &tx{reader: reader{o}, o: o, at: at, sys: sys,
		inodes: map[fs.Ino]*inode{}, seen: map[fs.Key]int{}}
}

// attempt runs one operation. A refusal leaves nothing behind and is a result;
// an error is the store's.
func (t *tx) attempt(c fs.Command) (fs.Result, error) {
	t.begin(c.Now)
	r, err := t.exec(c.Op)
	if k, refused := err.(fs.Kind); refused { //nolint:errorlint // a refusal is never wrapped: an error that wraps a kind is a fault
		t.rollback()
		return fs.Result{Index: t.at, Kind: k}, nil
	}
	if err != nil {
		return fs.Result{}, err
	}
	t.accept()
	r.Index = t.at
	return r, nil
}

func (t *tx) begin(now fs.Time) {
	t.now = now
	clear(t.inodes)
	t.cmdKeys, t.cmdDropped, t.cmdSys = t.cmdKeys[:0], t.cmdDropped[:0], t.sys
	t.o.mark()
}

func (t *tx) rollback() {
	t.o.rollback()
	t.sys = t.cmdSys
}

// accept writes the command's inodes. Their order does not matter to the store,
// which sorts, so the map's does not matter either.
func (t *tx) accept() {
	for ino, n := range t.inodes {
		switch {
		case n == nil:
		case n.removed:
			t.o.del(keyInode(ino))
		case n.changed:
			t.o.put(keyInode(ino), n.encode())
		}
	}
	for _, k := range t.cmdKeys {
		t.report(k)
	}
	t.dropped = append(t.dropped, t.cmdDropped...)
}

// report adds a key of this command to the entry's.
func (t *tx) report(k fs.Key) {
	i, ok := t.seen[k]
	if !ok {
		t.seen[k] = len(t.keys)
		t.keys, t.by = append(t.keys, k), append(t.by, t.cmd)
		return
	}
	if t.by[i] != t.cmd {
		t.by[i] = several
	}
}

// finish returns the entry's writes and the hash of the state after them.
func (t *tx) finish(hash uint64) ([]Write, uint64) {
	t.o.put(keySystem, t.sys.encode())
	w := t.o.writes()
	hash = chain(hash, t.at, w)
	w = append(w, Write{Key: keyApplied, Value: appliedRecord{t.at, hash}.encode()})
	sort.Slice(w, func(i, j int) bool { return writeLess(w[i], w[j]) })
	return w, hash
}

// chain hashes an entry's sorted writes behind the hash of all entries before.
func chain(before uint64, at fs.Index, w []Write) uint64 {
	d := xxhash.New()
	var b [17]byte
	num := func(x, y uint64) {
		binary.BigEndian.PutUint64(b[:], x)
		binary.BigEndian.PutUint64(b[8:], y)
	}
	num(before, uint64(at))
	_, _ = d.Write(b[:16]) // a hash never fails
	for _, x := range w {
		num(uint64(len(x.Key)), uint64(len(x.Value)))
		b[16] = 0
		if x.Delete {
			b[16] = 1
		}
		_, _ = d.Write(b[:])
		_, _ = d.Write(x.Key)
		_, _ = d.Write(x.Value)
	}
	return d.Sum64()
}

// inode returns the command's one copy of an inode; nil if there is none.
func (t *tx) inode(ino fs.Ino) (*inode, error) {
	if n, ok := t.inodes[ino]; ok {
		return n, nil
	}
	n, err := t.reader.inode(ino)
	if err != nil {
		return nil, err
	}
	t.inodes[ino] = n
	return n, nil
}

// mustInode returns the inode that a directory entry names.
func (t *tx) mustInode(ino fs.Ino) (*inode, error) {
	n, err := t.inode(ino)
	if err == nil && n == nil {
		err = corrupt("read inode "+ino.String(), errMissing)
	}
	return n, err
}

// fileInode returns the inode that a command names by number.
func (t *tx) fileInode(ino fs.Ino) (*inode, error) {
	n, err := t.inode(ino)
	if err == nil && n == nil {
		err = fs.ErrStale
	}
	return n, err
}

// liveDir returns a directory in which names can be made and found.
func (t *tx) liveDir(ino fs.Ino) (*inode, error) {
	n, err := t.fileInode(ino)
	switch {
	case err != nil:
		return nil, err
	case !n.IsDir():
		return nil, fs.ErrNotDir
	case n.Nlink == 0:
		return nil, fs.ErrNotFound
	}
	return n, nil
}

func (t *tx) key(kind fs.KeyKind, ino fs.Ino, name string) {
	t.cmdKeys = append(t.cmdKeys, fs.Key{Kind: kind, Ino: ino, Name: name})
}

// touch says that n's record changes: its ctime moves, once per command and
// never backwards.
func (t *tx) touch(n *inode) {
	if !n.touched {
		n.Ctime = later(t.now, n.Ctime)
	}
	n.changed, n.touched = true, true
	t.key(fs.KeyAttr, n.Ino, "")
}

// later is now, or if that is not after old the first moment that is.
func later(now, old fs.Time) fs.Time {
	if old.Before(now) {
		return now
	}
	return old.Next()
}

// touchDir says that dir's entries change.
func (t *tx) touchDir(dir *inode) {
	if !dir.listed {
		dir.Mtime = later(t.now, dir.Mtime)
	}
	dir.listed = true
	dir.Version = t.at
	t.touch(dir)
	t.key(fs.KeyList, dir.Ino, "")
}

// chargeInode counts one more inode.
func (t *tx) chargeInode() error {
	if t.sys.inodeMax > 0 && t.sys.inodes >= t.sys.inodeMax {
		return fs.ErrNoSpace
	}
	t.sys.inodes++
	return nil
}

// chargeBytes counts a file's change of size.
func (t *tx) chargeBytes(before, now uint64) error {
	sum := t.sys.bytes - before + now
	if now > before && (sum < t.sys.bytes || t.sys.bytesMax > 0 && sum > t.sys.bytesMax) {
		return fs.ErrNoSpace
	}
	t.sys.bytes = sum
	return nil
}
