// Package cache keeps content: chunks on this node's disk, fetched from other
// nodes or the object store when they are missing, and sent to both.
//
// Its nouns: a [Disk] holds chunks as files named by their hash and never
// serves bytes that do not match it. A [Tier] is the whole of [fs.Chunks]:
// inline bytes, the disk, other nodes ([Peers]), the object store, in that
// order. An [Uploader] works off what the object store does not have yet
// ([Backlog]). A record is a chunk as an object; docs/format/objects.md has
// its picture.
//
// Lock order: Disk.shard before fileSet and knownSet, which are leaves. No lock
// is held while waiting for a peer or the object store.
package cache
