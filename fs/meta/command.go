package meta

import (
	"fmt"

	"github.com/wpfs/wpfs/fs"
)

// commandVersion is the first byte of an encoded command, batchVersion of a log
// entry. Old versions stay decodable for ever; a new one is proposed only when
// every member knows it (rule R42).
const (
	commandVersion = 1
	batchVersion   = 1
	resultVersion  = 1
)

// The numbers of operations in encoded commands. They never change.
const (
	opCreate byte = iota + 1
	opMkdir
	opMknod
	opSymlink
	opTmpfile
	opLink
	opUnlink
	opRmdir
	opRename
	opSetAttr
	opSetXattr
	opRemoveXattr
	opPublish
	opAppend
	opOpenSession
	opExpireSession
	opReclaim
	opMarkDurable
	opSetLimits
	opInitCluster
	opBarrier
	opStorePack
	opCondemn
	opForget
	opRecordShipped
	opAdoptCluster
	opSetSetting
	opMarkLost
	opLast = opMarkLost
)

// EncodeCommand returns c's bytes. It panics if c.Op is nil or of a type that
// is not in package fs, which is a programming error.
func EncodeCommand(c fs.Command) []byte {
	e := &enc{b: make([]byte, 0, 128)}
	e.u8(commandVersion)
	e.uint(uint64(c.Session))
	e.uint(c.Seq)
	e.uint(c.LowWater)
	e.time(c.Now)
	e.op(c.Op)
	return e.b
}

// DecodeCommand is the inverse of EncodeCommand. Content in the command is part
// of b, not copied, so b must not change afterwards. A *VersionError means that
// a newer release encoded b; an error of kind fs.ErrCorrupt that nobody did.
func DecodeCommand(b []byte) (fs.Command, error) {
	d := &dec{b: b}
	if v := d.u8(); d.err == nil && v != commandVersion {
		return fs.Command{}, &VersionError{"command", uint64(v), commandVersion}
	}
	c := fs.Command{
		Session: fs.SessionID(d.uint()), Seq: d.uint(), LowWater: d.uint(), Now: d.time(),
	}
	code := d.u8()
	if c.Op = d.op(code); d.err == nil && c.Op == nil {
		return fs.Command{}, &VersionError{"operation", uint64(code), uint64(opLast)}
	}
	if err := d.end(); err != nil {
		return fs.Command{}, corrupt("decode command", err)
	}
	return c, nil
}

// EncodeBatch packs encoded commands into one log entry without looking inside.
func EncodeBatch(commands [][]byte) []byte {
	n := 16
	for _, c := range commands {
		n += len(c) + 4
	}
	e := &enc{b: make([]byte, 0, n)}
	e.u8(batchVersion)
	e.uint(uint64(len(commands)))
	for _, c := range commands {
		e.bytes(c)
	}
	return e.b
}

// DecodeBatch is the inverse of EncodeBatch and DecodeCommand together; errors
// as of DecodeCommand. One bad command makes the whole entry bad.
func DecodeBatch(b []byte) ([]fs.Command, error) {
	d := &dec{b: b}
	if v := d.u8(); d.err == nil && v != batchVersion {
		return nil, &VersionError{"log entry", uint64(v), batchVersion}
	}
	list := make([]fs.Command, 0, d.count(1))
	for i := range cap(list) {
		c := d.bytes()
		if d.err != nil {
			break
		}
		x, err := DecodeCommand(c)
		if err != nil {
			return nil, fmt.Errorf("command %d of the log entry: %w", i, err)
		}
		list = append(list, x)
	}
	if err := d.end(); err != nil {
		return nil, corrupt("decode log entry", err)
	}
	return list, nil
}

// EncodeResult returns r's bytes.
func EncodeResult(r fs.Result) []byte {
	e := &enc{b: make([]byte, 0, 96)}
	e.u8(resultVersion)
	e.uint(uint64(r.Index))
	e.u8(byte(r.Kind))
	e.bool(r.Existed)
	e.uint(r.Offset)
	has := r.Attr != (fs.Attr{}) // refusals have none
	e.bool(has)
	if has {
		e.uint(uint64(r.Attr.Ino))
		e.attr(&r.Attr)
	}
	return e.b
}

// DecodeResult is the inverse of EncodeResult; errors as of DecodeCommand.
func DecodeResult(b []byte) (fs.Result, error) {
	d := &dec{b: b}
	if v := d.u8(); d.err == nil && v != resultVersion {
		return fs.Result{}, &VersionError{"result", uint64(v), resultVersion}
	}
	r := fs.Result{Index: fs.Index(d.uint()), Kind: fs.Kind(d.u8()), Existed: d.bool(), Offset: d.uint()}
	if d.bool() {
		r.Attr = d.attr(d.ino())
	}
	if err := d.end(); err != nil {
		return fs.Result{}, corrupt("decode result", err)
	}
	return r, nil
}
