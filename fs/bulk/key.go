package bulk

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs/object"
)

// Limits of Linux.
const (
	nameMax = 255
	pathMax = 4096 - 256 // leaves room for the root
)

// pathOf is the path of a key below the prefix. A key that ends in a slash is a
// directory: the place holder that consoles and many programs leave. Not every
// key can be a path.
func pathOf(key string) (path string, dir bool, err error) {
	path, dir = strings.CutSuffix(key, "/")
	if path == "" {
		return "", false, errors.New("the key has no name in it")
	}
	if len(path) > pathMax {
		return "", false, fmt.Errorf("the key has %d bytes, a path has at most %d", len(path), pathMax)
	}
	for part := range strings.SplitSeq(path, "/") {
		switch {
		case part == "":
			return "", false, errors.New("the key has two slashes in a row, or one at its beginning; no file can have an empty name")
		case part == ".", part == "..":
			return "", false, fmt.Errorf("the key has the component %q, which no file can be called", part)
		case len(part) > nameMax:
			return "", false, fmt.Errorf("a component of the key has %d bytes, a name has at most %d", len(part), nameMax)
		}
	}
	if strings.IndexByte(path, 0) >= 0 {
		return "", false, errors.New("the key has a zero byte")
	}
	return path, dir, nil
}

// keyOf is the key of a path, the reverse of pathOf. Not every path can be a
// key.
func keyOf(path string, dir bool) (string, error) {
	if !utf8.ValidString(path) {
		return "", errors.New("the name is not UTF-8, which S3 asks for")
	}
	if dir {
		path += "/"
	}
	if len(path) > object.PlainKeyMax {
		return "", fmt.Errorf("the path has %d bytes, a key has at most %d", len(path), object.PlainKeyMax)
	}
	return path, nil
}

// Metadata of objects. The first is s3cmd's (function _build_attr_header in its
// source): name:value pairs with slashes between. The others are for what it
// has no place for.
const (
	metaS3cmd  = "s3cmd-attrs"
	metaXattrs = "wpfs-xattrs" // JSON in base64
	metaLink   = "wpfs-link"   // the first of several names of one file, in URL encoding
	metaMtime  = "wpfs-mtime"  // nanoseconds since 1970
	metaRdev   = "wpfs-rdev"
)

// readMeta takes into e what an object's metadata tell. What cannot be read in
// them is as good as absent: they may be another program's.
func (e *entry) readMeta(meta map[string]string) {
	attrs := map[string]string{}
	for pair := range strings.SplitSeq(meta[metaS3cmd], "/") {
		if name, value, ok := strings.Cut(pair, ":"); ok {
			attrs[name] = value
		}
	}
	number := func(name string, bits int) (uint64, bool) {
		n, err := strconv.ParseUint(attrs[name], 10, bits)
		return n, err == nil
	}
	if m, ok := number("mode", 32); ok && kindNames[uint32(m)&unix.S_IFMT] != "" {
		if dir := uint32(m)&unix.S_IFMT == unix.S_IFDIR; dir == e.isDir() {
			e.mode, e.known = uint32(m), e.known|knowsMode
		}
	}
	uid, ok1 := number("uid", 32)
	gid, ok2 := number("gid", 32)
	if ok1 && ok2 {
		e.uid, e.gid, e.known = uint32(uid), uint32(gid), e.known|knowsOwner
	}
	if s, err := strconv.ParseInt(attrs["mtime"], 10, 64); err == nil && s > -1<<33 && s < 1<<33 {
		e.mtime, e.known = s*1e9, e.known|knowsMtime
		// Only as long as both agree: s3cmd may have changed its own since.
		if ns, err := strconv.ParseInt(meta[metaMtime], 10, 64); err == nil && floorDiv(ns, 1e9) == s {
			e.mtime = ns
		}
	}
	e.md5 = attrs["md5"]
	e.readOwnMeta(meta)
}

func (e *entry) readOwnMeta(meta map[string]string) {
	if _, ok := meta[metaMtime]; ok { // written by us: what is absent was absent
		e.known |= knowsXattrs | knowsLinks
	}
	if b, err := base64.StdEncoding.DecodeString(meta[metaXattrs]); err == nil && len(b) > 0 {
		var m map[string][]byte
		if json.Unmarshal(b, &m) == nil {
			e.xattrs = map[string]string{}
			for name, value := range m {
				e.xattrs[name] = string(value)
			}
			e.known |= knowsXattrs
		}
	}
	if link, err := url.PathUnescape(meta[metaLink]); err == nil {
		e.link = link
	}
	if n, err := strconv.ParseUint(meta[metaRdev], 10, 64); err == nil {
		e.rdev = n
	}
}

// meta is what an object for e is put with. sum is the MD5 of its content in
// hexadecimal digits, "" if it has none.
func (e *entry) meta(sum string) (map[string]string, error) {
	attrs := map[string]string{
		"mode": strconv.FormatUint(uint64(e.mode), 10), "mtime": strconv.FormatInt(floorDiv(e.mtime, 1e9), 10),
		"uid": strconv.FormatUint(uint64(e.uid), 10), "gid": strconv.FormatUint(uint64(e.gid), 10),
	}
	if sum != "" {
		attrs["md5"] = sum
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		pairs = append(pairs, name+":"+attrs[name])
	}
	meta := map[string]string{metaS3cmd: strings.Join(pairs, "/"), metaMtime: strconv.FormatInt(e.mtime, 10)}
	if len(e.xattrs) > 0 {
		m := map[string][]byte{}
		for name, value := range e.xattrs {
			m[name] = []byte(value)
		}
		b, err := json.Marshal(m)
		if err != nil {
			return nil, err
		}
		meta[metaXattrs] = base64.StdEncoding.EncodeToString(b)
	}
	if e.link != "" {
		meta[metaLink] = url.PathEscape(e.link)
	}
	if e.isDevice() {
		meta[metaRdev] = strconv.FormatUint(e.rdev, 10)
	}
	n := 0
	for name, value := range meta {
		n += len(name) + len(value)
	}
	if n > object.PlainMetaMax {
		return nil, fmt.Errorf("its attributes need %d bytes, an object has room for %d; to go without extended attributes: --xattrs=false", n, object.PlainMetaMax)
	}
	return meta, nil
}
