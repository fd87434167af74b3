package vfs

import (
	"context"
	"strings"

	"github.com/wpfs/wpfs/fs"
)

// xattrNameMax is XATTR_NAME_MAX of linux/limits.h.
const xattrNameMax = 255

// checkXattr refuses names outside of the namespaces that are kept as they are.
// system.posix_acl_* would have to change the mode bits as well.
func checkXattr(op string, ino fs.Ino, name string) error {
	kind := fs.ErrNotSupported
	for _, space := range []string{"user.", "trusted.", "security."} {
		if !strings.HasPrefix(name, space) {
			continue
		}
		switch {
		case len(name) == len(space):
			kind = fs.ErrInvalid
		case len(name) > xattrNameMax:
			kind = fs.ErrRange
		default:
			return nil
		}
	}
	return &fs.Error{Op: op, Ino: ino, Name: name, Kind: kind}
}

// Xattr reads an extended attribute; the caller must not change it.
func (f *FS) Xattr(ctx context.Context, ino fs.Ino, name string) ([]byte, error) {
	if err := checkXattr("getxattr", ino, name); err != nil {
		return nil, err
	}
	var value []byte
	err := f.look(ctx, func(v fs.View) (err error) {
		value, err = v.Xattr(ino, name)
		return err
	})
	return value, failure("getxattr", ino, name, err)
}

// Xattrs lists the names of the extended attributes, those of the trusted
// namespace only for root.
func (f *FS) Xattrs(ctx context.Context, ino fs.Ino, cred fs.Cred) ([]string, error) {
	var names []string
	err := f.look(ctx, func(v fs.View) (err error) {
		names, err = v.Xattrs(ino)
		return err
	})
	if err != nil {
		return nil, failure("listxattr", ino, "", err)
	}
	if cred.Uid == 0 {
		return names, nil
	}
	var seen []string
	for _, n := range names {
		if !strings.HasPrefix(n, "trusted.") {
			seen = append(seen, n)
		}
	}
	return seen, nil
}

// SetXattr sets an extended attribute. op.Value may be reused afterwards.
func (f *FS) SetXattr(ctx context.Context, op fs.SetXattr) error {
	if err := checkXattr("setxattr", op.Ino, op.Name); err != nil {
		return err
	}
	// The operation may be kept for longer than the caller's buffer lives.
	op.Value = append([]byte{}, op.Value...)
	_, err := f.do(ctx, "setxattr", op.Ino, op.Name, op)
	return err
}

// RemoveXattr removes an extended attribute.
func (f *FS) RemoveXattr(ctx context.Context, op fs.RemoveXattr) error {
	if err := checkXattr("removexattr", op.Ino, op.Name); err != nil {
		return err
	}
	_, err := f.do(ctx, "removexattr", op.Ino, op.Name, op)
	return err
}
