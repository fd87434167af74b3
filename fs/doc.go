// Package fs holds the nouns of wpfs and the interfaces between its parts:
// inodes, directory entries, extents and chunks; the operations that change
// them ([Op]); the view that reads them ([View]); and the two things a file
// system front end needs from below, ordered metadata ([Meta]) and content
// ([Chunks]). It imports none of our packages; everything else hangs off it.
//
// The promise made to applications, which every implementation of these
// interfaces keeps: while a node holds its lease, each path or metadata call is
// linearizable with all others in the cluster, and file content is linearizable
// per publication (close, fsync). docs/CONSISTENCY.md has it in a user's words.
package fs
