package cluster

import (
	"slices"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// Risk is content that the object store does not have and that fewer live nodes
// have than it should be on.
type Risk struct {
	Chunks int             // of the whole cluster
	Files  []meta.LostFile // that cite them, by path; Bytes are those at risk
	Away   []fs.NodeID     // holders that do not seem alive: bringing them back helps
}

// Figures of Risk.
const (
	riskPage   = 1000    // chunks of the backlog read at once
	riskChunks = 100_000 // chunks whose files are named
)

// Risk looks for content at risk and names up to count files. It reads the whole
// backlog, and if any of it is at risk, the whole store. Who is alive is gossip's
// hint.
func (n *Node) Risk(replicas, count int) (r Risk, err error) {
	alive := append(n.Others(), n.o.ID)
	risky := map[fs.ChunkID]bool{}
	for last := (fs.ChunkID{}); ; {
		var page []meta.Undurable
		n.store.use(func(s *meta.State) { page, err = s.Undurable(last, riskPage) })
		if err != nil {
			return Risk{}, err
		}
		for _, u := range page {
			have, away := copies(u, alive)
			if have >= replicas {
				continue
			}
			r.Chunks++
			r.Away = append(r.Away, away...)
			if len(risky) < riskChunks {
				risky[u.Info.ID] = true
			}
		}
		slices.Sort(r.Away)
		r.Away = slices.Compact(r.Away)
		if len(page) < riskPage {
			break
		}
		last = page[len(page)-1].Info.ID
	}
	n.store.use(func(s *meta.State) { r.Files, err = s.FilesOf(risky) })
	r.Files = r.Files[:min(count, len(r.Files))]
	return r, err
}

// copies counts the live nodes that have a chunk, and lists the holders that are
// not. What is in the log is on every node.
func copies(u meta.Undurable, alive []fs.NodeID) (have int, away []fs.NodeID) {
	if u.Inline {
		return len(alive), nil
	}
	for _, id := range u.Info.Holders {
		if slices.Contains(alive, id) {
			have++
		} else {
			away = append(away, id)
		}
	}
	return have, away
}
