package archive

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/wpfs/wpfs/fs"
)

// The keys of the bucket. Numbers are hexadecimal with leading zeros, so that the
// order of keys is the order of numbers.
const (
	OwnerKey   = "OWNER"
	logPrefix  = "log/"
	snapPrefix = "snap/"
	manifest   = "manifest"
)

func epochDir(prefix string, epoch uint64) string { return fmt.Sprintf("%s%08x/", prefix, epoch) }

func segmentKey(epoch uint64, first fs.Index) string {
	return fmt.Sprintf("%s%016x", epochDir(logPrefix, epoch), uint64(first))
}

func snapshotDir(epoch uint64, at fs.Index) string {
	return fmt.Sprintf("%s%016x/", epochDir(snapPrefix, epoch), uint64(at))
}

func manifestKey(epoch uint64, at fs.Index) string { return snapshotDir(epoch, at) + manifest }

// partKey has a nonce, because two leaders may make a snapshot at one index and
// compression need not give the same bytes twice.
func partKey(epoch uint64, at fs.Index, nonce string, n int) string {
	return fmt.Sprintf("%s%s-%05d", snapshotDir(epoch, at), nonce, n)
}

// parsedKey is what a key says.
type parsedKey struct {
	epoch    uint64
	index    fs.Index // first of a segment, or of the snapshot
	segment  bool
	manifest bool
}

// parseKey reads a key below logPrefix or snapPrefix; ok is false for any other.
func parseKey(key string) (p parsedKey, ok bool) {
	parts := strings.Split(key, "/")
	if len(parts) < 3 || len(parts[1]) != 8 || len(parts[2]) != 16 {
		return p, false
	}
	epoch, err1 := strconv.ParseUint(parts[1], 16, 64)
	index, err2 := strconv.ParseUint(parts[2], 16, 64)
	if err1 != nil || err2 != nil {
		return p, false
	}
	p = parsedKey{epoch: epoch, index: fs.Index(index)}
	switch {
	case parts[0]+"/" == logPrefix && len(parts) == 3:
		p.segment = true
		return p, key == segmentKey(p.epoch, p.index)
	case parts[0]+"/" == snapPrefix && len(parts) == 4:
		p.manifest = parts[3] == manifest
		return p, strings.HasPrefix(key, snapshotDir(p.epoch, p.index))
	}
	return p, false
}
