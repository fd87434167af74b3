// Package meta is the metadata of wpfs as a pure state machine: a [State] over
// an ordered key-value store ([KV]), changed only by [State.Apply], which takes
// one log entry (a batch of commands) and commits everything that follows from
// it, the applied index included, in one write to the store. A crash therefore
// leaves the exact prefix of the log that [State.Applied] names.
//
// Apply reads no clock, no randomness and no map order and starts no goroutine,
// so that every node that applies the same entries has the same bytes; the chain
// hash ([State.StateHash]) proves it. Whether an operation succeeds is decided
// here, by the rules of POSIX, and a refusal is a result like any other.
//
// The nouns added here: a record is the versioned value of one key
// (docs/format/metadata.md pictures each); the overlay holds the writes of the
// entry being applied; an orphan is an inode without a name; a session's window
// is the range of its sequence numbers whose results are remembered.
//
// Locks, in order: State.applying (one Apply at a time), then State.mu, which is
// held for writing only while the store commits.
package meta
