package cache

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/wpfs/wpfs/fs"
)

// damages are the ways in which a file can be wrong.
var damages = []struct {
	name string
	do   func(b []byte) []byte
}{
	{"one bit", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
	{"torn", func(b []byte) []byte { return b[:len(b)/2] }},
	{"empty", func([]byte) []byte { return nil }},
	{"zeros", func(b []byte) []byte { clear(b); return b }},
	{"longer", func(b []byte) []byte { return append(b, 0) }},
	{"far too long", func([]byte) []byte { return make([]byte, fs.ChunkMax+1) }},
}

func damage(t testing.TB, d *Disk, h fs.Hash, do func([]byte) []byte) {
	t.Helper()
	path := d.chunkPath(h)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, do(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedFileIsQuarantined(t *testing.T) {
	for _, row := range damages {
		t.Run(row.name, func(t *testing.T) {
			var reported []fs.Hash
			o := DiskOptions{OnCorrupt: func(h fs.Hash) { reported = append(reported, h) }}
			d := newDisk(t)
			b := content(3, 300_000)
			h := mustPut(t, d, b, true)
			damage(t, d, h, row.do)
			d = reopen(t, d, o)
			if err := d.Scan(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, err := d.ReadAt(h, 300_000, make([]byte, 10), 0)
			wantKind(t, "first read", err, fs.ErrCorrupt)
			_, err = d.Fetch(h)
			wantKind(t, "second read", err, fs.ErrNotFound)
			if len(reported) != 1 || reported[0] != h {
				t.Errorf("reported %v", reported)
			}
			st := d.Stats()
			if st.Quarantined != 1 || st.Corrupt != 1 || st.Chunks != 0 || st.Bytes != 0 {
				t.Errorf("stats %+v", st)
			}
			mustPut(t, d, b, false)
			got, err := readAll(d, h, len(b))
			wantBytes(t, "after another put", got, err, b)
		})
	}
}

// TestPutDoesNotTrustTheFile: a put of bytes whose file is damaged writes it
// anew instead of believing the name.
func TestPutDoesNotTrustTheFile(t *testing.T) {
	for _, row := range damages {
		t.Run(row.name, func(t *testing.T) {
			d := newDisk(t)
			b := content(4, 5000)
			h := mustPut(t, d, b, true)
			damage(t, d, h, row.do)
			d = reopen(t, d, DiskOptions{})
			mustPut(t, d, b, true)
			got, err := readAll(d, h, len(b))
			wantBytes(t, "read", got, err, b)
		})
	}
}

func TestQuarantineIsBounded(t *testing.T) {
	d := newDisk(t)
	const n, limit = 6, 4
	var chunks []fs.Hash
	for i := range n {
		h := mustPut(t, d, content(i, 100), false)
		damage(t, d, h, damages[0].do)
		chunks = append(chunks, h)
	}
	for round := range 2 { // the second process knows what the first has kept
		d = reopen(t, d, DiskOptions{QuarantineMax: limit})
		for _, h := range chunks[round*3 : round*3+3] {
			_, err := d.Fetch(h)
			wantKind(t, "Fetch", err, fs.ErrCorrupt)
			if d.Has(h) {
				t.Error("a damaged file stays in use")
			}
		}
	}
	entries, err := os.ReadDir(d.path(quarantineDir))
	if err != nil || len(entries) != limit {
		t.Errorf("%d files are in quarantine, %v; want %d", len(entries), err, limit)
	}
}

// TestPromisedFileIsNeverRemoved: with a full quarantine, and with one that takes
// nothing, what is left of a copy that others rely on stays.
func TestPromisedFileIsNeverRemoved(t *testing.T) {
	h := newHoldings()
	d := reopen(t, newDisk(t), DiskOptions{QuarantineMax: 1, Holdings: h})
	faults := newFaultFiles(0)
	faults.files, d.o.files = d.o.files, faults
	for i, promised := range []bool{false, true, false, true} {
		c := mustPut(t, d, content(i, 100), false)
		h.commit(d, c, promised, !promised)
		damage(t, d, c, damages[0].do)
		if i == 3 {
			faults.fails = func(op, _ string) error {
				if op == "rename" {
					return errFault
				}
				return nil
			}
		}
		d.known.forget(c)
		d.open.drop(c)
		_, err := d.Fetch(c)
		wantKind(t, "Fetch", err, fs.ErrCorrupt)
		kept, err := filepath.Glob(d.path(quarantineDir, c.String()+"-*"))
		if err != nil || (len(kept) == 1) != (i < 2) {
			t.Errorf("chunk %d, promised: %t: %d files in quarantine, %v", i, promised, len(kept), err)
		}
		if _, err := os.Stat(d.chunkPath(c)); (err == nil) != (i == 3) {
			t.Errorf("chunk %d, promised: %t: its file: %v", i, promised, err)
		}
	}
}

// TestKnownIsAboutOneFile: that one file was verified says nothing about another
// one that got its name.
func TestKnownIsAboutOneFile(t *testing.T) {
	d := newDisk(t)
	b := content(8, 100)
	h := mustPut(t, d, b, false)
	if _, err := d.Fetch(h); err != nil {
		t.Fatal(err)
	}
	other := d.path(tempDir, "other")
	if err := os.WriteFile(other, content(9, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, d.chunkPath(h)); err != nil {
		t.Fatal(err)
	}
	d.open.drop(h)
	_, err := d.Fetch(h)
	wantKind(t, "Fetch", err, fs.ErrCorrupt)
}

// TestQuarantineSparesTheSuccessor: a reader that finds its open file damaged
// does not take away the good one that has the name by then.
func TestQuarantineSparesTheSuccessor(t *testing.T) {
	d := newDisk(t)
	b := content(7, 100)
	h := mustPut(t, d, b, false)
	damage(t, d, h, damages[0].do)
	d = reopen(t, d, DiskOptions{})
	c, err := d.acquire(h)
	if err != nil {
		t.Fatal(err)
	}
	good := d.path(tempDir, "good")
	if err := os.WriteFile(good, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(good, d.chunkPath(h)); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "the old file", d.verify(c), fs.ErrCorrupt)
	d.open.release(c)
	got, err := d.Fetch(h)
	wantBytes(t, "the new file", got, err, b)
}
