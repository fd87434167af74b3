package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

// Setting is the value of a setting of the cluster as this node knows it; nil if
// there is none. It does not block: a change that another node has just made may
// be missing.
func (n *Node) Setting(key string) (value []byte, err error) {
	n.store.use(func(s *meta.State) { value, err = s.Setting(key) })
	return value, err
}

// Settings lists the keys that begin with prefix, sorted, as this node knows them.
func (n *Node) Settings(prefix string) (keys []string, err error) {
	n.store.use(func(s *meta.State) { keys, err = s.Settings(prefix) })
	return keys, err
}

// SwapSetting gives a setting the value now (nil: removes it), if its value in the
// whole cluster is old (nil: there is none), and reports whether it was. After
// that this node knows it. It blocks for as long as the cluster has no leader, up
// to 30 s; after an error the outcome is unknown. No lease is needed: nothing of
// the file system changes.
func (n *Node) SwapSetting(ctx context.Context, key string, old, now []byte) (bool, error) {
	res, err := n.propose.do(ctx, fs.SetSetting{Key: key, Old: old, Value: now}, fs.TimeOf(time.Now()))
	if err == nil && res.Kind != fs.OK {
		err = &fs.Error{Op: "set setting", Name: key, Kind: res.Kind}
	}
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}
