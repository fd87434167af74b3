package lb

import (
	"errors"
	"syscall"
)

// smallBuffer makes a client whose kernel takes little, so that what it does not
// read stays with the sender.
func smallBuffer(_, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) }), err)
}
