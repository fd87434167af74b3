package vfs

import (
	"context"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// listBatch is how many entries ReadDir takes from the metadata at a time.
const listBatch = 256

// Cookies of the two entries that every directory has and no View lists.
const (
	cookieSelf   = 1
	cookieParent = 2
)

// Found is what Lookup knows of a name.
type Found struct {
	Attr fs.Attr // zero if the name is absent
	// Keep is how long the kernel may answer that the name means this inode, or
	// none; KeepAttr the same for the attributes. Both are 0 if not at all.
	Keep, KeepAttr time.Duration
}

// Lookup finds name in dir and returns its attributes as local processes see
// them; for an absent name (ErrNotFound) Found says how long that may be
// believed. It knows "." and "..", which ask for any inode's own existence and
// for a directory's parent (NFS export does that).
func (f *FS) Lookup(ctx context.Context, dir fs.Ino, name string) (Found, error) {
	if len(name) > fs.NameMax {
		return Found{}, &fs.Error{Op: "lookup", Ino: dir, Name: name, Kind: fs.ErrNameTooLong}
	}
	seq := f.pubSeq.Load()
	var a fs.Attr
	keep, err := f.meta.Read(ctx, func(v fs.View) (err error) {
		switch name {
		case ".":
			if a, err = v.Attr(dir); err == nil && a.Nlink == 0 && f.lookupRecord(dir) == nil {
				err = fs.ErrStale // a file handle must not bring back what was removed
			}
		case "..":
			var up fs.Ino
			if up, err = v.Parent(dir); err == nil {
				a, err = v.Attr(up)
			}
		default:
			a, err = v.Lookup(dir, name)
		}
		return err
	})
	if name == "." || name == ".." {
		keep = 0 // no directory entry of these names ever changes, so nobody would hear of it
	}
	if err != nil {
		return Found{Keep: keep}, failure("lookup", dir, name, err)
	}
	if !a.IsRegular() || f.lookupRecord(a.Ino) == nil && f.pubSeq.Load() == seq {
		return Found{a, keep, keep}, nil
	}
	// The file has, or just had, unpublished content here.
	a, keepAttr, err := f.Attr(ctx, a.Ino)
	return Found{a, keep, keepAttr}, err
}

// Readlink tells a symbolic link's target.
func (f *FS) Readlink(ctx context.Context, ino fs.Ino) (string, error) {
	var target string
	err := f.look(ctx, func(v fs.View) (err error) {
		target, err = v.Readlink(ino)
		return err
	})
	return target, failure("readlink", ino, "", err)
}

// ReadDir calls add with the entries of dir whose cookies are above after, in
// cookie order, "." and ".." first, until add returns false or there are no
// more. Entries that come and go meanwhile may or may not be among them; no
// other is missed or repeated, however the calls are cut up.
func (f *FS) ReadDir(ctx context.Context, dir fs.Ino, after uint64, add func(fs.Entry) bool) error {
	if after < cookieParent {
		up, err := f.parent(ctx, dir)
		if err != nil {
			return err
		}
		if after < cookieSelf && !add(fs.Entry{Name: ".", Ino: dir, Type: fs.ModeDir, Cookie: cookieSelf}) {
			return nil
		}
		if !add(fs.Entry{Name: "..", Ino: up, Type: fs.ModeDir, Cookie: cookieParent}) {
			return nil
		}
		after = cookieParent
	}
	for {
		var entries []fs.Entry
		err := f.look(ctx, func(v fs.View) (err error) {
			entries, err = v.List(dir, after, listBatch)
			return err
		})
		if err != nil {
			return readDirFailure(dir, err)
		}
		for _, e := range entries {
			if !add(e) {
				return nil
			}
			after = e.Cookie
		}
		if len(entries) < listBatch {
			return nil
		}
	}
}

func (f *FS) parent(ctx context.Context, dir fs.Ino) (fs.Ino, error) {
	var up fs.Ino
	err := f.look(ctx, func(v fs.View) (err error) {
		up, err = v.Parent(dir)
		return err
	})
	return up, readDirFailure(dir, err)
}

// readDirFailure makes a directory that was removed while open an absent one,
// as getdents(2) has it.
func readDirFailure(dir fs.Ino, err error) error {
	if fs.KindOf(err) == fs.ErrStale {
		return &fs.Error{Op: "readdir", Ino: dir, Kind: fs.ErrNotFound, Err: err}
	}
	return failure("readdir", dir, "", err)
}

// Mkdir makes a directory.
func (f *FS) Mkdir(ctx context.Context, op fs.Mkdir) (fs.Attr, error) {
	res, err := f.do(ctx, "mkdir", op.Parent, op.Name, op)
	return res.Attr, err
}

// Mknod makes a fifo, socket, device or regular file.
func (f *FS) Mknod(ctx context.Context, op fs.Mknod) (fs.Attr, error) {
	res, err := f.do(ctx, "mknod", op.Parent, op.Name, op)
	return res.Attr, err
}

// Symlink makes a symbolic link.
func (f *FS) Symlink(ctx context.Context, op fs.Symlink) (fs.Attr, error) {
	res, err := f.do(ctx, "symlink", op.Parent, op.Name, op)
	return res.Attr, err
}

// Link makes another name for a file, and returns its attributes as local
// processes see them.
func (f *FS) Link(ctx context.Context, op fs.Link) (fs.Attr, error) {
	res, err := f.do(ctx, "link", op.Parent, op.Name, op)
	if err != nil {
		return fs.Attr{}, err
	}
	if f.lookupRecord(op.Ino) == nil {
		return res.Attr, nil
	}
	a, _, err := f.Attr(ctx, op.Ino)
	return a, err
}

// Unlink removes a name of something that is no directory. What is open or
// unpublished here goes on to work.
func (f *FS) Unlink(ctx context.Context, op fs.Unlink) error {
	_, err := f.do(ctx, "unlink", op.Parent, op.Name, op)
	return err
}

// Rmdir removes an empty directory.
func (f *FS) Rmdir(ctx context.Context, op fs.Rmdir) error {
	_, err := f.do(ctx, "rmdir", op.Parent, op.Name, op)
	return err
}

// Rename moves a name.
func (f *FS) Rename(ctx context.Context, op fs.Rename) error {
	if op.Flags&^(fs.RenameNoReplace|fs.RenameExchange) != 0 {
		return &fs.Error{Op: "rename", Ino: op.Parent, Name: op.Name, Kind: fs.ErrInvalid}
	}
	_, err := f.do(ctx, "rename", op.Parent, op.Name, op)
	return err
}
