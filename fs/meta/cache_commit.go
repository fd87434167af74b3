package meta

import "github.com/wpfs/wpfs/fs"

// edit is what a commit does to one cached record.
type edit struct {
	key  fs.Key
	keep bool // now is what the record says after the commit; else it is forgotten
	now  cached
}

// edits works out what w does to the cache, so that nothing is decoded while
// readers wait. What nobody has read is forgotten, in case somebody reads it
// before the commit: not every name that is made is looked up on this node.
func (c *recordCache) edits(w []Write) []edit {
	if c == nil {
		return nil
	}
	list := make([]edit, 0, len(w)/2)
	for _, x := range w {
		k, ok := cachedAs(x.Key)
		if !ok {
			continue
		}
		e := edit{key: k}
		if c.has(k) {
			e.now, e.keep = recordOf(k, x)
		}
		list = append(list, e)
	}
	return list
}

// apply takes edits over. The caller holds State.mu for writing since before the
// store committed.
func (c *recordCache) apply(edits []edit) {
	for _, e := range edits {
		if e.keep {
			c.set(e.key, e.now)
		} else {
			c.drop(e.key)
		}
	}
}

// cachedAs is the key under which the cache knows a record of the store.
func cachedAs(key []byte) (fs.Key, bool) {
	switch key[0] {
	case kindInode:
		return attrKey(fs.Ino(keyHead(key))), true
	case kindEntry:
		return nameKey(fs.Ino(keyHead(key)), string(key[9:])), true
	}
	return fs.Key{}, false
}

func attrKey(ino fs.Ino) fs.Key              { return fs.Key{Kind: fs.KeyAttr, Ino: ino} }
func nameKey(dir fs.Ino, name string) fs.Key { return fs.Key{Kind: fs.KeyName, Ino: dir, Name: name} }

// recordOf is what a write makes of a record; false if that is not kept: an
// inode that is gone is never asked for again.
func recordOf(k fs.Key, w Write) (cached, bool) {
	switch {
	case k.Kind == fs.KeyAttr && w.Delete:
		return cached{}, false
	case k.Kind == fs.KeyAttr:
		n, err := decodeInode(k.Ino, w.Value)
		return cached{inode: n}, err == nil
	case w.Delete:
		return noEntry(k), true
	}
	x, err := decodeEntry(w.Value)
	return cached{ino: x.ino}, err == nil
}

// noEntry is the record of a name that is not there. KeyName only.
func noEntry(k fs.Key) cached {
	return cached{absent: &fs.Error{Op: opLookup, Ino: k.Ino, Name: k.Name, Kind: fs.ErrNotFound}}
}
