package meta

import (
	"fmt"

	"github.com/wpfs/wpfs/fs"
)

func (e *enc) cred(c fs.Cred) {
	e.uint(uint64(c.Uid))
	e.uint(uint64(c.Gid))
}

func (d *dec) cred() fs.Cred { return fs.Cred{Uid: d.u32(), Gid: d.u32()} }

// place is how most operations name a directory entry.
func (e *enc) place(dir fs.Ino, name string) {
	e.uint(uint64(dir))
	e.str(name)
}

func (d *dec) ino() fs.Ino { return fs.Ino(d.uint()) }

// op writes an operation's number and fields.
func (e *enc) op(op fs.Op) {
	switch o := op.(type) {
	case fs.Create, fs.Mkdir, fs.Mknod, fs.Symlink, fs.Tmpfile:
		e.opMake(o)
	case fs.Link, fs.Unlink, fs.Rmdir, fs.Rename:
		e.opName(o)
	case fs.SetAttr:
		e.u8(opSetAttr)
		e.setAttr(&o)
	case fs.SetXattr:
		e.u8(opSetXattr)
		e.place(o.Ino, o.Name)
		e.bytes(o.Value)
		e.uint(uint64(o.Flags))
	case fs.RemoveXattr:
		e.u8(opRemoveXattr)
		e.place(o.Ino, o.Name)
	case fs.Publish:
		e.u8(opPublish)
		e.publish(&o)
	case fs.Append:
		e.u8(opAppend)
		e.uint(uint64(o.Ino))
		e.pieces(o.Pieces)
		e.time(o.Mtime)
		e.uint(uint64(o.Mask))
		e.optSetAttr(o.Attr)
	default:
		e.opCluster(op)
	}
}

func (e *enc) opMake(op fs.Op) {
	switch o := op.(type) {
	case fs.Create:
		e.u8(opCreate)
		e.place(o.Parent, o.Name)
		e.uint(uint64(o.Mode))
		e.bool(o.Excl)
		e.cred(o.Cred)
	case fs.Mkdir:
		e.u8(opMkdir)
		e.place(o.Parent, o.Name)
		e.uint(uint64(o.Mode))
		e.cred(o.Cred)
	case fs.Mknod:
		e.u8(opMknod)
		e.place(o.Parent, o.Name)
		e.uint(uint64(o.Mode))
		e.uint(uint64(o.Rdev))
		e.cred(o.Cred)
	case fs.Symlink:
		e.u8(opSymlink)
		e.place(o.Parent, o.Name)
		e.str(o.Target)
		e.cred(o.Cred)
	case fs.Tmpfile:
		e.u8(opTmpfile)
		e.uint(uint64(o.Parent))
		e.uint(uint64(o.Mode))
		e.cred(o.Cred)
	}
}

func (e *enc) opName(op fs.Op) {
	switch o := op.(type) {
	case fs.Link:
		e.u8(opLink)
		e.uint(uint64(o.Ino))
		e.place(o.Parent, o.Name)
	case fs.Unlink:
		e.u8(opUnlink)
		e.place(o.Parent, o.Name)
		e.cred(o.Cred)
	case fs.Rmdir:
		e.u8(opRmdir)
		e.place(o.Parent, o.Name)
		e.cred(o.Cred)
	case fs.Rename:
		e.u8(opRename)
		e.place(o.Parent, o.Name)
		e.place(o.NewParent, o.NewName)
		e.uint(uint64(o.Flags))
		e.cred(o.Cred)
	}
}

func (e *enc) opCluster(op fs.Op) {
	switch o := op.(type) {
	case fs.OpenSession:
		e.u8(opOpenSession)
		e.uint(uint64(o.Session))
		e.str(string(o.Node))
	case fs.ExpireSession:
		e.u8(opExpireSession)
		e.uint(uint64(len(o.Sessions)))
		for _, s := range o.Sessions {
			e.uint(uint64(s))
		}
	case fs.Reclaim:
		e.u8(opReclaim)
		e.uint(uint64(len(o.Inos)))
		for _, i := range o.Inos {
			e.uint(uint64(i))
		}
	case fs.MarkDurable:
		e.u8(opMarkDurable)
		e.uint(uint64(len(o.Chunks)))
		for _, c := range o.Chunks {
			e.chunk(c)
		}
	case fs.SetLimits:
		e.u8(opSetLimits)
		e.uint(o.BytesMax)
		e.uint(o.InodeMax)
	case fs.InitCluster:
		e.u8(opInitCluster)
		e.str(o.UUID)
	case fs.Barrier:
		e.u8(opBarrier)
	case fs.SetSetting:
		e.u8(opSetSetting)
		e.str(o.Key)
		e.optBytes(o.Old)
		e.optBytes(o.Value)
	case fs.RecordShipped:
		e.u8(opRecordShipped)
		e.uint(uint64(o.Index))
		e.uint(uint64(o.Oldest))
	case fs.AdoptCluster:
		e.u8(opAdoptCluster)
		e.str(o.UUID)
	default:
		e.opGarbage(op)
	}
}

func (e *enc) opGarbage(op fs.Op) {
	switch o := op.(type) {
	case fs.StorePack:
		e.u8(opStorePack)
		e.pack(o.Pack)
		e.uint(uint64(o.Size))
		e.uint(uint64(len(o.Chunks)))
		for _, c := range o.Chunks {
			e.placed(c)
		}
	case fs.Condemn:
		e.u8(opCondemn)
		e.chunksAndPacks(o.Chunks, o.Packs)
	case fs.Forget:
		e.u8(opForget)
		e.chunksAndPacks(o.Chunks, o.Packs)
	case fs.MarkLost:
		e.u8(opMarkLost)
		e.uint(uint64(len(o.Chunks)))
		for _, c := range o.Chunks {
			e.chunk(c)
		}
	default:
		panic(fmt.Sprintf("meta: encode command: %T is not an operation", op))
	}
}

// op reads the fields of the operation with this number; nil if there is none.
func (d *dec) op(code byte) fs.Op {
	switch code {
	case opCreate:
		return fs.Create{Parent: d.ino(), Name: d.str(), Mode: d.u32(), Excl: d.bool(), Cred: d.cred()}
	case opMkdir:
		return fs.Mkdir{Parent: d.ino(), Name: d.str(), Mode: d.u32(), Cred: d.cred()}
	case opMknod:
		return fs.Mknod{Parent: d.ino(), Name: d.str(), Mode: d.u32(), Rdev: d.u32(), Cred: d.cred()}
	case opSymlink:
		return fs.Symlink{Parent: d.ino(), Name: d.str(), Target: d.str(), Cred: d.cred()}
	case opTmpfile:
		return fs.Tmpfile{Parent: d.ino(), Mode: d.u32(), Cred: d.cred()}
	case opLink:
		return fs.Link{Ino: d.ino(), Parent: d.ino(), Name: d.str()}
	case opUnlink:
		return fs.Unlink{Parent: d.ino(), Name: d.str(), Cred: d.cred()}
	case opRmdir:
		return fs.Rmdir{Parent: d.ino(), Name: d.str(), Cred: d.cred()}
	case opRename:
		return fs.Rename{Parent: d.ino(), Name: d.str(), NewParent: d.ino(), NewName: d.str(),
			Flags: fs.RenameFlags(d.u32()), Cred: d.cred()}
	case opSetAttr:
		return d.setAttr()
	case opSetXattr:
		return fs.SetXattr{Ino: d.ino(), Name: d.str(), Value: d.bytes(), Flags: fs.XattrFlags(d.u32())}
	case opRemoveXattr:
		return fs.RemoveXattr{Ino: d.ino(), Name: d.str()}
	case opPublish:
		return d.publish()
	case opAppend:
		return fs.Append{Ino: d.ino(), Pieces: d.pieces(), Mtime: d.time(), Mask: fs.AttrMask(d.u32()), Attr: d.optSetAttr()}
	}
	return d.opCluster(code)
}

func (d *dec) opCluster(code byte) fs.Op {
	switch code {
	case opOpenSession:
		return fs.OpenSession{Session: fs.SessionID(d.uint()), Node: fs.NodeID(d.str())}
	case opExpireSession:
		return fs.ExpireSession{Sessions: list(d, 1, func() fs.SessionID { return fs.SessionID(d.uint()) })}
	case opReclaim:
		return fs.Reclaim{Inos: list(d, 1, d.ino)}
	case opMarkDurable:
		return fs.MarkDurable{Chunks: list(d, chunkMin, d.chunk)}
	case opSetLimits:
		return fs.SetLimits{BytesMax: d.uint(), InodeMax: d.uint()}
	case opInitCluster:
		return fs.InitCluster{UUID: d.str()}
	case opBarrier:
		return fs.Barrier{}
	case opRecordShipped:
		return fs.RecordShipped{Index: fs.Index(d.uint()), Oldest: fs.Index(d.uint())}
	case opAdoptCluster:
		return fs.AdoptCluster{UUID: d.str()}
	case opStorePack:
		return fs.StorePack{Pack: d.pack(), Size: d.u32(), Chunks: list(d, placedMin, d.placed)}
	case opCondemn:
		return fs.Condemn{Chunks: list(d, chunkMin, d.chunk), Packs: list(d, len(fs.PackID{}), d.pack)}
	case opForget:
		return fs.Forget{Chunks: list(d, chunkMin, d.chunk), Packs: list(d, len(fs.PackID{}), d.pack)}
	case opMarkLost:
		return fs.MarkLost{Chunks: list(d, chunkMin, d.chunk)}
	case opSetSetting:
		return fs.SetSetting{Key: d.str(), Old: d.optBytes(), Value: d.optBytes()}
	}
	return nil
}

// The least bytes that elements of lists take.
const (
	chunkMin  = len(fs.Hash{}) + 1
	placedMin = chunkMin + 3
)

func (e *enc) chunksAndPacks(chunks []fs.ChunkID, packs []fs.PackID) {
	e.uint(uint64(len(chunks)))
	for _, c := range chunks {
		e.chunk(c)
	}
	e.uint(uint64(len(packs)))
	for _, p := range packs {
		e.pack(p)
	}
}

func (e *enc) placed(c fs.Placed) {
	e.chunk(c.Chunk)
	e.bool(c.From != fs.PackID{})
	if c.From != (fs.PackID{}) {
		e.pack(c.From)
	}
	e.uint(uint64(c.Off))
	e.uint(uint64(c.Len))
}

func (d *dec) placed() fs.Placed {
	c := fs.Placed{Chunk: d.chunk()}
	if d.bool() {
		if c.From = d.pack(); c.From == (fs.PackID{}) {
			d.fail(errZeroPack)
		}
	}
	c.Off, c.Len = d.u32(), d.u32()
	return c
}

// optBytes tells nothing from no bytes.
func (e *enc) optBytes(b []byte) {
	e.bool(b != nil)
	if b != nil {
		e.bytes(b)
	}
}

func (d *dec) optBytes() []byte {
	if !d.bool() {
		return nil
	}
	return append([]byte{}, d.bytes()...)
}

// list reads a counted list of elements of at least size bytes.
func list[T any](d *dec, size int, read func() T) []T {
	n := d.count(size)
	if n == 0 {
		return nil
	}
	v := make([]T, n)
	for i := range v {
		v[i] = read()
	}
	return v
}

func (e *enc) setAttr(o *fs.SetAttr) {
	e.uint(uint64(o.Ino))
	e.uint(uint64(o.Mask))
	e.uint(uint64(o.Mode))
	e.uint(uint64(o.Uid))
	e.uint(uint64(o.Gid))
	e.uint(o.Size)
	e.time(o.Atime)
	e.time(o.Mtime)
	e.cred(o.Cred)
}

func (d *dec) setAttr() fs.SetAttr {
	return fs.SetAttr{Ino: d.ino(), Mask: fs.AttrMask(d.u32()), Mode: d.u32(), Uid: d.u32(), Gid: d.u32(),
		Size: d.uint(), Atime: d.time(), Mtime: d.time(), Cred: d.cred()}
}

func (e *enc) optSetAttr(o *fs.SetAttr) {
	e.bool(o != nil)
	if o != nil {
		e.setAttr(o)
	}
}

func (d *dec) optSetAttr() *fs.SetAttr {
	if !d.bool() {
		return nil
	}
	o := d.setAttr()
	return &o
}

func (e *enc) publish(o *fs.Publish) {
	e.uint(uint64(o.Ino))
	e.bool(o.Cut != nil)
	if o.Cut != nil {
		e.uint(*o.Cut)
	}
	e.pieces(o.Pieces)
	e.uint(o.Grow)
	e.time(o.Mtime)
	e.uint(uint64(o.Mask))
	e.optSetAttr(o.Attr)
}

func (d *dec) publish() fs.Publish {
	o := fs.Publish{Ino: d.ino()}
	if d.bool() {
		cut := d.uint()
		o.Cut = &cut
	}
	o.Pieces = d.pieces()
	o.Grow = d.uint()
	o.Mtime = d.time()
	o.Mask = fs.AttrMask(d.u32())
	o.Attr = d.optSetAttr()
	return o
}

func (e *enc) pieces(p []fs.Piece) {
	e.uint(uint64(len(p)))
	for i := range p {
		x := &p[i]
		e.uint(x.Off)
		e.uint(x.Len)
		e.bool(x.Data != nil)
		if x.Data != nil {
			e.bytes(x.Data)
			continue
		}
		e.hash(x.Hash)
		e.uint(uint64(x.ChunkOff))
		e.uint(uint64(x.ChunkLen))
		e.nodes(x.Holders)
	}
}

func (d *dec) pieces() []fs.Piece {
	return list(d, 4, func() fs.Piece {
		x := fs.Piece{Off: d.uint(), Len: d.uint()}
		if d.bool() {
			if x.Data = d.bytes(); x.Data == nil {
				x.Data = []byte{}
			}
			return x
		}
		x.Hash, x.ChunkOff, x.ChunkLen, x.Holders = d.hash(), d.u32(), d.u32(), d.nodes()
		return x
	})
}
