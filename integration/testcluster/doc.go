// Package testcluster runs real wpfs clusters for tests and benchmarks: the
// wpfs binary, several agents as processes, real mounts, a real S3 server.
//
// A [Session] is one run of a test program. It builds the binary, owns a
// directory and a block of loopback addresses, and has a guard: a process that
// cleans up when the test program ends, even by a panic or a kill. A [Cluster]
// is one `wpfs dev` in a session, with directories and addresses of its own. Its
// Close fails if the cluster left a process or a mount behind.
//
// Every process of a cluster carries a token in its environment, and cleaning
// up ends exactly the processes with that token and the mounts below the
// session's directory, nothing else.
package testcluster
