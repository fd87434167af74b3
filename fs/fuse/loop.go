package fuse

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/fuse/kcache"
)

const (
	// inHeaderSize is sizeof(struct fuse_in_header).
	inHeaderSize = 40
	// smallMax is the largest request and reply that needs no buffer of maxWrite.
	smallMax = 8 << 10
	// bigSize is room for maxWrite bytes and any structure before them.
	bigSize = maxWrite + 4096
	// outRoom is more than the fixed part of any reply.
	outRoom = 512
	// replyGap is how late a reply may be written after its request was read for
	// what it says to be kept as long as it says (rule R5). Package protocol
	// leaves a little more between a kernel's timeout and the lease's end.
	replyGap = 40 * time.Millisecond
	// reliefAfter is how long a quick request may take before somebody else waits
	// for the next one.
	reliefAfter = 500 * time.Microsecond
)

// loop reads requests and writes replies. go-fuse translates between the two
// (its ProtocolServer, which it calls experimental); its own loop has no place to
// look at the clock after a reply was written.
type loop struct {
	dev   *device
	proto *gofuse.ProtocolServer
	cache *kcache.Cache // set after the first request
	log   *slog.Logger

	idle atomic.Int32 // workers that wait for a request
	big  sync.Pool    // *[]byte of bigSize

	mu      sync.Mutex
	workers int
	ended   chan struct{} // closed with the last worker; none is started any more
	over    bool
}

func newLoop(dev *device, proto *gofuse.ProtocolServer, log *slog.Logger) *loop {
	l := &loop{dev: dev, proto: proto, log: log, ended: make(chan struct{})}
	l.big.New = func() any { b := make([]byte, bigSize); return &b }
	return l
}

// worker is one goroutine of the loop and its request.
type worker struct {
	l        *loop
	relief   *time.Timer
	in, out  [1][]byte
	smallIn  [smallMax]byte
	smallOut [smallMax]byte
}

// first answers INIT, which comes before everything else.
func (l *loop) first() error {
	w := &worker{l: l}
	p := l.big.Get().(*[]byte)
	defer l.big.Put(p)
	n, err := l.dev.read(*p)
	if err != nil {
		return err
	}
	return w.answer((*p)[:n])
}

// serve answers requests until the mount is gone and every request is answered.
//
// One worker waits for requests. It answers those that are quick by itself before
// it reads the next: to wake a second thread for each costs more than the answer
// (on a virtual machine twice as much). For one that goes to the cluster, and for
// one that was not so quick after all, another worker takes over the waiting; so a
// request that takes long holds up nobody.
func (l *loop) serve() {
	l.start()
	<-l.ended
}

// start starts a worker, unless the mount has ended: a timer may be late.
func (l *loop) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.workers++
	go func() {
		defer l.end()
		w := &worker{l: l}
		w.relief = time.AfterFunc(time.Hour, l.relieve)
		defer w.relief.Stop()
		w.run()
	}()
}

// end comes after a worker. The last one ends because the mount has.
func (l *loop) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.workers--; l.workers == 0 {
		l.over = true
		close(l.ended)
	}
}

// relieve starts a worker if nobody waits for requests.
func (l *loop) relieve() {
	if l.idle.Load() == 0 {
		l.start()
	}
}

// run returns when somebody else waits for requests, or the mount is gone.
func (w *worker) run() {
	l := w.l
	for {
		if l.idle.Add(1) > 1 {
			if l.idle.Add(-1) > 0 {
				return
			}
			continue // the other has taken a request in this moment: somebody must wait
		}
		p := l.big.Get().(*[]byte)
		n, err := l.dev.read(*p)
		l.idle.Add(-1)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOENT): // ENOENT: it was interrupted meanwhile
			l.big.Put(p)
			continue
		default:
			if !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ECONNABORTED) {
				l.log.Error("the kernel's requests cannot be read any more", "error", err)
			}
			return
		}
		req := (*p)[:n]
		if isQuick(req) {
			w.relief.Reset(reliefAfter)
		} else {
			l.relieve()
		}
		if n <= smallMax {
			req = w.smallIn[:copy(w.smallIn[:], req)]
			l.big.Put(p)
			p = nil
		}
		// What cannot be written is of no use: the request was given up, or the
		// mount is gone, which the next read tells.
		_ = w.answer(req)
		w.relief.Stop()
		if p != nil {
			l.big.Put(p)
		}
	}
}

// answer handles one request.
func (w *worker) answer(req []byte) error {
	if len(req) < inHeaderSize {
		return unix.EIO
	}
	began := time.Now()
	w.in[0], w.out[0] = req, w.smallOut[:]
	if need := outRoom + payloadMax(req); need > smallMax {
		p := w.l.big.Get().(*[]byte)
		defer w.l.big.Put(p)
		w.out[0] = *p
	}
	n, status := w.l.proto.HandleRequest(w.in[:], w.out[:])
	if !status.Ok() { // it could not be understood; whoever asked still waits
		return w.l.dev.write(errorReply(req, uint32(status)))
	}
	if n == 0 {
		return nil // no reply: FORGET
	}
	reply := w.out[0][:n]
	err := w.l.dev.write(reply)
	if time.Since(began) > replyGap {
		w.l.late(req, reply)
	}
	return err
}

// isQuick tells whether a request is normally answered from this node's memory or
// page cache.
func isQuick(req []byte) bool {
	if len(req) < inHeaderSize {
		return true
	}
	switch opOf(req) {
	case wireLookup, wireForget, wireGetattr, wireReadlink, wireOpen, wireRead, wireWrite, wireStatfs, wireRelease,
		wireGetxattr, wireListxattr, wireReaddir, wireInterrupt, wireBatchForget, wireLseek, wireStatx:
		return true
	}
	return false
}

// errorReply answers req with an errno.
func errorReply(req []byte, errno uint32) []byte {
	p := make([]byte, outHeaderSize)
	binary.NativeEndian.PutUint32(p, outHeaderSize)
	binary.NativeEndian.PutUint32(p[4:], -errno)
	copy(p[8:], req[8:16]) // unique
	return p
}

// The numbers of the requests whose replies are of interest here, enum
// fuse_opcode in include/uapi/linux/fuse.h.
const (
	wireLookup      = 1
	wireForget      = 2
	wireGetattr     = 3
	wireSetattr     = 4
	wireReadlink    = 5
	wireSymlink     = 6
	wireMknod       = 8
	wireMkdir       = 9
	wireLink        = 13
	wireOpen        = 14
	wireRead        = 15
	wireWrite       = 16
	wireStatfs      = 17
	wireRelease     = 18
	wireGetxattr    = 22
	wireListxattr   = 23
	wireReaddir     = 28
	wireCreate      = 35
	wireInterrupt   = 36
	wireIoctl       = 39
	wireBatchForget = 42
	wireLseek       = 46
	wireTmpfile     = 51
	wireStatx       = 52
)

func opOf(req []byte) uint32        { return binary.NativeEndian.Uint32(req[4:]) }
func requestNode(req []byte) uint64 { return binary.NativeEndian.Uint64(req[16:]) }

// payloadMax is how many bytes the reply may have behind its fixed part.
func payloadMax(req []byte) int {
	at := 0
	switch opOf(req) {
	case wireRead, wireReaddir:
		at = inHeaderSize + 16 // struct fuse_read_in
	case wireGetxattr, wireListxattr:
		at = inHeaderSize // struct fuse_getxattr_in
	case wireIoctl:
		at = inHeaderSize + 28 // struct fuse_ioctl_in
	default:
		return fs.SymlinkMax
	}
	if len(req) < at+4 {
		return 0
	}
	return int(min(binary.NativeEndian.Uint32(req[at:]), bigSize-outRoom))
}

// nameAt is where the name is in a request that is answered with an entry.
var nameAt = map[uint32]int{
	wireLookup: inHeaderSize, wireSymlink: inHeaderSize, wireMknod: inHeaderSize + 16, wireMkdir: inHeaderSize + 8,
	wireLink: inHeaderSize + 8, wireCreate: inHeaderSize + 16,
}

// late takes back what a reply said may be kept. That counts from when the kernel
// got it, and was computed when the lease had longer to go; a process may be
// stopped for any time between the two.
func (l *loop) late(req, reply []byte) {
	name, ino := handedOut(req, reply)
	if name != "" || ino != 0 {
		l.cache.Late(fs.Ino(requestNode(req)), name, ino)
	}
}

// handedOut tells the name, and the inode with its attributes, that the kernel
// was told to keep for any time.
func handedOut(req, reply []byte) (name string, ino fs.Ino) {
	u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(reply[outHeaderSize+at:]) }
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(reply[outHeaderSize+at:]) }
	if binary.NativeEndian.Uint32(reply[4:]) != 0 {
		return "", 0 // an error: nothing is kept
	}
	switch op := opOf(req); op {
	case wireGetattr, wireSetattr, wireStatx:
		if u64(0) != 0 || u32(8) != 0 { // struct fuse_attr_out
			ino = fs.Ino(requestNode(req))
		}
	case wireLookup, wireSymlink, wireMknod, wireMkdir, wireLink, wireCreate, wireTmpfile:
		if u64(24) != 0 || u32(36) != 0 { // struct fuse_entry_out
			ino = fs.Ino(u64(0))
		}
		if at := nameAt[op]; at != 0 && at < len(req) && (u64(16) != 0 || u32(32) != 0) {
			name = cString(req[at:])
		}
	}
	return name, ino
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
