package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// Entry is a command entry of the log.
type Entry struct {
	Index fs.Index
	Term  uint64
	Data  []byte
	// Idle: not worth a segment of its own. It travels with the next that is.
	Idle bool
}

// Head is what a segment says of itself.
type Head struct {
	Cluster string   `json:"cluster"` // UUID
	Epoch   uint64   `json:"epoch"`
	First   fs.Index `json:"first"` // covers the log from here
	Last    fs.Index `json:"last"`  // to here; entries that are no commands are left out
	Prev    string   `json:"prev"`  // hash of the segment before; of the first one after a gap: see linkHash
	// Base is the First of the run of segments that are linked without a gap.
	Base    fs.Index  `json:"base"`
	Entries int       `json:"entries"`
	Raw     int       `json:"raw"`    // bytes of the body before compression
	Stored  int       `json:"stored"` // bytes of the body
	Sum     string    `json:"sha256"` // of the body as stored
	Node    string    `json:"node"`
	Time    time.Time `json:"time"`
}

// Segment is a piece of the log.
type Segment struct {
	Head
	Log []Entry
}

// Objects begin with a magic, a version, the length of a JSON head and a CRC-32C
// of all that and the head; the body follows.
const (
	segmentMagic  = "WPFL"
	partMagic     = "WPFS"
	objectVersion = 1
	frameBytes    = 16
	headMax       = 64 << 10
)

// Bounds of a body before compression, for whoever decodes. What is written stays
// far below: segmentBytes, partBytes.
const bodyMax = 32 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged means that an object is not what it was when it was put: torn,
// changed, or another one under its key.
var ErrDamaged = errors.New("the object is damaged")

// ErrNewer means that a newer version of wpfs wrote the object.
var ErrNewer = errors.New("the object was written by a newer version of wpfs")

// get reads an object whole. One that the store below finds to be another than
// what was put is ErrDamaged, as one that is found to be so here.
func get(ctx context.Context, st object.Store, key string) ([]byte, error) {
	b, err := st.Get(ctx, key, 0, -1)
	if errors.Is(err, object.Damaged) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return b, err
}

func damaged(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, a...))
}

// frame puts a head before a body.
func frame(magic string, head any, body []byte) ([]byte, error) {
	h, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	b := make([]byte, frameBytes, frameBytes+len(h)+len(body))
	copy(b, magic)
	b[4] = objectVersion
	binary.LittleEndian.PutUint32(b[8:], uint32(len(h)))
	crc := crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, h)
	binary.LittleEndian.PutUint32(b[12:], crc)
	return append(append(b, h...), body...), nil
}

// unframe undoes frame; body shares b's memory.
func unframe(magic string, b []byte, head any) (body []byte, err error) {
	if len(b) < frameBytes || string(b[:4]) != magic {
		return nil, damaged("it does not start with %s", magic)
	}
	n := binary.LittleEndian.Uint32(b[8:])
	if n > headMax || uint64(n) > uint64(len(b)-frameBytes) {
		return nil, damaged("a head of %d bytes in %d", n, len(b))
	}
	h := b[frameBytes : frameBytes+n]
	if crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, h) != binary.LittleEndian.Uint32(b[12:]) {
		return nil, damaged("the checksum of its head is wrong")
	}
	if b[4] != objectVersion {
		return nil, fmt.Errorf("%w (format %d, this one knows %d): install that version", ErrNewer, b[4], objectVersion)
	}
	if err := json.Unmarshal(h, head); err != nil {
		return nil, damaged("its head: %v", err)
	}
	return b[frameBytes+n:], nil
}

// hashOf names an object's bytes.
func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// The codec is used whole (EncodeAll, DecodeAll), which may be done from any
// goroutine. One goroutine and a small window keep its memory low.
var (
	encoder = must(zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20)))
	decoder = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(bodyMax)))
)

func must[T any](x T, err error) T {
	if err != nil {
		panic(err) // the options are constants
	}
	return x
}

// unpack checks and decompresses a body.
func unpack(body []byte, stored, raw int, sum string) ([]byte, error) {
	if len(body) != stored || hashOf(body) != sum {
		return nil, damaged("%d bytes of body that are not the %d it says", len(body), stored)
	}
	if raw < 0 || raw > bodyMax {
		return nil, damaged("a body of %d bytes", raw)
	}
	b, err := decoder.DecodeAll(body, nil)
	if err != nil || len(b) != raw {
		return nil, damaged("its body of %d bytes unpacks to %d: %v", raw, len(b), err)
	}
	return b, nil
}

// encode fills the computed fields of s.Head and returns the object.
func (s *Segment) encode() ([]byte, error) {
	var raw []byte
	for _, e := range s.Log {
		raw = binary.AppendUvarint(raw, uint64(e.Index))
		raw = binary.AppendUvarint(raw, e.Term)
		raw = binary.AppendUvarint(raw, uint64(len(e.Data)))
		raw = append(raw, e.Data...)
	}
	body := encoder.EncodeAll(raw, nil)
	s.Entries, s.Raw, s.Stored, s.Sum = len(s.Log), len(raw), len(body), hashOf(body)
	return frame(segmentMagic, &s.Head, body)
}

// decodeSegment is the inverse of encode. Nothing in the result is unchecked: its
// entries ascend and lie between First and Last.
func decodeSegment(b []byte) (*Segment, error) {
	s := &Segment{}
	body, err := unframe(segmentMagic, b, &s.Head)
	if err != nil {
		return nil, err
	}
	raw, err := unpack(body, s.Stored, s.Raw, s.Sum)
	if err != nil {
		return nil, err
	}
	if s.First == 0 || s.Last < s.First || s.Last == math.MaxUint64 || s.Base > s.First {
		return nil, damaged("entries %d to %d from %d", s.First, s.Last, s.Base)
	}
	for at := s.First; len(raw) > 0; {
		var e Entry
		if e, raw, err = cutEntry(raw); err != nil {
			return nil, err
		}
		if e.Index < at || e.Index > s.Last {
			return nil, damaged("entry %d in a segment from %d to %d", e.Index, at, s.Last)
		}
		s.Log, at = append(s.Log, e), e.Index+1
	}
	if len(s.Log) != s.Entries {
		return nil, damaged("%d entries instead of %d", len(s.Log), s.Entries)
	}
	return s, nil
}

func cutEntry(raw []byte) (e Entry, rest []byte, err error) {
	var nums [3]uint64
	for i := range nums {
		v, n := binary.Uvarint(raw)
		if n <= 0 {
			return e, nil, damaged("an entry breaks off")
		}
		nums[i], raw = v, raw[n:]
	}
	if nums[2] > uint64(len(raw)) {
		return e, nil, damaged("an entry of %d bytes breaks off", nums[2])
	}
	e = Entry{Index: fs.Index(nums[0]), Term: nums[1], Data: raw[:nums[2]:nums[2]]}
	return e, raw[nums[2]:], nil
}

// agrees tells whether the segment holds the entries of mine, as far as both
// cover the log: then it is the same piece of the same log.
func (s *Segment) agrees(mine *Segment) bool {
	end := min(s.Last, mine.Last)
	upTo := func(log []Entry) []Entry {
		for i, e := range log {
			if e.Index > end {
				return log[:i]
			}
		}
		return log
	}
	a, b := upTo(s.Log), upTo(mine.Log)
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Index != b[i].Index || a[i].Term != b[i].Term || !bytes.Equal(a[i].Data, b[i].Data) {
			return false
		}
	}
	return true
}
