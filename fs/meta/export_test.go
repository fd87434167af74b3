package meta

import "github.com/cockroachdb/pebble/v2/vfs"

// WithFS makes a store use another disk.
func (o PebbleOptions) WithFS(disk vfs.FS) PebbleOptions {
	o.fs = disk
	return o
}

// KVOf lets tests damage a store.
func KVOf(s *State) KV { return s.kv }
