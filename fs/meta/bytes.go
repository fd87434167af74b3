package meta

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/wpfs/wpfs/fs"
)

// VersionError says that bytes were written by a newer release than this one:
// the node must stop applying and be upgraded (rule R42), never skip.
type VersionError struct {
	What string // "store format", "log entry", "command", "operation", ...
	Got  uint64
	Max  uint64 // the newest this release knows
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has version %d, this release knows up to %d: install the newer release on this node", e.What, e.Got, e.Max)
}

var (
	errShort    = errors.New("bytes end too early")
	errTrailing = errors.New("bytes left over")
	errLongInt  = errors.New("number not in its shortest form")
	errIntRange = errors.New("number out of range")
	errBadBool  = errors.New("flag is neither 0 nor 1")
	errZeroPack = errors.New("the pack that is none is named")
)

// corrupt makes a typed error of bytes that cannot be what they should be.
func corrupt(op string, cause error) error {
	return &fs.Error{Op: op, Kind: fs.ErrCorrupt, Err: cause}
}

// enc appends the encodings that records, commands and results are made of:
// docs/format/metadata.md has their pictures.
type enc struct{ b []byte }

func (e *enc) u8(v byte)     { e.b = append(e.b, v) }
func (e *enc) uint(v uint64) { e.b = binary.AppendUvarint(e.b, v) }
func (e *enc) int(v int64)   { e.b = binary.AppendVarint(e.b, v) }

func (e *enc) bool(v bool) {
	if v {
		e.u8(1)
	} else {
		e.u8(0)
	}
}

func (e *enc) bytes(v []byte) {
	e.uint(uint64(len(v)))
	e.b = append(e.b, v...)
}

func (e *enc) str(v string) {
	e.uint(uint64(len(v)))
	e.b = append(e.b, v...)
}

func (e *enc) time(t fs.Time) {
	e.int(t.Sec)
	e.uint(uint64(t.Nsec))
}

func (e *enc) hash(h fs.Hash) { e.b = append(e.b, h[:]...) }

func (e *enc) pack(p fs.PackID) { e.b = append(e.b, p[:]...) }

func (e *enc) chunk(c fs.ChunkID) {
	e.hash(c.Hash)
	e.uint(uint64(c.Gen))
}

func (e *enc) nodes(n []fs.NodeID) {
	e.uint(uint64(len(n)))
	for _, x := range n {
		e.str(string(x))
	}
}

// dec reads what enc wrote. The first error sticks and everything read after it
// is zero. Each value has one encoding, so decode and encode are inverse.
type dec struct {
	b   []byte
	err error
}

func (d *dec) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

// end reports the first error; bytes left over are one.
func (d *dec) end() error {
	if len(d.b) > 0 {
		d.fail(errTrailing)
	}
	return d.err
}

func (d *dec) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail(errShort)
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *dec) u8() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *dec) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	return shortest(d, v, n)
}

func (d *dec) int() int64 {
	v, n := binary.Varint(d.b)
	return shortest(d, v, n)
}

// shortest consumes a number of n bytes. A last byte of 0 would mean that the
// same number had a shorter form.
func shortest[T int64 | uint64](d *dec, v T, n int) T {
	switch {
	case n == 0:
		d.fail(errShort)
		return 0
	case n < 0:
		d.fail(errIntRange)
		return 0
	case n > 1 && d.b[n-1] == 0:
		d.fail(errLongInt)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *dec) u32() uint32 {
	v := d.uint()
	if v > 1<<32-1 {
		d.fail(errIntRange)
		return 0
	}
	return uint32(v)
}

func (d *dec) bool() bool {
	v := d.u8()
	if v > 1 {
		d.fail(errBadBool)
	}
	return v == 1
}

// bytes returns a part of the input, not a copy; nil if it is empty.
func (d *dec) bytes() []byte {
	n := d.uint()
	if n == 0 {
		return nil
	}
	return d.take(n)
}

func (d *dec) str() string { return string(d.bytes()) }

func (d *dec) time() fs.Time { return fs.Time{Sec: d.int(), Nsec: d.u32()} }

func (d *dec) hash() (h fs.Hash) {
	copy(h[:], d.take(uint64(len(h))))
	return h
}

func (d *dec) pack() (p fs.PackID) {
	copy(p[:], d.take(uint64(len(p))))
	return p
}

func (d *dec) chunk() fs.ChunkID { return fs.ChunkID{Hash: d.hash(), Gen: fs.Index(d.uint())} }

// count reads the length of a list whose elements take at least size bytes
// each, so that a lie about it cannot make us allocate more than the input.
func (d *dec) count(size int) int {
	n := d.uint()
	if n > uint64(len(d.b)/size) {
		d.fail(errShort)
		return 0
	}
	return int(n)
}

func (d *dec) nodes() []fs.NodeID {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	v := make([]fs.NodeID, n)
	for i := range v {
		v[i] = fs.NodeID(d.str())
	}
	return v
}
