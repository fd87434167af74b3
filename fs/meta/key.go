package meta

import (
	"encoding/binary"

	"github.com/wpfs/wpfs/fs"
)

// The first byte of a key names the kind of its record. All numbers in keys are
// big endian, so that byte order is number order.
const (
	kindInline    = 'b' // b hash gen: content of a chunk
	kindChunk     = 'c' // c hash gen: chunk record
	kindEntry     = 'd' // d parent name: directory entry
	kindExtent    = 'e' // e ino off: extent
	kindInode     = 'i' // i ino: inode record
	kindSetting   = 'k' // k key: setting of the cluster
	kindMeta      = 'm' // m name: one of a kind
	kindOrphan    = 'o' // o ino: orphan record
	kindPack      = 'p' // p pack: pack record
	kindListing   = 'r' // r parent cookie: directory entry by cookie
	kindSession   = 's' // s session: session record
	kindUndurable = 'u' // u gen hash: chunk that is not durable
	kindResult    = 'w' // w session seq: result of a command
	kindXattr     = 'x' // x ino name: extended attribute
)

// The keys of which there is one.
var (
	keyFormat  = []byte("mformat")
	keyApplied = []byte("mapplied")
	keySystem  = []byte("msystem")
	keyUUID    = []byte("muuid")
	keyShipped = []byte("mshipped")
)

func key8(kind byte, n uint64) []byte {
	k := make([]byte, 1, 9)
	k[0] = kind
	return binary.BigEndian.AppendUint64(k, n)
}

func key16(kind byte, a, b uint64) []byte {
	k := make([]byte, 1, 17)
	k[0] = kind
	k = binary.BigEndian.AppendUint64(k, a)
	return binary.BigEndian.AppendUint64(k, b)
}

func keyName(kind byte, ino fs.Ino, name string) []byte {
	k := make([]byte, 1, 9+len(name))
	k[0] = kind
	k = binary.BigEndian.AppendUint64(k, uint64(ino))
	return append(k, name...)
}

func keyInode(ino fs.Ino) []byte              { return key8(kindInode, uint64(ino)) }
func keyEntry(dir fs.Ino, name string) []byte { return keyName(kindEntry, dir, name) }
func keyListing(dir fs.Ino, cookie uint64) []byte {
	return key16(kindListing, uint64(dir), cookie)
}
func keyExtent(ino fs.Ino, off uint64) []byte { return key16(kindExtent, uint64(ino), off) }
func keyXattr(ino fs.Ino, name string) []byte { return keyName(kindXattr, ino, name) }
func keySetting(key string) []byte            { return append([]byte{kindSetting}, key...) }
func keyOrphan(ino fs.Ino) []byte             { return key8(kindOrphan, uint64(ino)) }
func keySession(id fs.SessionID) []byte       { return key8(kindSession, uint64(id)) }
func keyResult(id fs.SessionID, seq uint64) []byte {
	return key16(kindResult, uint64(id), seq)
}

func keyChunk(kind byte, c fs.ChunkID) []byte {
	k := make([]byte, 1, 41)
	k[0] = kind
	k = append(k, c.Hash[:]...)
	return binary.BigEndian.AppendUint64(k, uint64(c.Gen))
}

func keyUndurable(c fs.ChunkID) []byte {
	k := make([]byte, 1, 41)
	k[0] = kindUndurable
	k = binary.BigEndian.AppendUint64(k, uint64(c.Gen))
	return append(k, c.Hash[:]...)
}

func keyPack(id fs.PackID) []byte {
	return append(append(make([]byte, 0, 17), kindPack), id[:]...)
}

func packOfKey(k []byte) (id fs.PackID) {
	copy(id[:], k[1:])
	return id
}

// keyTail is the number in the last 8 bytes of a key.
func keyTail(k []byte) uint64 { return binary.BigEndian.Uint64(k[len(k)-8:]) }

// keyHead is the number behind a key's kind.
func keyHead(k []byte) uint64 { return binary.BigEndian.Uint64(k[1:]) }

// after is the smallest key that is greater than all keys that begin with
// prefix; nil if there is none.
func after(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			k := append([]byte{}, prefix[:i+1]...)
			k[i]++
			return k
		}
	}
	return nil
}

func chunkOfKey(k []byte) (c fs.ChunkID) {
	copy(c.Hash[:], k[1:33])
	c.Gen = fs.Index(keyTail(k))
	return c
}

func chunkOfUndurable(k []byte) (c fs.ChunkID) {
	c.Gen = fs.Index(keyHead(k))
	copy(c.Hash[:], k[9:])
	return c
}
