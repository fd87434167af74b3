package meta

import (
	"fmt"

	"github.com/wpfs/wpfs/fs"
)

// ProblemsMax is how many problems Check reports before it gives up.
const ProblemsMax = 1000

// Problem is a broken invariant.
type Problem struct {
	Where string // the record or the number in question
	What  string // what is wrong with it
	// Lost: nobody has the content of this chunk. All records are right then, if
	// fs.MarkLost said so.
	Lost bool
}

func (p Problem) String() string { return p.Where + ": " + p.What }

// Check states the invariants of the store and reports what breaks them; none
// is the answer for every state that Apply made. It reads a snapshot, so commits
// go on, and needs memory in proportion to the number of inodes and chunks.
//
// The invariants: every record decodes, under a known kind of key. Every
// directory entry has both its copies and leads to an inode of its type; cookies
// are unique and below the next one. Every inode has as many links as names (a
// directory: two and one per subdirectory, and exactly one name, in its parent);
// one without is an orphan, and only orphans are. Every live directory is
// reached from the root. Extents are in order, apart, inside the file and inside
// their chunks; a file's Bytes is their sum. A chunk's references are the extents
// that cite it; it is in the list of those to be uploaded if it is cited and not
// durable; inline content is there, fits its hash and is cited; what is neither inline nor
// durable has holders, or is lost. Extended attributes belong to inodes and keep the limits.
// Usage is the sum over the inodes. Stored results belong to live sessions and to
// their windows. No index in any record is above the applied one.
func (s *State) Check() []Problem {
	snap, err := s.kv.Snapshot()
	if err != nil {
		return []Problem{{Where: "store", What: err.Error()}}
	}
	c := &checker{reader: reader{snap}, inodes: map[fs.Ino]*inodeFacts{}, chunks: map[fs.ChunkID]*chunkFacts{}}
	for _, step := range []func(){
		c.checkKeys, c.checkApplied, c.loadInodes, c.checkEntries, c.checkListing, c.checkOrphans, c.checkLinks, c.checkTree,
		c.loadChunks, c.checkExtents, c.checkChunks, c.checkInline, c.checkUndurable, c.checkPacks,
		c.checkXattrs, c.checkSettings, c.checkSystem, c.checkSessions, c.checkResults,
	} {
		step()
	}
	if err := snap.Close(); err != nil {
		c.report("store", "%v", err)
	}
	return append(c.problems, c.lost...)
}

// inodeFacts is what an inode record says and what others say about the inode.
type inodeFacts struct {
	inode
	names    uint64 // entries that lead here
	subdirs  uint32 // of a directory: entries that lead to directories
	entries  uint64 // of a directory: entries seen
	listed   uint64 // of a directory: listing records seen
	covered  uint64 // bytes that extents cover
	extEnd   uint64 // where the last extent ends
	orphan   bool
	xattrSum int
}

type checker struct {
	reader
	problems []Problem
	lost     []Problem // told last: many of them must not hide the others
	applied  fs.Index
	inodes   map[fs.Ino]*inodeFacts
	order    []fs.Ino // of inodes, ascending
	chunks   map[fs.ChunkID]*chunkFacts
}

func (c *checker) report(where, format string, a ...any) {
	if len(c.problems) < ProblemsMax {
		c.problems = append(c.problems, Problem{Where: where, What: fmt.Sprintf(format, a...)})
	}
}

// each calls f for every record of a kind whose key has a possible length.
func (c *checker) each(kind byte, f func(k, v []byte)) {
	lo := []byte{kind}
	err := c.src.Scan(lo, after(lo), func(k, v []byte) bool {
		if len(k) >= keyLen[kind] {
			f(k, v)
		}
		return len(c.problems) < ProblemsMax
	})
	if err != nil {
		c.report("records of kind "+string(lo), "%v", err)
	}
}

// keyLen is the length of the keys of each kind; of names, the least.
var keyLen = map[byte]int{
	kindInline: 41, kindChunk: 41, kindUndurable: 41,
	kindEntry: 10, kindXattr: 10,
	kindExtent: 17, kindListing: 17, kindResult: 17,
	kindPack:  17,
	kindInode: 9, kindOrphan: 9, kindSession: 9,
	kindMeta: 5, kindSetting: 2,
}

func (c *checker) checkKeys() {
	err := c.src.Scan(nil, nil, func(k, _ []byte) bool {
		want, known := keyLen[k[0]]
		named := k[0] == kindEntry || k[0] == kindXattr || k[0] == kindMeta || k[0] == kindSetting
		switch {
		case !known:
			c.report(fmt.Sprintf("key %x", k), "unknown kind of record")
		case len(k) < want || !named && len(k) != want:
			c.report(fmt.Sprintf("key %x", k), "%d bytes long, want %d", len(k), want)
		}
		return len(c.problems) < ProblemsMax
	})
	if err != nil {
		c.report("store", "%v", err)
	}
}

func (c *checker) checkApplied() {
	a, err := readApplied(c.src)
	if err != nil {
		c.report("applied record", "%v", err)
	}
	c.applied = a.at
	if r, err := (reader{c.src}).shipped(); err != nil || r.Index > c.applied || r.Oldest > r.Index {
		c.report("shipped record", "up to %d, from %d (%v)", r.Index, r.Oldest, err)
	}
	if b, ok, err := c.src.Get(keyFormat); err != nil || !ok {
		c.report("store format", "missing (%v)", err)
	} else if err := checkFormat(b); err != nil {
		c.report("store format", "%v", err)
	}
}

func (c *checker) loadInodes() {
	c.each(kindInode, func(k, v []byte) {
		ino := fs.Ino(keyTail(k))
		n, err := decodeInode(ino, v)
		if err != nil {
			c.report("inode "+ino.String(), "%v", err)
			return
		}
		c.inodes[ino] = &inodeFacts{inode: *n}
		c.order = append(c.order, ino)
		c.checkInode(n)
	})
	if root := c.inodes[fs.RootIno]; root == nil {
		c.report("inode 1", "there is no root directory")
	} else if !root.IsDir() || root.parent != fs.RootIno || root.Nlink == 0 {
		c.report("inode 1", "the root is no directory that is its own parent")
	}
}

func (c *checker) checkInode(n *inode) {
	where := "inode " + n.Ino.String()
	if fs.Index(n.Generation) > c.applied || n.Version > c.applied {
		c.report(where, "made at %d and changed at %d, but only %d is applied", n.Generation, n.Version, c.applied)
	}
	for _, t := range []fs.Time{n.Atime, n.Mtime, n.Ctime, n.Btime} {
		if !validTime(t) {
			c.report(where, "%d nanoseconds in a second", t.Nsec)
		}
	}
	size := n.Size
	switch n.Mode & fs.ModeType {
	case fs.ModeRegular:
	case fs.ModeDir:
		size = dirSize
	case fs.ModeSymlink:
		size = uint64(len(n.target))
	case fs.ModeFifo, fs.ModeSocket, fs.ModeBlock, fs.ModeChar:
		size = 0
	default:
		c.report(where, "unknown type in mode %o", n.Mode)
	}
	if n.Size != size || n.Size > fs.FileMax {
		c.report(where, "size %d, want %d", n.Size, size)
	}
}

func (c *checker) checkEntries() {
	c.each(kindEntry, func(k, v []byte) {
		dir, name := fs.Ino(keyHead(k)), string(k[9:])
		where := fmt.Sprintf("entry %q of inode %d", name, dir)
		x, err := decodeEntry(v)
		if err != nil {
			c.report(where, "%v", err)
			return
		}
		if err := checkName(name); err != nil {
			c.report(where, "the name: %v", err)
		}
		c.checkTarget(where, dir, x)
		b, ok, err := c.src.Get(keyListing(dir, x.cookie))
		if err != nil || !ok {
			c.report(where, "not in the listing at cookie %d (%v)", x.cookie, err)
			return
		}
		if l, err := decodeListing(x.cookie, b); err != nil || l.Name != name || l.Ino != x.ino || l.Type != x.typ {
			c.report(where, "the listing at cookie %d says %q, inode %d, type %o (%v)", x.cookie, l.Name, l.Ino, l.Type, err)
		}
	})
}

// checkTarget counts an entry for its directory and for what it leads to.
func (c *checker) checkTarget(where string, dir fs.Ino, x entryRecord) {
	d, n := c.inodes[dir], c.inodes[x.ino]
	if d == nil || !d.IsDir() {
		c.report(where, "the directory is none")
		return
	}
	d.entries++
	if x.cookie < firstCookie || x.cookie >= d.nextCookie {
		c.report(where, "cookie %d, the next one is %d", x.cookie, d.nextCookie)
	}
	if n == nil {
		c.report(where, "leads to inode %d, which is missing", x.ino)
		return
	}
	n.names++
	if n.Mode&fs.ModeType != x.typ {
		c.report(where, "says type %o, inode %d has %o", x.typ, x.ino, n.Mode&fs.ModeType)
	}
	if n.IsDir() {
		d.subdirs++
		if n.parent != dir {
			c.report(where, "leads to directory %d, whose parent is %d", x.ino, n.parent)
		}
	}
}

func (c *checker) checkListing() {
	c.each(kindListing, func(k, v []byte) {
		dir, cookie := fs.Ino(keyHead(k)), keyTail(k)
		where := fmt.Sprintf("listing of inode %d at cookie %d", dir, cookie)
		l, err := decodeListing(cookie, v)
		if err != nil {
			c.report(where, "%v", err)
			return
		}
		if x, ok, err := c.entry(dir, l.Name); err != nil || !ok || x.cookie != cookie {
			c.report(where, "entry %q is not there or elsewhere (%v)", l.Name, err)
		}
		if d := c.inodes[dir]; d != nil {
			d.listed++
		}
	})
}

func (c *checker) checkOrphans() {
	c.each(kindOrphan, func(k, v []byte) {
		ino := fs.Ino(keyTail(k))
		where := "orphan " + ino.String()
		x, err := decodeOrphan(v)
		if err != nil {
			c.report(where, "%v", err)
			return
		}
		n := c.inodes[ino]
		if n == nil {
			c.report(where, "the inode is missing")
			return
		}
		n.orphan = true
		if x.since > c.applied {
			c.report(where, "since %d, but only %d is applied", x.since, c.applied)
		}
	})
}

func (c *checker) checkLinks() {
	for _, ino := range c.order {
		n := c.inodes[ino]
		where := "inode " + ino.String()
		if n.orphan != (n.Nlink == 0) {
			c.report(where, "%d links, in the list of orphans: %t", n.Nlink, n.orphan)
		}
		if !n.IsDir() {
			if n.names != uint64(n.Nlink) || n.Nlink > fs.LinkMax {
				c.report(where, "%d links, %d names", n.Nlink, n.names)
			}
			continue
		}
		c.checkDir(where, n)
	}
}

func (c *checker) checkDir(where string, n *inodeFacts) {
	if n.entries != n.inode.entries || n.listed != n.entries {
		c.report(where, "says %d entries, has %d and %d in the listing", n.inode.entries, n.entries, n.listed)
	}
	names, links := uint64(1), 2+n.subdirs
	if n.Ino == fs.RootIno {
		names = 0
	}
	if n.orphan {
		names, links = 0, 0
		if n.entries > 0 {
			c.report(where, "a removed directory with %d entries", n.entries)
		}
	}
	if n.names != names || n.Nlink != links {
		c.report(where, "a directory with %d names and %d links, want %d and %d", n.names, n.Nlink, names, links)
	}
}

// checkTree looks for directories that cannot be reached: with one name each,
// they can only form loops.
func (c *checker) checkTree() {
	reached := map[fs.Ino]bool{fs.RootIno: true}
	for _, ino := range c.order {
		n := c.inodes[ino]
		if !n.IsDir() || n.orphan {
			continue
		}
		var path []fs.Ino
		seen := map[fs.Ino]bool{}
		for n != nil && !reached[n.Ino] && !seen[n.Ino] {
			path = append(path, n.Ino)
			seen[n.Ino] = true
			n = c.inodes[n.parent]
		}
		if n == nil || !reached[n.Ino] {
			c.report("inode "+ino.String(), "a directory that the root does not lead to")
			continue
		}
		for _, p := range path {
			reached[p] = true
		}
	}
}

func (c *checker) checkXattrs() {
	c.each(kindXattr, func(k, v []byte) {
		ino, name := fs.Ino(keyHead(k)), string(k[9:])
		where := fmt.Sprintf("xattr %q of inode %d", name, ino)
		b, err := decodeBlob("xattr", v)
		if err != nil {
			c.report(where, "%v", err)
			return
		}
		n := c.inodes[ino]
		if n == nil {
			c.report(where, "the inode is missing")
			return
		}
		if err := checkXattr(name, len(b)); err != nil {
			c.report(where, "%v", err)
		}
		if n.xattrSum += len(name) + len(b); n.xattrSum > fs.XattrSumMax {
			c.report(where, "%d bytes of attributes", n.xattrSum)
		}
	})
}

func (c *checker) checkSystem() {
	sys, err := c.system()
	if err != nil {
		c.report("system record", "%v", err)
		return
	}
	var size uint64
	for _, ino := range c.order {
		if n := c.inodes[ino]; n.IsRegular() {
			size += n.Size
		}
		if ino >= sys.nextIno || ino == 0 {
			c.report("inode "+ino.String(), "the next number to give is %d", sys.nextIno)
		}
	}
	if sys.bytes != size || sys.inodes != uint64(len(c.order)) {
		c.report("system record", "%d bytes in %d inodes, the inodes say %d in %d", sys.bytes, sys.inodes, size, len(c.order))
	}
}
