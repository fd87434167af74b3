package fuse

import gofuse "github.com/hanwen/go-fuse/v2/fuse"

// node embeds no default implementation: a method with a misspelt name would
// then silently never be called. So every operation is written down, and this
// line fails to compile if one is not.
var _ gofuse.RawFileSystem = (*node)(nil)

// ReadDirPlus is never asked for (DisableReadDirPlus): the kernel takes the
// entries in its reply for newer than they may be (fuse_direntplus_link looks at
// the epoch after the reply).
func (n *node) ReadDirPlus(<-chan struct{}, *gofuse.ReadIn, *gofuse.DirEntryList) gofuse.Status {
	return gofuse.ENOSYS
}

// Writev is for transports that split a request; /dev/fuse does not, and for
// ENOSYS go-fuse calls Write.
func (n *node) Writev(<-chan struct{}, *gofuse.WriteIn, [][]byte) (uint32, gofuse.Status) {
	return 0, gofuse.ENOSYS
}

// Locks are the local kernel's own, so these are never asked for.
func (n *node) GetLk(<-chan struct{}, *gofuse.LkIn, *gofuse.LkOut) gofuse.Status {
	return gofuse.ENOSYS
}
func (n *node) SetLk(<-chan struct{}, *gofuse.LkIn) gofuse.Status  { return gofuse.ENOSYS }
func (n *node) SetLkw(<-chan struct{}, *gofuse.LkIn) gofuse.Status { return gofuse.ENOSYS }

// String, SetDebug, Init and OnUnmount are go-fuse's hooks; Server does its work
// around them.
func (n *node) String() string      { return "wpfs" }
func (n *node) SetDebug(bool)       {}
func (n *node) Init(*gofuse.Server) {}
func (n *node) OnUnmount()          {}
