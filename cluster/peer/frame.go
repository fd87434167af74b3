// Package peer is the conversation between nodes beside raft: one-way messages
// (leases, acknowledgements, proposals), which are delivered in order or lost
// with their connection, and calls, which are answered (chunks, joining,
// status).
//
// The nouns it adds are the [Hub], which holds one node's conversations, and
// the [Handler], which answers for it. Messages and calls travel on separate
// connections, so a chunk of 4 MiB never delays a lease. docs/format/peer.md
// has the bytes.
package peer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/wpfs/wpfs/fs"
)

// Method says what a message or call is about. Numbers never change.
type Method uint8

// Version of the conversation, sent in the hello.
const Version = 1

// frameMax bounds a frame: a chunk and its name, or a batch of proposals.
const frameMax = fs.ChunkMax + 64<<10

const (
	frameMessage = 0
	frameCall    = 1
	frameAnswer  = 2
	frameError   = 3
)

const frameHeader = 4 + 1 + 1 + 8 // length of the rest, type, method, id

type frame struct {
	kind   uint8
	method Method
	id     uint64
	body   []byte
}

// appendHeader encodes f without its body.
func (f frame) appendHeader(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(frameHeader-4+len(f.body)))
	b = append(b, f.kind, byte(f.method))
	return binary.BigEndian.AppendUint64(b, f.id)
}

func readFrame(r *bufio.Reader) (frame, error) {
	var h [frameHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return frame{}, err
	}
	n := int(binary.BigEndian.Uint32(h[:])) - (frameHeader - 4)
	if n < 0 || n > frameMax {
		return frame{}, fmt.Errorf("frame of %d bytes from a peer: outside 0..%d", n, frameMax)
	}
	f := frame{kind: h[4], method: Method(h[5]), id: binary.BigEndian.Uint64(h[6:]), body: make([]byte, n)}
	_, err := io.ReadFull(r, f.body)
	return f, err
}

// Identity is what a node says of itself when it connects.
type Identity struct {
	Cluster string // UUID; "" while the node does not know it yet
	Node    fs.NodeID
	Session fs.SessionID
}

const helloMagic = "wpfs"

// Errors of the hello. ErrOtherCluster means one of the two nodes was pointed
// at the wrong machines; the connection is refused and nothing is exchanged.
var (
	ErrOtherCluster = errors.New("the peer belongs to another cluster")
	ErrVersion      = errors.New("the peer speaks another version")
)

// appendHello encodes: magic, version, class, session, cluster, node.
func (id Identity) appendHello(b []byte, class uint8) []byte {
	b = append(b, helloMagic...)
	b = append(b, Version, class)
	b = binary.BigEndian.AppendUint64(b, uint64(id.Session))
	b = appendString(b, id.Cluster)
	return appendString(b, string(id.Node))
}

func appendString(b []byte, s string) []byte {
	b = append(b, byte(len(s)))
	return append(b, s...)
}

func readHello(r io.Reader) (id Identity, class uint8, err error) {
	var h [4 + 2 + 8]byte
	if _, err = io.ReadFull(r, h[:]); err != nil {
		return id, 0, err
	}
	if string(h[:4]) != helloMagic || h[4] != Version {
		return id, 0, fmt.Errorf("%w: magic %q version %d, want %q %d", ErrVersion, h[:4], h[4], helloMagic, Version)
	}
	id.Session = fs.SessionID(binary.BigEndian.Uint64(h[6:]))
	if id.Cluster, err = readString(r); err != nil {
		return id, 0, err
	}
	node, err := readString(r)
	id.Node = fs.NodeID(node)
	return id, h[5], err
}

func readString(r io.Reader) (string, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", err
	}
	b := make([]byte, n[0])
	_, err := io.ReadFull(r, b)
	return string(b), err
}

// admits decides whether a and b may talk: clusters must be equal where known.
func (id Identity) admits(other Identity) error {
	if id.Cluster != "" && other.Cluster != "" && id.Cluster != other.Cluster {
		return fmt.Errorf("%w: node %s is of cluster %s, this is %s", ErrOtherCluster, other.Node, other.Cluster, id.Cluster)
	}
	return nil
}

// encodeError and decodeError carry an error's kind and text to the caller.
func encodeError(err error) []byte { return append([]byte{byte(fs.KindOf(err))}, err.Error()...) }

func decodeError(b []byte) error {
	if len(b) == 0 {
		return fs.ErrIO
	}
	return &fs.Error{Op: "peer", Kind: fs.Kind(b[0]), Err: errors.New(string(b[1:]))}
}
