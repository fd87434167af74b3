package archive

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// partBytes is what a part holds before compression, about: an object's size is
// bounded, and so is the memory of whoever makes or reads one.
const partBytes = 8 << 20

// Manifest is a snapshot: the state at Index, in parts. Where it is, the snapshot
// is whole.
type Manifest struct {
	Version int      `json:"version"`
	Cluster string   `json:"cluster"` // UUID
	Name    string   `json:"name"`
	Epoch   uint64   `json:"epoch"`
	Index   fs.Index `json:"index"`
	Term    uint64   `json:"term"`
	Hash    uint64   `json:"state_hash"` // meta.State.StateHash at Index
	// Next and Prev say where the log goes on: the first index of that segment
	// and the hash it is linked to. It may begin below Index.
	Next  fs.Index  `json:"next"`
	Prev  string    `json:"prev"`
	Parts []Part    `json:"parts"`
	Node  string    `json:"node"`
	Time  time.Time `json:"time"`
	Sum   string    `json:"sha256"` // of this JSON with "sha256" empty
}

// Part is one object of a snapshot.
type Part struct {
	Key     string `json:"key"`
	Bytes   int    `json:"bytes"` // of the object
	Sum     string `json:"sha256"`
	Records int    `json:"records"`
}

const manifestVersion = 1

func (m *Manifest) encode() ([]byte, error) {
	m.Version, m.Sum = manifestVersion, ""
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	m.Sum = hashOf(b)
	return json.MarshalIndent(m, "", " ")
}

func decodeManifest(b []byte) (*Manifest, error) {
	m := &Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, damaged("the manifest: %v", err)
	}
	if m.Version > manifestVersion {
		return nil, fmt.Errorf("%w (manifest %d, this one knows %d): install that version", ErrNewer, m.Version, manifestVersion)
	}
	sum := m.Sum
	m.Sum = ""
	plain, err := json.Marshal(m)
	if err != nil || hashOf(plain) != sum {
		return nil, damaged("the manifest's checksum is wrong")
	}
	m.Sum = sum
	if m.Index == 0 || m.Next == 0 || m.Next > m.Index+1 {
		return nil, damaged("a manifest at %d that goes on at %d", m.Index, m.Next)
	}
	return m, nil
}

// linkHash stands for the segment before the first one of a run: the run begins
// behind the state that it names.
func linkHash(cluster string, epoch uint64, at fs.Index, state uint64) string {
	return hashOf(fmt.Appendf(nil, "wpfs snapshot %s %d %d %d", cluster, epoch, at, state))
}

// partHead is what a part says of itself.
type partHead struct {
	Cluster string   `json:"cluster"`
	Epoch   uint64   `json:"epoch"`
	Index   fs.Index `json:"index"`
	Part    int      `json:"part"` // from 0
	Records int      `json:"records"`
	Raw     int      `json:"raw"`
	Stored  int      `json:"stored"`
	Sum     string   `json:"sha256"`
}

// partBuilder collects records of a state.
type partBuilder struct {
	raw     []byte
	records int
}

func (p *partBuilder) add(k, v []byte) {
	for _, b := range [][]byte{k, v} {
		p.raw = binary.AppendUvarint(p.raw, uint64(len(b)))
		p.raw = append(p.raw, b...)
	}
	p.records++
}

func (p *partBuilder) full() bool { return len(p.raw) >= partBytes }

// take returns the part as an object and begins the next.
func (p *partBuilder) take(h partHead) ([]byte, error) {
	body := encoder.EncodeAll(p.raw, nil)
	h.Records, h.Raw, h.Stored, h.Sum = p.records, len(p.raw), len(body), hashOf(body)
	p.raw, p.records = p.raw[:0], 0
	return frame(partMagic, &h, body)
}

// readPart calls f for each record of a part.
func readPart(b []byte, f func(k, v []byte) error) (partHead, error) {
	var h partHead
	body, err := unframe(partMagic, b, &h)
	if err != nil {
		return h, err
	}
	raw, err := unpack(body, h.Stored, h.Raw, h.Sum)
	if err != nil {
		return h, err
	}
	n := 0
	for ; len(raw) > 0; n++ {
		var kv [2][]byte
		for i := range kv {
			size, used := binary.Uvarint(raw)
			if used <= 0 || size > uint64(len(raw)-used) {
				return h, damaged("a record breaks off")
			}
			raw = raw[used:]
			kv[i], raw = raw[:size:size], raw[size:]
		}
		if err := f(kv[0], kv[1]); err != nil {
			return h, err
		}
	}
	if n != h.Records {
		return h, damaged("%d records instead of %d", n, h.Records)
	}
	return h, nil
}
