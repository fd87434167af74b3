package pack

import (
	"github.com/klauspost/compress/zstd"

	"github.com/wpfs/wpfs/fs"
)

// paysShare: compression pays when it saves at least this part of a chunk, one
// sixteenth. For less no reader should have to expand it.
const paysShare = 16

// encoderWindow bounds the memory of an encoder. Most chunks are far smaller.
const encoderWindow = 1 << 20

// The coders are made here and not when they are first needed, so that they
// belong to no caller. Both serve any number of goroutines.
//
// The level: of Debian's WordPress 6.1 (2,535 chunks, 51 MB; two shared cores),
// fastest made 1/3.58 at 100 MB/s, default 1/3.82 at 127 MB/s, better 1/4.01 at
// 47 MB/s; random bytes passed default at 399 MB/s.
var (
	encoder = newEncoder()
	decoder = newDecoder()
)

func newEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(coders),
		zstd.WithWindowSize(encoderWindow), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	if err != nil {
		panic("pack: " + err.Error()) // the options are constants
	}
	e.EncodeAll(nil, nil) // it makes its inside with the first call
	return e
}

// coders is how many chunks are compressed, and how many expanded, at a time.
const coders = 4

func newDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(coders), zstd.WithDecoderMaxMemory(fs.ChunkMax),
		zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic("pack: " + err.Error()) // the options are constants
	}
	return d
}
