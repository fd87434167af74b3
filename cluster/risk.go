package cluster

import (
	"slices"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// AtRisk is a file with content that the object store does not have and that
// fewer live nodes have than it should be on.
type AtRisk struct {
	Path    string
	Chunk   fs.ChunkID
	Size    uint32      // of the chunk
	Holders []fs.NodeID // that had it on disk; none: it is in the log, on every node
	Alive   int         // of the nodes that have it
}

// riskPage is how much of the backlog is read at once.
const riskPage = 1000

// AtRisk lists up to count of these files and tells how many chunks there are.
// It reads the whole backlog, and if any chunk is at risk, all extents and names.
// Who is alive is gossip's hint.
func (n *Node) AtRisk(replicas, count int) (list []AtRisk, chunks int, err error) {
	risky := map[fs.ChunkID]AtRisk{}
	for last := (fs.ChunkID{}); ; {
		var page []meta.Undurable
		n.store.use(func(s *meta.State) { page, err = s.Undurable(last, riskPage) })
		if err != nil {
			return nil, 0, err
		}
		for _, u := range page {
			if alive := n.copies(u); alive < replicas {
				chunks++
				if len(risky) < count {
					risky[u.Info.ID] = AtRisk{Chunk: u.Info.ID, Size: u.Info.Size, Holders: u.Info.Holders, Alive: alive}
				}
			}
		}
		if len(page) < riskPage {
			break
		}
		last = page[len(page)-1].Info.ID
	}
	if len(risky) == 0 {
		return nil, chunks, nil
	}
	set := map[fs.ChunkID]bool{}
	for id := range risky {
		set[id] = true
	}
	var files []meta.Citing
	n.store.use(func(s *meta.State) { files, err = s.FilesOf(set, count) })
	for _, f := range files {
		r := risky[f.Chunk]
		r.Path = f.Path
		list = append(list, r)
	}
	return list, chunks, err
}

// copies counts the live nodes that have a chunk: its holders, or, if it is in
// the log, all members.
func (n *Node) copies(u meta.Undurable) int {
	alive := n.Others()
	if u.Inline {
		return 1 + len(alive)
	}
	c := 0
	for _, id := range u.Info.Holders {
		if id == n.o.ID || slices.Contains(alive, id) {
			c++
		}
	}
	return c
}
