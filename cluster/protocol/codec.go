package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// messageVersion is the first byte of an encoded message.
const messageVersion = 1

const flagAgain = 1

// ErrMessage is in every error of UnmarshalBinary.
var ErrMessage = errors.New("malformed protocol message")

// MarshalBinary encodes the message (docs/protocol.md has the picture). It fails
// only for a node name longer than 255 bytes and for a negative duration.
func (m Message) MarshalBinary() ([]byte, error) { return m.AppendBinary(nil) }

// AppendBinary appends the encoded message to b.
func (m Message) AppendBinary(b []byte) ([]byte, error) {
	if len(m.From.Node) > 255 || len(m.To) > 255 {
		return nil, fmt.Errorf("encode protocol message: node name longer than 255 bytes")
	}
	for _, d := range m.durations() {
		if *d < 0 {
			return nil, fmt.Errorf("encode protocol message: negative duration %v", *d)
		}
	}
	var flags byte
	if m.Again {
		flags = flagAgain
	}
	b = append(b, messageVersion, byte(m.Kind), byte(m.Why), flags)
	b = append(append(b, byte(len(m.From.Node))), m.From.Node...)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.From.Session))
	b = append(append(b, byte(len(m.To))), m.To...)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.ToSession))
	for _, n := range m.numbers() {
		b = binary.AppendUvarint(b, *n)
	}
	for _, d := range m.durations() {
		b = binary.AppendUvarint(b, uint64(*d))
	}
	return b, nil
}

// numbers and durations are the variable-length fields in the order of the
// encoding. A new field needs a new messageVersion.
func (m *Message) numbers() [6]*uint64 {
	return [...]*uint64{&m.Term, &m.ID, (*uint64)(&m.Index), (*uint64)(&m.Stable), (*uint64)(&m.Conf), &m.VoterTerm}
}

func (m *Message) durations() [5]*time.Duration {
	return [...]*time.Duration{&m.Lease, &m.Wait, &m.Age, &m.Fast, &m.Slow}
}

// UnmarshalBinary decodes exactly one message; b is not kept. After an error m
// is unchanged. Every message has one encoding: padded numbers are refused.
func (m *Message) UnmarshalBinary(b []byte) error {
	d := decoder{b: b}
	if v := d.byte(); d.err == nil && v != messageVersion {
		return fmt.Errorf("decode %w: version %d, this node knows %d", ErrMessage, v, messageVersion)
	}
	var n Message
	n.Kind, n.Why = Kind(d.byte()), Why(d.byte())
	flags := d.byte()
	n.Again = flags&flagAgain != 0
	n.From.Node = fs.NodeID(d.text())
	n.From.Session = fs.SessionID(d.fixed())
	n.To = fs.NodeID(d.text())
	n.ToSession = fs.SessionID(d.fixed())
	for _, p := range n.numbers() {
		*p = d.uvarint()
	}
	for _, p := range n.durations() {
		*p = time.Duration(d.uvarint())
		if *p < 0 {
			d.fail("a duration is out of range")
		}
	}
	switch {
	case d.err != nil:
	case n.Kind < LeaseReq || n.Kind > Pong:
		d.fail(fmt.Sprintf("kind %d is unknown", n.Kind))
	case n.Why > WhyConfig:
		d.fail(fmt.Sprintf("reason %d is unknown", n.Why))
	case flags&^flagAgain != 0:
		d.fail(fmt.Sprintf("flags %#x are unknown", flags))
	case len(d.b) != 0:
		d.fail(fmt.Sprintf("%d bytes too many", len(d.b)))
	}
	if d.err != nil {
		return d.err
	}
	*m = n
	return nil
}

// decoder takes fields off b; after the first error it yields zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(why string) {
	if d.err == nil {
		d.err = fmt.Errorf("decode %w: %s", ErrMessage, why)
	}
	d.b = nil
}

func (d *decoder) take(n int) []byte {
	if len(d.b) < n {
		d.fail("it ends too early")
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) byte() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) text() string { return string(d.take(int(d.byte()))) }

func (d *decoder) fixed() uint64 {
	if p := d.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n > 1 && d.b[n-1] == 0 {
		d.fail("a number is cut off, too long or padded")
		return 0
	}
	d.b = d.b[n:]
	return v
}
