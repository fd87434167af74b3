package main

import (
	"errors"
	"syscall"

	"github.com/wpfs/wpfs/cluster"
	"github.com/wpfs/wpfs/cluster/archive"
	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/fuse"
	"github.com/wpfs/wpfs/fs/object"
)

// asProblem makes a Problem of an error that the parts of a node return at
// start or end, by what it wraps. One that is none of the listed stays as it is.
func asProblem(err error) error {
	var p *Problem
	var oe *object.Error
	switch {
	case err == nil, errors.As(err, &p):
		return err
	case errors.Is(err, archive.ErrForeign):
		return problem(CodeForeign, err, "this cluster may not use object.url", "Give it a bucket or a prefix of its own; if the nodes of the other cluster are gone for good, make a new one of what is in the bucket: wpfs restore --from-bucket (docs/OPERATIONS.md)")
	case errors.Is(err, object.ErrNoConditions):
		return problem(CodeObjectStore, err, "the object store cannot keep two clusters apart: it ignores conditional writes (If-None-Match, If-Match)", "Use another server or a newer version of it, or accept the risk with object.unsafe_no_conditional_writes: true (docs/CONFIGURATION.md)")
	case errors.Is(err, cluster.ErrNotEmpty):
		return problem(CodeDataDir, err, "nothing is restored into a directory that is in use", "Name an empty one with --data-dir, or move away what is in it (keep it until the site has been looked at); nothing was changed")
	case errors.Is(err, cluster.ErrOtherNode), errors.Is(err, cluster.ErrNewerVersion), errors.Is(err, cluster.ErrInUse):
		return problem(CodeDataDir, err, "node.data_dir cannot be used", "Nothing in it was changed")
	case errors.Is(err, cluster.ErrLogCorrupt):
		return problem(CodeCorrupt, err, "this node's log is damaged", "Nothing was cut off. Keep a copy of node.data_dir, then start with an empty one under a new node.id: the other nodes have everything")
	case errors.Is(err, fs.ErrCorrupt):
		return problem(CodeCorrupt, err, "stored data fails its checksum", "Keep a copy of node.data_dir, then start with an empty one under a new node.id: the other nodes have everything")
	case errors.Is(err, cluster.ErrJoinRefused):
		return problem(CodeConfig, err, "this node may not join", "Correct cluster.name, node.id or cluster.join")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return problem(CodeDiskFull, err, "the disk is full", "Free space on the file system of node.data_dir and start again; what was acknowledged is on disk")
	case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EADDRNOTAVAIL):
		return problem(CodePort, err, "cluster.bind cannot be opened (it and the port above it must be free)", "Stop the program that has the port (ss -lntup), or set another cluster.bind")
	case errors.Is(err, fuse.ErrNoDevice), errors.Is(err, fuse.ErrNotAllowed):
		return &Problem{Code: CodeFuse, What: err.Error()}
	case errors.Is(err, fuse.ErrAbsent), errors.Is(err, fuse.ErrNotDir), errors.Is(err, fuse.ErrBusy), errors.Is(err, fuse.ErrMountFailed):
		return &Problem{Code: CodeMountPoint, What: err.Error()}
	case errors.As(err, &oe):
		return objectProblem(oe, err)
	}
	return err
}

// objectProblem has the store's own advice, and where to set things right.
func objectProblem(oe *object.Error, err error) error {
	switch oe.Kind {
	case object.Credentials, object.ClockSkew:
		return &Problem{Code: CodeCredentials, What: object.Advice(err) +
			" They come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, from a shared credentials file, or from the machine's role"}
	case object.NoSpace:
		return &Problem{Code: CodeDiskFull, What: object.Advice(err)}
	}
	return &Problem{Code: CodeObjectStore, What: object.Advice(err) + " Its address is object.url in the configuration"}
}
