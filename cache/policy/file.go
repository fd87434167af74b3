package policy

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/wpfs/wpfs/fs"
)

// An index file is a header line, the number of chunks in 8 bytes, a record for
// each (the hash, then size, list and uses in 4 bytes, big endian), the lists one
// after the other and each from its hot end, and the CRC-32C of all that. It is a
// cache of what the directory says better: whoever reads it compares.
const (
	fileHeader = "wpfs cache index 1\n"
	recordSize = len(fs.Hash{}) + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Save writes the index to w. It holds all other calls up meanwhile.
func (x *Index) Save(w io.Writer) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	sum := crc32.New(castagnoli)
	buf := bufio.NewWriterSize(w, 1<<20)
	out := io.MultiWriter(buf, sum)
	if _, err := io.WriteString(out, fileHeader); err != nil {
		return err
	}
	if err := binary.Write(out, binary.BigEndian, uint64(x.slab.count)); err != nil {
		return err
	}
	var rec [recordSize]byte
	for l := small; l < lists; l++ {
		for i := x.ends[l].hot; i != none; i = x.slab.at(i).next {
			e := x.slab.at(i)
			copy(rec[:], e.hash[:])
			binary.BigEndian.PutUint32(rec[len(e.hash):], e.bits&^(victimBit|doubtBit|uncitedBit|two<<freshShift))
			if _, err := out.Write(rec[:]); err != nil {
				return err
			}
		}
	}
	if err := binary.Write(buf, binary.BigEndian, sum.Sum32()); err != nil {
		return err
	}
	return buf.Flush()
}

// ErrBadFile: what was read is no index, or a damaged one.
var ErrBadFile = errors.New("it is no index of a cache, or it is damaged")

// Load reads what Save wrote and calls f for each chunk; it stops at the first
// error. Nothing is known to be right before it has returned nil.
func Load(r io.Reader, f func(Record)) error {
	sum := crc32.New(castagnoli)
	in := io.TeeReader(bufio.NewReaderSize(r, 1<<20), sum)
	head := make([]byte, len(fileHeader)+8)
	if _, err := io.ReadFull(in, head); err != nil || string(head[:len(fileHeader)]) != fileHeader {
		return ErrBadFile
	}
	var rec [recordSize]byte
	for n := binary.BigEndian.Uint64(head[len(fileHeader):]); n > 0; n-- {
		if _, err := io.ReadFull(in, rec[:]); err != nil {
			return fmt.Errorf("%w: %w", ErrBadFile, err)
		}
		r := Record{Hash: fs.Hash(rec[:len(fs.Hash{})]), bits: binary.BigEndian.Uint32(rec[len(fs.Hash{}):])}
		if l := list(r.bits >> listShift & two); l == free || r.Size() == 0 || r.Size() > fs.ChunkMax {
			return ErrBadFile
		}
		f(r)
	}
	want := sum.Sum32()
	var got uint32
	if err := binary.Read(in, binary.BigEndian, &got); err != nil || got != want {
		return ErrBadFile
	}
	return nil
}

// Record is one chunk of a file.
type Record struct {
	Hash fs.Hash
	bits uint32
}

// Size of the chunk in bytes.
func (r Record) Size() int64 { return int64(r.bits & sizeMask) }

// Restore adds the chunks of a file, given in its order, except those that are
// known already: these are newer. All count as fresh, for what the metadata knew
// of them may not have been read back yet, and are doubtful until Confirm.
func (x *Index) Restore(records []Record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range records {
		if x.slab.find(r.Hash) != nil {
			continue
		}
		i := x.slab.make(r.Hash)
		e := x.slab.at(i)
		e.bits, e.used = r.bits|doubtBit, x.now()
		e.setFresh(freshMax)
		x.pushCold(e.list(), i)
	}
}

// Confirm tells that the chunk is on the disk, and reports whether it is known.
func (x *Index) Confirm(h fs.Hash) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.slab.find(h)
	if e == nil {
		return false
	}
	e.bits &^= doubtBit
	return true
}

// Doubtful lists the restored chunks that nothing has confirmed.
func (x *Index) Doubtful() (list []fs.Hash) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, b := range x.slab.blocks {
		for i := range b {
			if b[i].list() != free && b[i].bits&doubtBit != 0 {
				list = append(list, b[i].hash)
			}
		}
	}
	return list
}
