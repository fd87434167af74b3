package protocol

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wpfs/wpfs/fs"
)

// samples are messages whose encodings are in testdata, one line each.
func samples() []Message {
	id := ID{Node: "web-1", Session: 0x0123456789abcdef}
	return []Message{
		{Kind: LeaseReq, From: id, To: "web-2", Term: 7, ID: 300, Index: 1 << 40, Stable: 5, Lease: 3 * time.Second, Fast: time.Hour, Slow: 2},
		{Kind: RoundAck, From: id, To: "web-2", Term: 7, ID: 1, VoterTerm: 8, Conf: 1, Age: 1500 * time.Millisecond},
		{Kind: Deny, Why: WhyLag, From: id, To: "web-2", ToSession: 9, Wait: time.Second},
		{Kind: Stable, Again: true, From: id, To: "web-2", Term: math.MaxUint64, Stable: math.MaxUint64},
		{Kind: Pong},
	}
}

// TestOldEncodings: bytes that some version has sent are understood for ever,
// and version 1 still writes them.
func TestOldEncodings(t *testing.T) {
	file, err := os.ReadFile("testdata/message-v1.hex")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(file))
	for i, want := range samples() {
		got, err := want.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if i >= len(lines) || hex.EncodeToString(got) != lines[i] {
			t.Errorf("message %d is encoded as\n%x", i, got)
			continue
		}
		var m Message
		if err := m.UnmarshalBinary(got); err != nil || m != want {
			t.Errorf("message %d is decoded as %+v, %v", i, m, err)
		}
	}
}

func TestMalformedMessages(t *testing.T) {
	good, err := samples()[0].MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	change := func(i int, b byte) []byte {
		c := bytes.Clone(good)
		c[i] = b
		return c
	}
	cases := []struct {
		name string
		b    []byte
	}{
		{"empty", nil},
		{"a newer version", change(0, messageVersion+1)},
		{"kind 0", change(1, 0)},
		{"an unknown kind", change(1, byte(Pong)+1)},
		{"an unknown reason", change(2, byte(WhyConfig)+1)},
		{"an unknown flag", change(3, 2)},
		{"cut off", good[:len(good)-1]},
		{"a byte too many", append(bytes.Clone(good), 0)},
		{"a padded number", append(bytes.Clone(good[:len(good)-1]), 0x82, 0)},
		{"a negative duration", append(bytes.Clone(good[:len(good)-1]), bytes.Repeat([]byte{0xff}, 9)[0], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := Message{ID: 42}
			if err := m.UnmarshalBinary(c.b); !errors.Is(err, ErrMessage) {
				t.Errorf("error is %v", err)
			}
			if m != (Message{ID: 42}) {
				t.Errorf("message was changed to %+v", m)
			}
		})
	}
	for name, m := range map[string]Message{
		"a long name":         {Kind: Pong, To: fs.NodeID(strings.Repeat("n", 256))},
		"a negative duration": {Kind: Pong, Age: -1},
	} {
		if _, err := m.MarshalBinary(); err == nil {
			t.Errorf("%s was encoded", name)
		}
	}
}

// FuzzMessage: decoding never panics, and what it accepts is the one encoding
// of what it returns.
func FuzzMessage(f *testing.F) {
	for _, m := range samples() {
		b, err := m.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		if m.UnmarshalBinary(b) != nil {
			return
		}
		again, err := m.MarshalBinary()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is decoded as %+v and encoded as %x, %v", b, m, again, err)
		}
	})
}
