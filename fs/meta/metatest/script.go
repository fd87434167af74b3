package metatest

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/wpfs/wpfs/fs"
)

// Entry is one entry of a log: the commands that State.Apply takes at At.
type Entry struct {
	At    fs.Index
	Batch []fs.Command
}

// Script makes up commands, mostly sensible ones, in proportion to what can go
// wrong. The same seed makes the same commands as long as the model it looks at
// has had the same ones.
type Script struct {
	// Undurable, if set, lists chunks that MarkDurable and StorePack may name.
	Undurable func() []fs.ChunkID
	// Chunks, if set, lists chunks that were seen in packs or without a citation,
	// for everything that is done to these.
	Chunks func() []fs.ChunkInfo

	rnd  *rand.Rand
	m    *Model
	at   fs.Index
	now  fs.Time
	seqs map[fs.SessionID]uint64
	past []fs.Command // for repetitions
}

// NewScript returns a script that looks at m to choose names and inodes.
func NewScript(seed uint64, m *Model) *Script {
	return &Script{rnd: rand.New(rand.NewPCG(seed, 1)), m: m, now: fs.Time{Sec: 1_700_000_000}, seqs: map[fs.SessionID]uint64{}}
}

// Next makes up the next entry. Its commands must be applied to the model before
// the next call.
func (s *Script) Next() Entry {
	s.at += fs.Index(1 + s.rnd.IntN(3)/2)
	e := Entry{At: s.at}
	for range 1 + s.rnd.IntN(4) {
		e.Batch = append(e.Batch, s.command())
	}
	return e
}

func (s *Script) command() fs.Command {
	if len(s.past) > 0 && s.rnd.IntN(25) == 0 {
		return s.past[s.rnd.IntN(len(s.past))]
	}
	s.now.Nsec += uint32(s.rnd.IntN(1000))
	if s.rnd.IntN(20) == 0 {
		s.now.Sec += int64(s.rnd.IntN(9)) - 2
	}
	c := fs.Command{Now: s.now, Op: s.op()}
	if s.rnd.IntN(4) > 0 {
		c.Session = fs.SessionID(1 + s.rnd.IntN(3))
		s.seqs[c.Session]++
		c.Seq = s.seqs[c.Session]
		if s.rnd.IntN(40) == 0 {
			s.seqs[c.Session] += uint64(s.rnd.IntN(600))
		}
		if s.rnd.IntN(4) == 0 {
			c.LowWater = c.Seq - min(c.Seq, uint64(s.rnd.IntN(10)))
		}
	}
	if s.past = append(s.past, c); len(s.past) > 50 {
		s.past = s.past[1:]
	}
	return c
}

func (s *Script) op() fs.Op {
	switch n := s.rnd.IntN(100); {
	case n < 28:
		return s.makeOp()
	case n < 50:
		return s.nameOp()
	case n < 62:
		return s.attrOp()
	case n < 88:
		return s.contentOp()
	case n < 92:
		return s.xattrOp()
	}
	return s.clusterOp()
}

func (s *Script) makeOp() fs.Op {
	dir, name, mode, cred := s.dir(), s.name(), uint32(s.rnd.IntN(0o10000)), s.cred()
	switch s.rnd.IntN(9) {
	case 0, 1:
		return fs.Mkdir{Parent: dir, Name: name, Mode: mode, Cred: cred}
	case 2:
		types := []uint32{0, fs.ModeRegular, fs.ModeFifo, fs.ModeSocket, fs.ModeChar, fs.ModeBlock, fs.ModeDir, fs.ModeSymlink}
		return fs.Mknod{Parent: dir, Name: name, Mode: mode | types[s.rnd.IntN(len(types))], Rdev: s.rnd.Uint32(), Cred: cred}
	case 3:
		targets := []string{"a", "../b", "", strings.Repeat("x", 4095), strings.Repeat("x", 4096), "a\x00b"}
		return fs.Symlink{Parent: dir, Name: name, Target: targets[s.rnd.IntN(len(targets))], Cred: cred}
	case 4:
		return fs.Tmpfile{Parent: dir, Mode: mode, Cred: cred}
	case 5:
		return fs.Link{Ino: s.ino(), Parent: dir, Name: name}
	}
	return fs.Create{Parent: dir, Name: name, Mode: mode, Excl: s.rnd.IntN(3) == 0, Cred: cred}
}

func (s *Script) nameOp() fs.Op {
	dir := s.dir()
	name := s.known(dir)
	switch s.rnd.IntN(4) {
	case 0:
		return fs.Unlink{Parent: dir, Name: name, Cred: s.cred()}
	case 1:
		return fs.Rmdir{Parent: dir, Name: name, Cred: s.cred()}
	}
	to := s.dir()
	return fs.Rename{Parent: dir, Name: name, NewParent: to, NewName: s.known(to), Flags: fs.RenameFlags(s.rnd.IntN(15) / 4), Cred: s.cred()}
}

func (s *Script) attrOp() fs.Op { return *s.setAttr() }

func (s *Script) setAttr() *fs.SetAttr {
	o := &fs.SetAttr{
		Ino: s.ino(), Mode: s.rnd.Uint32(), Uid: uint32(s.rnd.IntN(3)), Gid: uint32(s.rnd.IntN(3)),
		Size: s.size(), Atime: s.time(), Mtime: s.time(), Cred: s.cred(),
	}
	for range s.rnd.IntN(3) {
		o.Mask |= 1 << s.rnd.IntN(7)
	}
	if s.rnd.IntN(50) == 0 {
		o.Mask |= 1 << 7
	}
	return o
}

func (s *Script) contentOp() fs.Op {
	var attr *fs.SetAttr
	if s.rnd.IntN(8) == 0 {
		attr = s.setAttr()
	}
	mask := fs.AttrMask(0)
	if s.rnd.IntN(6) == 0 {
		mask = fs.KillSetid
	}
	if s.rnd.IntN(3) == 0 {
		return fs.Append{Ino: s.file(), Pieces: s.pieces(), Mtime: s.time(), Mask: mask, Attr: attr}
	}
	o := fs.Publish{Ino: s.file(), Pieces: s.pieces(), Mtime: s.time(), Mask: mask, Attr: attr}
	if s.rnd.IntN(4) == 0 {
		cut := s.size()
		o.Cut = &cut
	}
	if s.rnd.IntN(4) == 0 {
		o.Grow = s.size()
	}
	return o
}

func (s *Script) pieces() []fs.Piece {
	var list []fs.Piece
	for range s.rnd.IntN(4) {
		if s.rnd.IntN(3) == 0 {
			list = append(list, s.held())
			continue
		}
		b := s.bytes(1 + s.rnd.IntN(1<<s.rnd.IntN(12)))
		list = append(list, fs.Piece{Off: s.size(), Len: uint64(len(b)), Data: b})
	}
	if len(list) > 0 && s.rnd.IntN(30) == 0 {
		list[0].Len = uint64(s.rnd.IntN(1 << 16)) // usually a lie
		if list[0].Data == nil {
			list[0].Len = 0
		}
	}
	return list
}

// held makes up a chunk that two nodes are said to have, and gives the model its
// bytes.
func (s *Script) held() fs.Piece {
	b := s.bytes(1 + s.rnd.IntN(1<<(4+s.rnd.IntN(9))))
	h := fs.Hash(sha256.Sum256(b))
	s.m.Content[h] = b
	off := s.rnd.IntN(len(b))
	return fs.Piece{
		Off: s.size(), Len: uint64(1 + s.rnd.IntN(len(b)-off)), Hash: h, ChunkOff: uint32(off), ChunkLen: uint32(len(b)),
		Holders: []fs.NodeID{fs.NodeID(fmt.Sprint("n", s.rnd.IntN(4))), fs.NodeID(fmt.Sprint("n", s.rnd.IntN(4)))},
	}
}

// bytes is content that often comes again, so that chunks are shared.
func (s *Script) bytes(n int) []byte {
	b := make([]byte, n)
	k := byte(s.rnd.IntN(5))
	for i := range b {
		b[i] = 'a' + k + byte(i/64)%3
	}
	return b
}

func (s *Script) xattrOp() fs.Op {
	names := []string{"user.a", "user.b", "trusted.c", "", strings.Repeat("x", 255), strings.Repeat("x", 256), "a\x00"}
	name := names[min(s.rnd.IntN(14), s.rnd.IntN(len(names)))]
	if s.rnd.IntN(4) == 0 {
		ino := s.pick(func(n *node) bool { return len(n.xattrs) > 0 })
		return fs.RemoveXattr{Ino: ino, Name: name}
	}
	size := s.rnd.IntN(64)
	if s.rnd.IntN(10) == 0 {
		size = 65530 + s.rnd.IntN(10)
	}
	return fs.SetXattr{Ino: s.ino(), Name: name, Value: s.bytes(size), Flags: fs.XattrFlags(s.rnd.IntN(18) / 4)}
}

func (s *Script) clusterOp() fs.Op {
	id := fs.SessionID(s.rnd.IntN(4))
	switch s.rnd.IntN(20) {
	case 12, 13, 14:
		return s.storePack()
	case 15, 16, 17:
		return s.garbageOp()
	case 0, 1, 2:
		return fs.OpenSession{Session: id, Node: fs.NodeID(fmt.Sprint("n", s.rnd.IntN(5)/4))}
	case 3:
		if s.rnd.IntN(4) == 0 {
			return fs.ExpireSession{Sessions: []fs.SessionID{id, 99}}
		}
	case 4, 5, 6:
		return fs.Reclaim{Inos: []fs.Ino{s.ino(), s.ino(), s.lost()}}
	case 7:
		if s.rnd.IntN(3) == 0 {
			return fs.SetLimits{BytesMax: uint64(s.rnd.IntN(100_000)), InodeMax: uint64(s.rnd.IntN(60))}
		}
		return fs.SetLimits{}
	case 8:
		return fs.InitCluster{UUID: strings.Repeat("u", s.rnd.IntN(3))}
	case 9:
		if s.rnd.IntN(2) == 0 {
			return s.setting()
		}
		return fs.Barrier{}
	}
	o := fs.MarkDurable{}
	if s.Undurable != nil {
		for _, c := range s.Undurable() {
			if s.rnd.IntN(3) == 0 {
				o.Chunks = append(o.Chunks, c)
			}
		}
	}
	return o
}

// packID is one of a few packs, so that chunks meet in them and packs come to
// their end.
func (s *Script) packID() fs.PackID {
	return fs.PackID{15: byte(s.rnd.IntN(40))}
}

func (s *Script) storePack() fs.Op {
	o := fs.StorePack{Pack: s.packID(), Size: 1 << 20}
	if s.rnd.IntN(20) == 0 {
		o.Size = uint32(s.rnd.IntN(2)) * (fs.PackMax + 1)
	}
	at := uint32(0)
	put := func(id fs.ChunkID, from fs.PackID) {
		if s.rnd.IntN(3) > 0 {
			return
		}
		n := uint32(1 + s.rnd.IntN(5000))
		if s.rnd.IntN(300) == 0 {
			n = 1 << 21
		}
		o.Chunks = append(o.Chunks, fs.Placed{Chunk: id, From: from, Off: at, Len: n})
		at += n
	}
	if s.Undurable != nil {
		for _, id := range s.Undurable() {
			put(id, fs.PackID{})
		}
	}
	if s.Chunks != nil && s.rnd.IntN(3) == 0 {
		for _, c := range s.Chunks() {
			put(c.ID, c.Place.Pack)
		}
	}
	return o
}

func (s *Script) markLost() fs.Op {
	o := fs.MarkLost{Chunks: []fs.ChunkID{{Gen: 1}}}
	if s.Chunks != nil {
		for _, c := range s.Chunks() {
			if s.rnd.IntN(3) == 0 {
				o.Chunks = append(o.Chunks, c.ID)
			}
		}
	}
	return o
}

func (s *Script) garbageOp() fs.Op {
	if s.rnd.IntN(4) == 0 {
		return s.markLost()
	}
	var chunks []fs.ChunkID
	if s.Chunks != nil {
		for _, c := range s.Chunks() {
			if s.rnd.IntN(2) == 0 {
				chunks = append(chunks, c.ID)
			}
		}
	}
	packs := []fs.PackID{s.packID(), s.packID(), s.packID()}
	if s.rnd.IntN(2) == 0 {
		return fs.Forget{Chunks: chunks, Packs: packs}
	}
	return fs.Condemn{Chunks: chunks, Packs: packs[:s.rnd.IntN(2)]}
}

// pick chooses among the inodes that fit, or rarely any number.
func (s *Script) pick(fits func(*node) bool) fs.Ino {
	var list []fs.Ino
	for ino, n := range s.m.nodes {
		if fits(n) {
			list = append(list, ino)
		}
	}
	if len(list) == 0 || s.rnd.IntN(40) == 0 {
		return fs.Ino(s.rnd.IntN(int(s.m.next) + 2))
	}
	slices.Sort(list)
	return list[s.rnd.IntN(len(list))]
}

func (s *Script) ino() fs.Ino  { return s.pick(func(*node) bool { return true }) }
func (s *Script) dir() fs.Ino  { return s.pick(func(n *node) bool { return n.IsDir() }) }
func (s *Script) file() fs.Ino { return s.pick(func(n *node) bool { return n.IsRegular() }) }
func (s *Script) lost() fs.Ino { return s.pick(func(n *node) bool { return n.Nlink == 0 }) }

func (s *Script) name() string {
	bad := []string{"", ".", "..", "a/b", "\x00", strings.Repeat("n", 256), strings.Repeat("n", 255)}
	if s.rnd.IntN(40) == 0 {
		return bad[s.rnd.IntN(len(bad))]
	}
	return fmt.Sprint("f", s.rnd.IntN(12))
}

// known is mostly a name that dir has.
func (s *Script) known(dir fs.Ino) string {
	n := s.m.nodes[dir]
	if n == nil || len(n.kids) == 0 || s.rnd.IntN(5) == 0 {
		return s.name()
	}
	var list []string
	for name := range n.kids {
		list = append(list, name)
	}
	slices.Sort(list)
	return list[s.rnd.IntN(len(list))]
}

func (s *Script) cred() fs.Cred {
	return fs.Cred{Uid: uint32(s.rnd.IntN(3)), Gid: uint32(s.rnd.IntN(3))}
}

func (s *Script) size() uint64 {
	if s.rnd.IntN(60) == 0 {
		return fs.FileMax + 1
	}
	return uint64(s.rnd.IntN(1 << s.rnd.IntN(14)))
}

func (s *Script) time() fs.Time {
	t := s.now
	switch s.rnd.IntN(8) {
	case 0:
		t.Sec += int64(s.rnd.IntN(40)) - 20
	case 1:
		t.Sec = s.rnd.Int64()
	case 2:
		t.Nsec = 1_000_000_000
	}
	return t
}

// setting swaps one of few settings among few values, so that half of it fits.
func (s *Script) setting() fs.Op {
	value := func() []byte {
		if n := s.rnd.IntN(3); n > 0 {
			return make([]byte, n-1)
		}
		return nil
	}
	return fs.SetSetting{Key: strings.Repeat("k", s.rnd.IntN(3)), Old: value(), Value: value()}
}
