package bulk

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// copiedXattr: what users and their programs set. The rest, such as
// security.selinux, belongs to the system that a tree happens to be on.
func copiedXattr(name string) bool {
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.") ||
		slices.Contains([]string{"security.capability", "system.posix_acl_access", "system.posix_acl_default"}, name)
}

// xattrsMax is XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h.
const xattrsMax = 64 << 10

// readXattrs reads the attributes of an open file.
func (e *entry) readXattrs(fd int) error {
	n, err := unix.Flistxattr(fd, nil)
	if errors.Is(err, unix.ENOTSUP) {
		return nil // known stays unset: this file system cannot tell
	}
	if err == nil && n == 0 {
		e.known |= knowsXattrs
		return nil
	}
	b := make([]byte, xattrsMax)
	if err == nil {
		n, err = unix.Flistxattr(fd, b)
	}
	if err != nil {
		return fault("list extended attributes", err)
	}
	e.xattrs = map[string]string{}
	value := make([]byte, xattrsMax)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00") {
		if !copiedXattr(name) {
			continue
		}
		n, err := unix.Fgetxattr(fd, name, value)
		switch {
		case errors.Is(err, unix.ENODATA): // removed since
		case err != nil:
			return fmt.Errorf("read extended attribute %s: %w", name, err)
		default:
			e.xattrs[name] = string(value[:n])
		}
	}
	e.known |= knowsXattrs
	return nil
}

// setXattrs makes the attributes of an open file those of e; have are the ones
// that it has.
func (e *entry) setXattrs(fd int, have map[string]string) error {
	if e.known&knowsXattrs == 0 {
		return nil
	}
	for name, value := range e.xattrs {
		if old, ok := have[name]; ok && old == value {
			continue
		}
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil {
			return fmt.Errorf("the destination does not take the extended attribute %s: %w; to go without: --xattrs=false", name, err)
		}
	}
	for name := range have {
		if _, keep := e.xattrs[name]; keep || !copiedXattr(name) {
			continue
		}
		if err := unix.Fremovexattr(fd, name); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("remove extended attribute %s: %w", name, err)
		}
	}
	return nil
}
