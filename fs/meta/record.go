package meta

import (
	"github.com/wpfs/wpfs/fs"
)

// recordVersion is the first byte of every record.
const recordVersion = 1

// formatVersion is the version of the store as a whole: which records exist and
// what they mean together.
const formatVersion = 1

// inode is an inode record: attributes and what only one type of inode has.
type inode struct {
	fs.Attr
	// Of directories.
	parent     fs.Ino // the directory that holds it; of the root, the root
	nextCookie uint64 // the next entry's cookie
	entries    uint64 // number of entries, so that rmdir need not scan
	// Of symbolic links.
	target string

	// Within a command.
	changed bool // to be written
	removed bool // to be deleted
	touched bool // ctime has moved
	listed  bool // mtime of the directory has moved
}

// entryRecord is where a directory entry leads; its name is in the key of one
// copy and in the value of the other (the listing, in cookie order).
type entryRecord struct {
	ino    fs.Ino
	typ    uint32
	cookie uint64
}

type chunkRecord struct {
	size    uint32
	refs    uint64
	durable bool
	inline  bool // the content is in the b record
	holders []fs.NodeID

	// Since version 2 of the record; version 1 is written while they are zero.
	place     fs.Place
	condemned fs.Index // 0: it is not
	since     fs.Time  // when it was
}

// chunkVersion2 is of chunk records with a place or a condemnation.
const chunkVersion2 = 2

// packRecord is what is known of a pack. It is condemned with its last live
// chunk, and never comes back.
type packRecord struct {
	size      uint64 // of the object; 0 if only a listing told of it
	made      fs.Index
	chunks    uint64 // chunk records whose place it is
	live      uint64 // of these, not condemned
	liveBytes uint64 // bytes of the object that the live ones take
	condemned fs.Index
	since     fs.Time
}

type orphanRecord struct {
	since   fs.Index
	tmpfile bool // never had a name; Link may give it one
}

// sessionRecord stays after the session's end: a late OpenSession must not
// bring it back.
type sessionRecord struct {
	node    fs.NodeID
	opened  fs.Index
	floor   uint64 // the lowest sequence number that is not forgotten
	expired bool
}

// system is what there is one of and most entries change.
type system struct {
	nextIno  fs.Ino
	bytes    uint64
	inodes   uint64
	bytesMax uint64
	inodeMax uint64
}

// appliedRecord names the prefix of the log that the store holds.
type appliedRecord struct {
	at   fs.Index
	hash uint64
}

func record() *enc { return &enc{b: append(make([]byte, 0, 64), recordVersion)} }

// openRecord checks the version byte.
func openRecord(what string, b []byte) (*dec, error) {
	d := &dec{b: b}
	if v := d.u8(); d.err == nil && v != recordVersion {
		return nil, &VersionError{what + " record", uint64(v), recordVersion}
	}
	return d, nil
}

// decodeRecord reads a record whole; f reads what follows the version byte.
func decodeRecord(what string, b []byte, f func(d *dec)) error {
	d, err := openRecord(what, b)
	if err != nil {
		return err
	}
	f(d)
	if err := d.end(); err != nil {
		return corrupt("read "+what+" record", err)
	}
	return nil
}

func (e *enc) attr(a *fs.Attr) {
	e.uint(uint64(a.Mode))
	e.uint(uint64(a.Uid))
	e.uint(uint64(a.Gid))
	e.uint(uint64(a.Nlink))
	e.uint(uint64(a.Rdev))
	e.uint(a.Generation)
	e.uint(a.Size)
	e.uint(a.Bytes)
	e.time(a.Atime)
	e.time(a.Mtime)
	e.time(a.Ctime)
	e.time(a.Btime)
	e.uint(uint64(a.Version))
}

func (d *dec) attr(ino fs.Ino) fs.Attr {
	return fs.Attr{
		Ino: ino, Mode: d.u32(), Uid: d.u32(), Gid: d.u32(), Nlink: d.u32(), Rdev: d.u32(),
		Generation: d.uint(), Size: d.uint(), Bytes: d.uint(),
		Atime: d.time(), Mtime: d.time(), Ctime: d.time(), Btime: d.time(),
		Version: fs.Index(d.uint()),
	}
}

func (n *inode) encode() []byte {
	e := record()
	e.attr(&n.Attr)
	switch n.Mode & fs.ModeType {
	case fs.ModeDir:
		e.uint(uint64(n.parent))
		e.uint(n.nextCookie)
		e.uint(n.entries)
	case fs.ModeSymlink:
		e.str(n.target)
	}
	return e.b
}

func decodeInode(ino fs.Ino, b []byte) (*inode, error) {
	n := &inode{}
	err := decodeRecord("inode", b, func(d *dec) {
		n.Attr = d.attr(ino)
		switch n.Mode & fs.ModeType {
		case fs.ModeDir:
			n.parent = fs.Ino(d.uint())
			n.nextCookie = d.uint()
			n.entries = d.uint()
		case fs.ModeSymlink:
			n.target = d.str()
		}
	})
	return n, err
}

func (r entryRecord) encode() []byte {
	e := record()
	e.uint(uint64(r.ino))
	e.uint(uint64(r.typ))
	e.uint(r.cookie)
	return e.b
}

func decodeEntry(b []byte) (r entryRecord, err error) {
	err = decodeRecord("directory entry", b, func(d *dec) {
		r = entryRecord{fs.Ino(d.uint()), d.u32(), d.uint()}
	})
	return r, err
}

func encodeListing(name string, r entryRecord) []byte {
	e := record()
	e.uint(uint64(r.ino))
	e.uint(uint64(r.typ))
	e.str(name)
	return e.b
}

func decodeListing(cookie uint64, b []byte) (x fs.Entry, err error) {
	err = decodeRecord("listing", b, func(d *dec) {
		x = fs.Entry{Ino: fs.Ino(d.uint()), Type: d.u32(), Name: d.str(), Cookie: cookie}
	})
	return x, err
}

func encodeExtent(x fs.Extent) []byte {
	e := record()
	e.uint(x.Len)
	e.chunk(x.Chunk)
	e.uint(uint64(x.ChunkOff))
	return e.b
}

func decodeExtent(off uint64, b []byte) (x fs.Extent, err error) {
	err = decodeRecord("extent", b, func(d *dec) {
		x = fs.Extent{Off: off, Len: d.uint(), Chunk: d.chunk(), ChunkOff: d.u32()}
	})
	return x, err
}

func (r chunkRecord) encode() []byte {
	e := record()
	late := r.place != (fs.Place{}) || r.condemned != 0
	if late {
		e.b[0] = chunkVersion2
	}
	e.uint(uint64(r.size))
	e.uint(r.refs)
	e.bool(r.durable)
	e.bool(r.inline)
	e.nodes(r.holders)
	if late {
		e.pack(r.place.Pack)
		e.uint(uint64(r.place.Off))
		e.uint(uint64(r.place.Len))
		e.uint(uint64(r.condemned))
		e.time(r.since)
	}
	return e.b
}

func decodeChunk(b []byte) (r chunkRecord, err error) {
	d := &dec{b: b}
	v := d.u8()
	if d.err == nil && v != recordVersion && v != chunkVersion2 {
		return r, &VersionError{"chunk record", uint64(v), chunkVersion2}
	}
	r = chunkRecord{size: d.u32(), refs: d.uint(), durable: d.bool(), inline: d.bool(), holders: d.nodes()}
	if v == chunkVersion2 {
		r.place = fs.Place{Pack: d.pack(), Off: d.u32(), Len: d.u32()}
		r.condemned, r.since = fs.Index(d.uint()), d.time()
	}
	if err := d.end(); err != nil {
		return r, corrupt("read chunk record", err)
	}
	return r, nil
}

func (r packRecord) encode() []byte {
	e := record()
	e.uint(r.size)
	e.uint(uint64(r.made))
	e.uint(r.chunks)
	e.uint(r.live)
	e.uint(r.liveBytes)
	e.uint(uint64(r.condemned))
	e.time(r.since)
	return e.b
}

func decodePack(b []byte) (r packRecord, err error) {
	err = decodeRecord("pack", b, func(d *dec) {
		r = packRecord{d.uint(), fs.Index(d.uint()), d.uint(), d.uint(), d.uint(), fs.Index(d.uint()), d.time()}
	})
	return r, err
}

// encodeBlob puts the version before bytes that are stored as they are: inline
// content and the values of extended attributes.
func encodeBlob(v []byte) []byte {
	return append(append(make([]byte, 0, 1+len(v)), recordVersion), v...)
}

func decodeBlob(what string, b []byte) ([]byte, error) {
	d, err := openRecord(what, b)
	if err != nil {
		return nil, err
	}
	if d.err != nil {
		return nil, corrupt("read "+what+" record", d.err)
	}
	return d.b, nil
}

func (r orphanRecord) encode() []byte {
	e := record()
	e.uint(uint64(r.since))
	e.bool(r.tmpfile)
	return e.b
}

func decodeOrphan(b []byte) (r orphanRecord, err error) {
	err = decodeRecord("orphan", b, func(d *dec) {
		r = orphanRecord{fs.Index(d.uint()), d.bool()}
	})
	return r, err
}

func (r sessionRecord) encode() []byte {
	e := record()
	e.str(string(r.node))
	e.uint(uint64(r.opened))
	e.uint(r.floor)
	e.bool(r.expired)
	return e.b
}

func decodeSession(b []byte) (r sessionRecord, err error) {
	err = decodeRecord("session", b, func(d *dec) {
		r = sessionRecord{fs.NodeID(d.str()), fs.Index(d.uint()), d.uint(), d.bool()}
	})
	return r, err
}

func (r system) encode() []byte {
	e := record()
	e.uint(uint64(r.nextIno))
	e.uint(r.bytes)
	e.uint(r.inodes)
	e.uint(r.bytesMax)
	e.uint(r.inodeMax)
	return e.b
}

func decodeSystem(b []byte) (r system, err error) {
	err = decodeRecord("system", b, func(d *dec) {
		r = system{fs.Ino(d.uint()), d.uint(), d.uint(), d.uint(), d.uint()}
	})
	return r, err
}

func (r Shipped) encode() []byte {
	e := record()
	e.uint(uint64(r.Index))
	e.uint(uint64(r.Oldest))
	return e.b
}

func decodeShipped(b []byte) (r Shipped, err error) {
	err = decodeRecord("shipped", b, func(d *dec) {
		r = Shipped{fs.Index(d.uint()), fs.Index(d.uint())}
	})
	return r, err
}

func (r appliedRecord) encode() []byte {
	e := record()
	e.uint(uint64(r.at))
	e.uint(r.hash)
	return e.b
}

func decodeApplied(b []byte) (r appliedRecord, err error) {
	err = decodeRecord("applied", b, func(d *dec) {
		r = appliedRecord{fs.Index(d.uint()), d.uint()}
	})
	return r, err
}
