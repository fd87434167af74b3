package meta

import (
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/wpfs/wpfs/fs"
)

// soundState has at least one record of each kind: /d (2), /d/f (3) with inline,
// held and durable content, /d/l (4), orphan 5, /e (6), /e/sub (7), session 5.
func soundState(t *testing.T) *State {
	t.Helper()
	s, err := Open(NewMemKV())
	if err != nil {
		t.Fatal(err)
	}
	held := func(off uint64, content string) fs.Piece {
		return fs.Piece{Off: off, Len: uint64(len(content)), Hash: sha256.Sum256([]byte(content)), ChunkLen: uint32(len(content)), Holders: []fs.NodeID{"n1"}}
	}
	for i, op := range []fs.Op{
		fs.InitCluster{UUID: "u"}, fs.OpenSession{Session: 5, Node: "n1"},
		fs.Mkdir{Parent: 1, Name: "d"}, fs.Create{Parent: 2, Name: "f"}, fs.Symlink{Parent: 2, Name: "l", Target: "f"},
		fs.Tmpfile{Parent: 2}, fs.Mkdir{Parent: 1, Name: "e"}, fs.Mkdir{Parent: 6, Name: "sub"},
		fs.Publish{Ino: 3, Pieces: []fs.Piece{{Off: 0, Len: 6, Data: []byte("inline")}, held(10, "held"), held(20, "durable")}},
		fs.MarkDurable{Chunks: []fs.ChunkID{{Hash: sha256.Sum256([]byte("durable")), Gen: 9}}},
		fs.SetXattr{Ino: 3, Name: "user.a", Value: []byte("v")},
		fs.Publish{Ino: 3, Pieces: []fs.Piece{held(40, "packed")}},
		fs.StorePack{Pack: fs.PackID{1}, Size: 100, Chunks: []fs.Placed{{Chunk: fs.ChunkID{Hash: sha256.Sum256([]byte("packed")), Gen: 12}, Off: 10, Len: 70}}},
		fs.SetSetting{Key: "k", Value: []byte("v")},
	} {
		session := fs.SessionID(5)
		if i < 2 {
			session = 0
		}
		res, _, err := s.Apply(fs.Index(i+1), []fs.Command{{Session: session, Seq: uint64(i), Op: op}})
		if err != nil || res[0].Kind != fs.OK {
			t.Fatalf("%T: %v %v", op, res, err)
		}
	}
	return s
}

// damaged applies writes to a sound state and checks it.
func damaged(t *testing.T, w ...Write) []Problem {
	t.Helper()
	s := soundState(t)
	if p := s.Check(); len(p) > 0 {
		t.Fatalf("before any damage: %v", p)
	}
	for _, x := range w {
		if err := s.kv.Commit([]Write{x}); err != nil {
			t.Fatal(err)
		}
	}
	return s.Check()
}

// change rewrites an inode record.
func change(t *testing.T, ino fs.Ino, f func(*inode)) Write {
	t.Helper()
	n, err := reader{soundState(t).kv}.inode(ino)
	if err != nil || n == nil {
		t.Fatal(n, err)
	}
	f(n)
	return Write{Key: keyInode(ino), Value: n.encode()}
}

func changePack(t *testing.T, f func(*packRecord)) Write {
	t.Helper()
	r, ok, err := reader{soundState(t).kv}.pack(fs.PackID{1})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	f(&r)
	return Write{Key: keyPack(fs.PackID{1}), Value: r.encode()}
}

func changeChunk(t *testing.T, id fs.ChunkID, f func(*chunkRecord)) Write {
	t.Helper()
	r, ok, err := reader{soundState(t).kv}.chunk(id)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	f(&r)
	return Write{Key: keyChunk(kindChunk, id), Value: r.encode()}
}

func TestCheckFindsDamage(t *testing.T) {
	put := func(k, v []byte) Write { return Write{Key: k, Value: v} }
	del := func(k []byte) Write { return Write{Key: k, Delete: true} }
	id := func(content string) fs.ChunkID {
		return fs.ChunkID{Hash: sha256.Sum256([]byte(content)), Gen: 9}
	}
	inline, held, durable := id("inline"), id("held"), id("durable")
	packed := fs.ChunkID{Hash: sha256.Sum256([]byte("packed")), Gen: 12}
	file := func(ino fs.Ino, name string, cookie uint64, typ uint32) []Write {
		x := entryRecord{ino, typ, cookie}
		return []Write{put(keyEntry(2, name), x.encode()), put(keyListing(2, cookie), encodeListing(name, x))}
	}
	bad := []byte{recordVersion, 0xff}
	for name, row := range map[string]struct {
		w     []Write
		where string
	}{
		"unknown kind":               {[]Write{put([]byte("zzz"), nil)}, "key 7a7a7a"},
		"setting of no version":      {[]Write{put(keySetting("k"), nil)}, "setting k"},
		"setting too large":          {[]Write{put(keySetting("k"), encodeBlob(make([]byte, fs.SettingValueMax+1)))}, "setting k"},
		"key too short":              {[]Write{put([]byte("i12"), nil)}, "key 693132"},
		"key too long":               {[]Write{put(append(keyInode(2), 0), nil)}, "key 69"},
		"no format":                  {[]Write{del(keyFormat)}, "store format"},
		"newer format":               {[]Write{put(keyFormat, []byte{9})}, "store format"},
		"bad applied":                {[]Write{put(keyApplied, bad)}, "applied record"},
		"applied too low":            {[]Write{put(keyApplied, appliedRecord{at: 3}.encode())}, "inode 3"},
		"bad inode":                  {[]Write{put(keyInode(3), bad)}, "inode 3"},
		"newer inode":                {[]Write{put(keyInode(3), []byte{2})}, "inode 3"},
		"no root":                    {[]Write{del(keyInode(1))}, "inode 1"},
		"root is a file":             {[]Write{change(t, 1, func(n *inode) { n.Mode = fs.ModeRegular })}, "inode 1"},
		"root has a parent":          {[]Write{change(t, 1, func(n *inode) { n.parent = 2 })}, "inode 1"},
		"made in the future":         {[]Write{change(t, 3, func(n *inode) { n.Generation = 99 })}, "inode 3"},
		"changed in the future":      {[]Write{change(t, 3, func(n *inode) { n.Version = 99 })}, "inode 3"},
		"nanoseconds":                {[]Write{change(t, 3, func(n *inode) { n.Mtime.Nsec = 1e9 })}, "inode 3"},
		"unknown type":               {[]Write{change(t, 3, func(n *inode) { n.Mode = 0o110000 })}, "inode 3"},
		"size of a link":             {[]Write{change(t, 4, func(n *inode) { n.Size = 9 })}, "inode 4"},
		"size of a directory":        {[]Write{change(t, 2, func(n *inode) { n.Size = 9 })}, "inode 2"},
		"file too big":               {[]Write{change(t, 5, func(n *inode) { n.Size = fs.FileMax + 1 })}, "inode 5"},
		"too few links":              {[]Write{change(t, 3, func(n *inode) { n.Nlink = 2 })}, "inode 3"},
		"links of a directory":       {[]Write{change(t, 6, func(n *inode) { n.Nlink = 2 })}, "inode 6"},
		"number of entries":          {[]Write{change(t, 6, func(n *inode) { n.entries = 2 })}, "inode 6"},
		"wrong parent":               {[]Write{change(t, 7, func(n *inode) { n.parent = 2 })}, `entry "sub" of inode 6`},
		"cookie not below the next":  {[]Write{change(t, 6, func(n *inode) { n.nextCookie = 3 })}, `entry "sub" of inode 6`},
		"bad entry":                  {[]Write{put(keyEntry(2, "f"), bad)}, `entry "f" of inode 2`},
		"bad name":                   {file(4, "a/b", 3, fs.ModeSymlink), `entry "a/b" of inode 2`},
		"entry in a file":            {[]Write{put(keyEntry(3, "x"), entryRecord{4, fs.ModeSymlink, 3}.encode())}, `entry "x" of inode 3`},
		"entry to nothing":           {file(99, "x", 3, fs.ModeRegular), `entry "x" of inode 2`},
		"entry of another type":      {file(3, "f", 3, fs.ModeDir), `entry "f" of inode 2`},
		"second name of a directory": {file(7, "x", 4, fs.ModeDir), "inode 7"},
		"entry without listing":      {[]Write{del(keyListing(2, 3))}, `entry "f" of inode 2`},
		"listing without entry":      {[]Write{del(keyEntry(2, "f"))}, "listing of inode 2 at cookie 3"},
		"listing of another inode":   {[]Write{put(keyListing(2, 3), encodeListing("f", entryRecord{4, fs.ModeRegular, 3}))}, `entry "f" of inode 2`},
		"bad listing":                {[]Write{put(keyListing(2, 3), bad)}, "listing of inode 2 at cookie 3"},
		"cookie given twice":         {file(3, "f", 4, fs.ModeRegular), `entry "l" of inode 2`},
		"orphan with a name":         {[]Write{put(keyOrphan(3), orphanRecord{since: 1}.encode())}, "inode 3"},
		"orphan not in the list":     {[]Write{del(keyOrphan(5))}, "inode 5"},
		"orphan of nothing":          {[]Write{put(keyOrphan(99), orphanRecord{since: 1}.encode())}, "orphan 99"},
		"orphan of the future":       {[]Write{put(keyOrphan(5), orphanRecord{since: 99}.encode())}, "orphan 5"},
		"bad orphan":                 {[]Write{put(keyOrphan(5), bad)}, "orphan 5"},
		"directories in a loop": {[]Write{
			change(t, 6, func(n *inode) { n.parent = 7 }), change(t, 7, func(n *inode) { n.parent = 6 }),
		}, "inode 6"},
		"bad extent":                      {[]Write{put(keyExtent(3, 0), bad)}, "extent of inode 3 at 0"},
		"extent of a link":                {[]Write{put(keyExtent(4, 0), encodeExtent(fs.Extent{Len: 1, Chunk: held}))}, "extent of inode 4 at 0"},
		"extent beyond the end":           {[]Write{put(keyExtent(3, 45), encodeExtent(fs.Extent{Len: 2, Chunk: held}))}, "extent of inode 3 at 45"},
		"extent behind the end":           {[]Write{put(keyExtent(3, 1000), encodeExtent(fs.Extent{Len: 2, Chunk: held}))}, "extent of inode 3 at 1000"},
		"empty extent":                    {[]Write{put(keyExtent(3, 8), encodeExtent(fs.Extent{Chunk: held}))}, "extent of inode 3 at 8"},
		"extents that overlap":            {[]Write{put(keyExtent(3, 12), encodeExtent(fs.Extent{Len: 1, Chunk: held}))}, "extent of inode 3 at 12"},
		"extent of no chunk":              {[]Write{put(keyExtent(3, 8), encodeExtent(fs.Extent{Len: 1}))}, "extent of inode 3 at 8"},
		"extent beyond the chunk":         {[]Write{put(keyExtent(3, 10), encodeExtent(fs.Extent{Len: 4, Chunk: held, ChunkOff: 1}))}, "extent of inode 3 at 10"},
		"bytes in extents":                {[]Write{change(t, 3, func(n *inode) { n.Bytes++ })}, "inode 3"},
		"too many references":             {[]Write{changeChunk(t, held, func(r *chunkRecord) { r.refs++ })}, "chunk " + held.String()},
		"too few references":              {[]Write{changeChunk(t, held, func(r *chunkRecord) { r.refs-- })}, "chunk " + held.String()},
		"chunk of the future":             {[]Write{put(keyChunk(kindChunk, fs.ChunkID{Gen: 99}), chunkRecord{size: 1, durable: true}.encode())}, "chunk 00"},
		"chunk of no bytes":               {[]Write{changeChunk(t, durable, func(r *chunkRecord) { r.size = 0 })}, "chunk " + durable.String()},
		"nobody has it":                   {[]Write{changeChunk(t, held, func(r *chunkRecord) { r.holders = nil })}, "chunk " + held.String()},
		"durable and to be uploaded":      {[]Write{put(keyUndurable(durable), []byte{recordVersion})}, "chunk " + durable.String()},
		"neither durable nor uploaded":    {[]Write{del(keyUndurable(held))}, "chunk " + held.String()},
		"to be uploaded, but missing":     {[]Write{put(keyUndurable(fs.ChunkID{Gen: 1}), []byte{recordVersion})}, "undurable 00"},
		"bad entry of the upload list":    {[]Write{put(keyUndurable(held), bad)}, "undurable " + held.String()},
		"bad chunk":                       {[]Write{put(keyChunk(kindChunk, held), bad)}, "chunk " + held.String()},
		"inline content missing":          {[]Write{del(keyChunk(kindInline, inline))}, "chunk " + inline.String()},
		"inline content of another chunk": {[]Write{put(keyChunk(kindInline, inline), encodeBlob([]byte("INLINE")))}, "inline content of " + inline.String()},
		"inline content of no version":    {[]Write{put(keyChunk(kindInline, inline), nil)}, "inline content of " + inline.String()},
		"inline content not wanted":       {[]Write{put(keyChunk(kindInline, held), encodeBlob([]byte("held")))}, "inline content of " + held.String()},
		"inline and durable":              {[]Write{changeChunk(t, inline, func(r *chunkRecord) { r.durable = true }), del(keyUndurable(inline))}, "chunk " + inline.String()},
		"inline and not cited": {[]Write{
			changeChunk(t, inline, func(r *chunkRecord) { r.refs = 0 }), del(keyExtent(3, 0)), change(t, 3, func(n *inode) { n.Bytes -= 6 }),
		}, "chunk " + inline.String()},
		"condemned and cited": {[]Write{changeChunk(t, packed, func(r *chunkRecord) { r.condemned = 13 })}, "chunk " + packed.String()},
		"condemned in the future": {[]Write{
			changeChunk(t, packed, func(r *chunkRecord) { r.refs, r.condemned = 0, 99 }), del(keyExtent(3, 40)), change(t, 3, func(n *inode) { n.Bytes -= 6 }),
		}, "chunk " + packed.String()},
		"place without a pack":     {[]Write{changeChunk(t, durable, func(r *chunkRecord) { r.place.Len = 9 })}, "chunk " + durable.String()},
		"in a pack, not durable":   {[]Write{changeChunk(t, packed, func(r *chunkRecord) { r.durable = false }), put(keyUndurable(packed), []byte{recordVersion})}, "chunk " + packed.String()},
		"beyond the pack's end":    {[]Write{changeChunk(t, packed, func(r *chunkRecord) { r.place.Off = 31 })}, "chunk " + packed.String()},
		"pack missing":             {[]Write{del(keyPack(fs.PackID{1}))}, "chunk " + packed.String()},
		"bad pack":                 {[]Write{put(keyPack(fs.PackID{1}), bad)}, "pack 01"},
		"pack of too many":         {[]Write{changePack(t, func(r *packRecord) { r.chunks++ })}, "pack 01"},
		"pack of too few live":     {[]Write{changePack(t, func(r *packRecord) { r.live-- })}, "pack 01"},
		"bytes of a pack":          {[]Write{changePack(t, func(r *packRecord) { r.liveBytes++ })}, "pack 01"},
		"pack condemned too early": {[]Write{changePack(t, func(r *packRecord) { r.condemned = 13 })}, "pack 01"},
		"pack of nothing lives":    {[]Write{put(keyPack(fs.PackID{2}), packRecord{size: 1}.encode())}, "pack 02"},
		"pack of the future":       {[]Write{changePack(t, func(r *packRecord) { r.made = 99 })}, "pack 01"},
		"pack too large":           {[]Write{changePack(t, func(r *packRecord) { r.size = fs.PackMax + 1 })}, "pack 01"},
		"xattr of nothing":         {[]Write{put(keyXattr(99, "user.a"), encodeBlob(nil))}, `xattr "user.a" of inode 99`},
		"xattr too long":           {[]Write{put(keyXattr(3, "user.a"), encodeBlob(make([]byte, fs.XattrMax+1)))}, `xattr "user.a" of inode 3`},
		"xattr of no version":      {[]Write{put(keyXattr(3, "user.a"), nil)}, `xattr "user.a" of inode 3`},
		"too many xattrs":          {xattrs(5), `xattr "user.4" of inode 3`},
		"usage in bytes":           {[]Write{put(keySystem, system{nextIno: 8, bytes: 1, inodes: 7}.encode())}, "system record"},
		"usage in inodes":          {[]Write{put(keySystem, system{nextIno: 8, bytes: 46, inodes: 8}.encode())}, "system record"},
		"next inode number":        {[]Write{put(keySystem, system{nextIno: 7, bytes: 46, inodes: 7}.encode())}, "inode 7"},
		"bad system record":        {[]Write{put(keySystem, bad)}, "system record"},
		"bad session":              {[]Write{put(keySession(5), bad)}, "session 5"},
		"session of nobody":        {[]Write{put(keySession(6), sessionRecord{floor: 1}.encode())}, "session 6"},
		"session of a long name":   {[]Write{put(keySession(6), sessionRecord{node: fs.NodeID(strings.Repeat("n", 256)), floor: 1}.encode())}, "session 6"},
		"session of the future":    {[]Write{put(keySession(6), sessionRecord{node: "n", opened: 99, floor: 1}.encode())}, "session 6"},
		"result of no session":     {[]Write{put(keyResult(6, 1), EncodeResult(fs.Result{}))}, "result 1 of session 6"},
		"result of the future":     {[]Write{put(keyResult(5, 3), EncodeResult(fs.Result{Index: 99}))}, "result 3 of session 5"},
		"bad result":               {[]Write{put(keyResult(5, 3), bad)}, "result 3 of session 5"},
		"result below":             {[]Write{put(keyResult(5, 0), EncodeResult(fs.Result{}))}, "result 0 of session 5"},
		"result above":             {[]Write{put(keyResult(5, SessionWindow+1), EncodeResult(fs.Result{}))}, "result 1025 of session 5"},
		"result of an ended one":   {[]Write{put(keySession(5), sessionRecord{node: "n1", floor: 1, expired: true}.encode())}, "result 2 of session 5"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, p := range damaged(t, row.w...) {
				if strings.HasPrefix(p.Where, row.where) && p.What != "" {
					return
				}
			}
			t.Errorf("nothing reported of %s: %v", row.where, damaged(t, row.w...))
		})
	}
}

// xattrs writes n attributes of the greatest size.
func xattrs(n int) (w []Write) {
	for i := range n {
		w = append(w, Write{Key: keyXattr(3, "user."+string(rune('0'+i))), Value: encodeBlob(make([]byte, fs.XattrMax))})
	}
	return w
}

func TestCheckGivesUp(t *testing.T) {
	var w []Write
	for i := range 2 * ProblemsMax {
		w = append(w, Write{Key: keyOrphan(fs.Ino(1000 + i)), Value: []byte{9}})
	}
	if p := damaged(t, w...); len(p) != ProblemsMax {
		t.Errorf("%d problems", len(p))
	}
}
