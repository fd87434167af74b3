package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// diskFreeMin is what the disk of the data directory must have free at start: a
// raft log segment and a few metadata files.
const diskFreeMin = 128 << 20

// preflight finds what would stop an agent later, before anything is opened or
// changed, so that each case has one sentence and one exit code.
func preflight(cfg *Config) error {
	if err := checkDataDir(cfg); err != nil {
		return err
	}
	if cfg.Mount.Path == "" {
		return nil
	}
	if err := checkMountPoint(cfg.Mount.Path); err != nil {
		return err
	}
	return checkFuse("/dev/fuse")
}

func checkDataDir(cfg *Config) error {
	dir := cfg.Node.DataDir
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return problem(CodeDataDir, nil, "node.data_dir "+dir+" does not exist",
			"Mount its disk, or make it: mkdir -p "+dir+" (wpfs does not make it, so that a disk that is not mounted is noticed)")
	case err != nil:
		return problem(CodeDataDir, err, "node.data_dir cannot be used", "Give this user access to it")
	case !st.IsDir():
		return problem(CodeDataDir, nil, "node.data_dir "+dir+" is no directory", "Set node.data_dir to a directory of this node's own")
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return problem(CodeDataDir, err, "node.data_dir "+dir+" cannot be written", "Give this user write access to it, or set another node.data_dir")
	}
	if err := checkDiskFree(dir, diskFreeMin); err != nil {
		return err
	}
	if len(cfg.Cluster.Peers) > 0 || len(cfg.Cluster.Join) > 0 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, "identity.json")); errors.Is(err, os.ErrNotExist) {
		return problem(CodeConfig, nil, "node.data_dir "+dir+" is empty and neither cluster.peers nor cluster.join is set", fmt.Sprintf(
			"For a new cluster set cluster.peers on all its nodes (this one alone: %s=%s); to add this node to an existing one set cluster.join to any member's address", cfg.Node.ID, cfg.Cluster.Advertise))
	}
	return nil
}

// checkDiskFree wants minFree bytes for this user on the file system of dir.
func checkDiskFree(dir string, minFree uint64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return problem(CodeDataDir, err, "the free space of "+dir+" cannot be told", "")
	}
	if free := st.Bavail * uint64(st.Bsize); free < minFree {
		return problem(CodeDiskFull, nil, fmt.Sprintf("the disk of %s has %s free, less than the %s that an agent needs", dir, humanBytes(int64(free)), humanBytes(int64(minFree))),
			"Free some space and start again; nothing was changed")
	}
	return nil
}

// checkMountPoint wants an empty directory with nothing mounted on it. It does
// not look into a mount of ours, which may be dead or hang: fs/fuse knows how,
// takes dead ones away, and refuses live ones.
func checkMountPoint(path string) error {
	if kind := mountedOn(path); kind == fuseType {
		return nil
	} else if kind != "" {
		return problem(CodeMountPoint, syscall.EBUSY, "a file system of type "+kind+" is mounted on "+path+" already", "Unmount it (umount "+path+"), or set another mount.path")
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return problem(CodeMountPoint, nil, "the mount point "+path+" does not exist", "Make it: mkdir -p "+path)
	case err != nil:
		return problem(CodeMountPoint, err, "the mount point "+path+" cannot be used", "")
	case !st.IsDir():
		return problem(CodeMountPoint, nil, "the mount point "+path+" is no directory", "Set mount.path to an empty directory")
	}
	names, err := os.ReadDir(path)
	if err != nil {
		return problem(CodeMountPoint, err, "the mount point "+path+" cannot be read", "")
	}
	if len(names) > 0 {
		return problem(CodeMountPoint, nil, fmt.Sprintf("the mount point %s is not empty (it has %q): the mount would hide it", path, names[0].Name()),
			"Move its content away (and into the file system once it is mounted), or set another mount.path")
	}
	return nil
}

// fuseType is the type of our mounts in /proc/self/mountinfo.
const fuseType = "fuse.wpfs"

// checkFuse wants a device that this process may open.
func checkFuse(dev string) error {
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV):
		return problem(CodeFuse, err, "this machine has no "+dev, "Load the module (modprobe fuse); in a container pass the device in (docker run --device /dev/fuse --cap-add SYS_ADMIN --cap-add DAC_READ_SEARCH)")
	case errors.Is(err, os.ErrPermission):
		return problem(CodeFuse, err, "no permission to use "+dev, "Run the agent as root")
	}
	return problem(CodeFuse, err, dev+" cannot be used", "")
}
