package seal

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// keySize is what AES-256 takes.
const keySize = 32

// Key is a secret of 32 random bytes.
type Key [keySize]byte

// ID names a key in what it has sealed. It tells nothing about the key.
type ID [8]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ID of the key.
func (k Key) ID() ID {
	h := sha256.New()
	h.Write([]byte("wpfs seal key id\x00"))
	h.Write(k[:])
	return ID(h.Sum(nil)[:8])
}

// Keys is what can be read; the first is what is written with. No keys: nothing is
// sealed.
type Keys []Key

func (ks Keys) find(id ID) (Key, bool) {
	for _, k := range ks {
		if k.ID() == id {
			return k, true
		}
	}
	return Key{}, false
}

// ParseKeys reads one key per line, 64 hex digits or base64 of 32 bytes, the one
// to write with first. Empty lines and those that start with # are skipped. Its
// errors name the line and never what is in it.
func ParseKeys(text []byte) (Keys, error) {
	var ks Keys
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		k, err := parseKey(string(line))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if _, twice := ks.find(k.ID()); twice {
			return nil, fmt.Errorf("line %d: the key is there twice", n)
		}
		ks = append(ks, k)
	}
	switch {
	case lines.Err() != nil:
		return nil, lines.Err()
	case len(ks) == 0:
		return nil, errors.New("there is no key in it; make one with: openssl rand -hex 32")
	}
	return ks, nil
}

func parseKey(s string) (k Key, err error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		b, err = base64.StdEncoding.DecodeString(s)
	}
	if err != nil || len(b) != keySize {
		return Key{}, errors.New("a key is 64 hex digits, or 32 bytes in base64")
	}
	k = Key(b)
	if k == (Key{}) {
		return Key{}, errors.New("a key of zeros is none")
	}
	return k, nil
}
