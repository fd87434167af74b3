package pack

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"iter"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/object"
)

// tailRead is how much of a pack's end Load reads first: the index of most packs.
const tailRead = 32 << 10

// footer is what a pack's last bytes say.
type footer struct {
	id    fs.PackID
	count uint32
	index uint32 // where it begins; it ends at the footer
	crc   uint32 // of the index
}

// readFooter checks the last bytes of a pack of size bytes.
func readFooter(b []byte, size int64) (f footer, err error) {
	if len(b) != footerSize || string(b[:4]) != packMagic {
		return f, packError(f.id, "it does not end like a pack")
	}
	le := binary.LittleEndian
	if got, want := crc32.Checksum(b[:36], castagnoli), le.Uint32(b[36:]); got != want {
		return f, packError(f.id, "the footer's checksum is %08x, it says %08x", got, want)
	}
	f = footer{fs.PackID(b[8:24]), le.Uint32(b[24:]), le.Uint32(b[28:]), le.Uint32(b[32:])}
	if b[4] != packVersion {
		return f, &fs.Error{Op: "open pack", Name: f.id.String(), Kind: fs.ErrNotSupported,
			Err: fmt.Errorf("version %d: install the version of wpfs that wrote it", b[4])}
	}
	if f.count > ChunksMax || int64(f.index)+int64(f.count)*entrySize+footerSize != size {
		return f, packError(f.id, "an index of %d chunks at %d does not fit %d bytes", f.count, f.index, size)
	}
	return f, nil
}

// readIndex checks the index that f speaks of. Its records neither overlap nor
// reach into the index.
func (f footer) readIndex(b []byte) ([]Entry, error) {
	if len(b) != int(f.count)*entrySize {
		return nil, packError(f.id, "an index of %d bytes for %d chunks", len(b), f.count)
	}
	if got := crc32.Checksum(b, castagnoli); got != f.crc {
		return nil, packError(f.id, "the index's checksum is %08x, it says %08x", got, f.crc)
	}
	le := binary.LittleEndian
	list := make([]Entry, f.count)
	end := uint64(0)
	for i := range list {
		x := b[i*entrySize:]
		e := Entry{fs.ChunkID{Hash: fs.Hash(x[:32]), Gen: fs.Index(le.Uint64(x[32:]))}, le.Uint32(x[40:]), le.Uint32(x[44:])}
		if uint64(e.Off) < end || e.Len <= recordHeader || uint64(e.Off)+uint64(e.Len) > uint64(f.index) {
			return nil, packError(f.id, "chunk %d of the index has bytes %d+%d", i, e.Off, e.Len)
		}
		end = uint64(e.Off) + uint64(e.Len)
		list[i] = e
	}
	return list, nil
}

// Decode reads the index of a whole pack. ErrCorrupt, or ErrNotSupported if a
// newer version wrote it.
func Decode(b []byte) (fs.PackID, []Entry, error) {
	if len(b) < footerSize {
		return fs.PackID{}, nil, packError(fs.PackID{}, "%d bytes are no pack", len(b))
	}
	f, err := readFooter(b[len(b)-footerSize:], int64(len(b)))
	if err != nil {
		return f.id, nil, err
	}
	list, err := f.readIndex(b[f.index : len(b)-footerSize])
	return f.id, list, err
}

// Load reads the index of a pack of size bytes from the store, in one request
// for most packs and two for the rest. Errors are the store's and Decode's.
func Load(ctx context.Context, st object.Store, id fs.PackID, size int64) ([]Entry, error) {
	from := max(size-tailRead, 0)
	tail, err := st.Get(ctx, Key(id), from, size-from)
	if err != nil {
		return nil, err
	}
	if len(tail) < footerSize {
		return nil, packError(id, "%d bytes are no pack", size)
	}
	f, err := readFooter(tail[len(tail)-footerSize:], from+int64(len(tail)))
	if err != nil {
		return nil, err
	}
	if f.id != id {
		return nil, packError(id, "it says that it is %s", f.id)
	}
	if int64(f.index) < from {
		head, err := st.Get(ctx, Key(id), int64(f.index), from-int64(f.index))
		if err != nil {
			return nil, err
		}
		tail, from = append(head, tail...), int64(f.index)
	}
	return f.readIndex(tail[int64(f.index)-from : len(tail)-footerSize])
}

// Records yields the good records at the beginning of b, a part of a pack that
// begins with one, as far as they are whole. The chunks may share b's memory.
func Records(b []byte) iter.Seq2[fs.ChunkID, []byte] {
	return func(yield func(fs.ChunkID, []byte) bool) {
		for len(b) > 0 {
			h, err := readHead(b)
			if err != nil || uint64(len(b)) < recordHeader+uint64(h.stored) {
				return
			}
			end := recordHeader + int(h.stored)
			chunk, err := h.open(b[recordHeader:end])
			if err != nil || !yield(h.id, chunk) {
				return
			}
			b = b[end:]
		}
	}
}

func packError(id fs.PackID, format string, args ...any) error {
	return &fs.Error{Op: "open pack", Name: id.String(), Kind: fs.ErrCorrupt, Err: fmt.Errorf(format, args...)}
}
