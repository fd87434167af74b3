package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/wpfs/wpfs/fs"
)

// Errors about the data directory. Their text tells the operator what to do.
var (
	// ErrOtherNode: the directory was made by another node or cluster.
	ErrOtherNode = errors.New("the data directory belongs to another node or cluster")
	// ErrNewerVersion: a newer wpfs wrote the directory.
	ErrNewerVersion = errors.New("the data directory was written by a newer version of wpfs")
	// ErrInUse: another process has the directory open.
	ErrInUse = errors.New("the data directory is in use by another process")
)

// identityVersion is the layout of the data directory.
const identityVersion = 1

const identityFile = "identity.json"

// identity says whose data directory this is. Token is random and also kept in
// raft's stable store: if the two differ, one of them was rolled back or
// replaced, and the node may not vote under its old name (rule R27).
type identity struct {
	Version int       `json:"version"`
	Node    fs.NodeID `json:"node"`
	Cluster string    `json:"cluster"` // the configured name
	UUID    string    `json:"uuid"`    // "" until learnt
	Token   string    `json:"token"`
}

// openIdentity reads or makes the identity in dir. fresh tells that the
// directory was empty.
func openIdentity(dir string, node fs.NodeID, cluster string) (id identity, fresh bool, err error) {
	path := filepath.Join(dir, identityFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		id = identity{Version: identityVersion, Node: node, Cluster: cluster, Token: randomHex()}
		return id, true, nil
	}
	if err != nil {
		return id, false, fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(b, &id); err != nil {
		return id, false, fmt.Errorf("read %s: %w", path, err)
	}
	switch {
	case id.Version > identityVersion:
		return id, false, fmt.Errorf("%s: %w (layout %d, this is %d): install that version again, or start with an empty data directory", dir, ErrNewerVersion, id.Version, identityVersion)
	case id.Node != node:
		return id, false, fmt.Errorf("%s: %w: it is node %q's, but node.id is %q: set node.id or node.data_dir right", dir, ErrOtherNode, id.Node, node)
	case id.Cluster != cluster:
		return id, false, fmt.Errorf("%s: %w: it is of cluster %q, but cluster.name is %q: set cluster.name or node.data_dir right", dir, ErrOtherNode, id.Cluster, cluster)
	}
	return id, false, nil
}

// PeekIdentity tells which cluster's node a data directory belongs to, without
// opening it: exists is false if no node ever ran on it, uuid is "" if that node
// has not learnt it.
func PeekIdentity(dir string) (uuid string, exists bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", false, nil
	}
	var id identity
	if err == nil {
		err = json.Unmarshal(b, &id)
	}
	if err != nil {
		return "", true, fmt.Errorf("read %s: %w", filepath.Join(dir, identityFile), err)
	}
	return id.UUID, true, nil
}

func (id identity) save(dir string) error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFileSync(dir, filepath.Join(dir, identityFile), append(b, '\n')); err != nil {
		return fmt.Errorf("save %s: %w", identityFile, err)
	}
	return nil
}

func randomHex() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// lockDir makes sure that one process at a time uses dir. The lock ends with
// the process, however it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w: stop the other wpfs agent, or give this one its own node.data_dir", dir, ErrInUse)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}
