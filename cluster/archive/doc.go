// Package archive keeps a copy of the cluster's metadata in the bucket from which
// a new cluster can be made (rules R38 to R40): the log in segments, each second,
// and now and then a snapshot of the whole state, both with the content of small
// files in them. What the bytes are is in docs/format/archive.md.
//
//	owner.go     whose bucket it is: the object OWNER; [Ownership] watches it
//	segment.go   a piece of the log, as bytes
//	snapshot.go  a state in parts and its manifest, as bytes
//	chain.go     which segment follows which: no I/O, no clock
//	ship.go      [Shipper]: what the leader does each second
//	job.go       a snapshot on its way into the bucket
//	retain.go    what is deleted again
//	load.go      [Open] and [Backup.Load]: the way back
//
// Any number of nodes may ship at the same time, as a deposed leader and its
// successor do for a moment: everything is put under a key that says what it is,
// if it is absent, and whoever comes second compares.
package archive
