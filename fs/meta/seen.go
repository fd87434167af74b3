package meta

import "github.com/wpfs/wpfs/fs"

// NodeSeen reports whether a node of that name has ever registered a session.
// A node that comes with an empty disk under such a name has forgotten what it
// voted for (rule R27).
func (s *State) NodeSeen(node fs.NodeID) (bool, error) {
	lo := []byte{kindSession}
	found, err := collect(s, lo, after(lo), 1, func(_, v []byte) (bool, bool, error) {
		r, err := decodeSession(v)
		return true, r.node == node, err
	})
	return len(found) > 0, err
}
