package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/streamingaead/subtle"

	"github.com/wpfs/wpfs/fs/object"
)

// A sealed object: magic, the key's ID, and then a stream of Tink's AES-GCM-HKDF
// Streaming AEAD (https://developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming)
// with 32-byte derived keys, SHA-256, segments of segmentSize, and the object's key
// as associated data. That is: one byte with the length of its header, a random salt,
// a nonce prefix; then segments, each with its tag, the first shorter by the header.
const (
	magic       = "wpfseal1"
	prefixSize  = len(magic) + len(ID{})
	saltSize    = keySize
	nonceSize   = 12
	noncePrefix = 7
	streamHead  = 1 + saltSize + noncePrefix
	headSize    = prefixSize + streamHead
	segmentSize = 64 << 10 // with its tag
	tagSize     = 16
	segmentData = segmentSize - tagSize
	firstData   = segmentData - streamHead
)

// PlainMax is the largest object that can be put through a Store with keys, in bytes.
const PlainMax = object.SizeMax - int64(headSize) - (object.SizeMax/segmentSize+1)*tagSize

var errSeal = errors.New("it was changed, cut, or is not the object of this name: its seal does not fit")

// sealedSize is how many bytes an object of plain bytes has when sealed.
func sealedSize(plain int64) int64 {
	segments := int64(1)
	if plain > firstData {
		segments += (plain - firstData + segmentData - 1) / segmentData
	}
	return int64(headSize) + plain + segments*tagSize
}

// plainSize is the inverse. Sizes that nothing sealed has are errors.
func plainSize(sealed int64) (int64, error) {
	stream := sealed - int64(prefixSize)
	segments := (stream + segmentSize - 1) / segmentSize
	plain := stream - streamHead - segments*tagSize
	if stream < streamHead+tagSize || sealedSize(plain) != sealed {
		return 0, errSeal
	}
	return plain, nil
}

// segmentOf is the segment with plain byte off, and where that is in it.
func segmentOf(off int64) (i, at int64) {
	if off < firstData {
		return 0, off
	}
	return 1 + (off-firstData)/segmentData, (off - firstData) % segmentData
}

// segmentStart is where segment i begins in the object.
func segmentStart(i int64) int64 {
	if i == 0 {
		return int64(headSize)
	}
	return int64(prefixSize) + i*segmentSize
}

// seal makes the object with content b under name.
func seal(k Key, name string, b []byte) ([]byte, error) {
	aead, err := subtle.NewAESGCMHKDF(k[:], "SHA256", keySize, segmentSize, 0)
	if err != nil {
		return nil, err
	}
	id := k.ID()
	var out bytes.Buffer
	out.Grow(int(sealedSize(int64(len(b)))))
	out.WriteString(magic)
	out.Write(id[:])
	w, err := aead.NewEncryptingWriter(&out, []byte(name))
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// head is what the segments of one object are opened with.
type head struct {
	aead  cipher.AEAD
	nonce [noncePrefix]byte
}

// isSealed tells whether b, the first bytes of an object, are those of a sealed one.
func isSealed(b []byte) bool { return len(b) >= len(magic) && string(b[:len(magic)]) == magic }

// unknownKey is the error of an object whose key is not there.
type unknownKey struct{ id ID }

func (e unknownKey) Error() string {
	return fmt.Sprintf("it is encrypted with key %s", e.id)
}

// readHead reads the first headSize bytes of the object name.
func readHead(ks Keys, name string, b []byte) (*head, error) {
	if len(b) < headSize || b[prefixSize] != streamHead {
		return nil, errSeal
	}
	id := ID(b[len(magic):])
	k, ok := ks.find(id)
	if !ok {
		return nil, unknownKey{id}
	}
	salt := b[prefixSize+1:][:saltSize]
	derived, err := hkdf.Key(sha256.New, k[:], salt, name, keySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	h := &head{nonce: [noncePrefix]byte(b[prefixSize+1+saltSize:])}
	h.aead, err = cipher.NewGCM(block)
	return h, err
}

// open opens segment i, appending to dst. last says that nothing comes after it.
func (h *head) open(dst, segment []byte, i int64, last bool) ([]byte, error) {
	var nonce [nonceSize]byte
	copy(nonce[:], h.nonce[:])
	binary.BigEndian.PutUint32(nonce[noncePrefix:], uint32(i))
	if last {
		nonce[nonceSize-1] = 1
	}
	out, err := h.aead.Open(dst, nonce[:], segment, nil)
	if err != nil {
		return nil, errSeal
	}
	return out, nil
}

// openFrom opens b, whole segments from i on; the last of them may be cut only where
// the object ends. If ends it does end there, otherwise it may.
func (h *head) openFrom(i int64, b []byte, ends bool) ([]byte, error) {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		n := min(int64(len(b)), segmentStart(i+1)-segmentStart(i))
		segment := b[:n]
		b = b[n:]
		opened, err := h.open(out, segment, i, len(b) == 0 && ends)
		if err != nil && len(b) == 0 && !ends {
			opened, err = h.open(out, segment, i, true)
		}
		if err != nil {
			return nil, err
		}
		out = opened
		i++
	}
	return out, nil
}
