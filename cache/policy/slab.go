package policy

import (
	"encoding/binary"

	"github.com/wpfs/wpfs/fs"
)

// none is the index of no entry.
const none = ^uint32(0)

// list tells where an entry is.
type list uint8

const (
	free   list = iota // the entry is not in use
	small              // newcomers
	main               // what was used again
	pinned             // what may not be dropped
	lists
)

// entry is one chunk: 48 bytes.
type entry struct {
	hash       fs.Hash
	next, prev uint32 // towards the cold and the hot end
	used       uint32 // seconds of the clock at the last use that counted
	bits       uint32
}

// bits: size in 23 bits, list in 2, uses in 2, fresh in 2, victim, doubt
// and uncited in 1 each.
const (
	sizeMask   = 1<<23 - 1
	listShift  = 23
	usesShift  = 25
	freshShift = 27
	victimBit  = 1 << 29 // proposed by Victim, and neither used nor put since
	doubtBit   = 1 << 30 // restored from a file and not confirmed
	uncitedBit = 1 << 31 // put, and the metadata has not cited it since
	two        = 3       // two bits
	usesMax    = 3
	freshMax   = 2
)

func (e *entry) size() int64       { return int64(e.bits & sizeMask) }
func (e *entry) list() list        { return list(e.bits >> listShift & two) }
func (e *entry) uses() uint32      { return e.bits >> usesShift & two }
func (e *entry) fresh() uint32     { return e.bits >> freshShift & two }
func (e *entry) setList(l list)    { e.bits = e.bits&^(two<<listShift) | uint32(l)<<listShift }
func (e *entry) setUses(n uint32)  { e.bits = e.bits&^(two<<usesShift) | n<<usesShift }
func (e *entry) setFresh(n uint32) { e.bits = e.bits&^(two<<freshShift) | n<<freshShift }

// blockSize entries are allocated at a time: a slab that grows copies nothing.
const blockSize = 4096

// slab holds the entries and finds them by hash. Its table is open addressing
// with linear probing and backward-shift deletion (Knuth, TAOCP 3, 6.4, algorithm
// R); a hash is random already, so its first bytes are the slot.
type slab struct {
	blocks []*[blockSize]entry
	spare  uint32 // first of the free entries, linked by next; none
	count  int
	table  []uint32 // of entries; its length is a power of two
}

func newSlab() slab { return slab{spare: none, table: emptyTable(16)} }

func emptyTable(n int) []uint32 {
	t := make([]uint32, n)
	for i := range t {
		t[i] = none
	}
	return t
}

func (s *slab) at(i uint32) *entry { return &s.blocks[i/blockSize][i%blockSize] }

func (s *slab) home(h *fs.Hash) int {
	return int(binary.LittleEndian.Uint64(h[:8]) & uint64(len(s.table)-1))
}

// slot is where h is in the table, or where it belongs.
func (s *slab) slot(h *fs.Hash) (slot int, i uint32) {
	for slot = s.home(h); ; slot = (slot + 1) & (len(s.table) - 1) {
		i = s.table[slot]
		if i == none || s.at(i).hash == *h {
			return slot, i
		}
	}
}

func (s *slab) find(h fs.Hash) *entry {
	if _, i := s.slot(&h); i != none {
		return s.at(i)
	}
	return nil
}

// make returns the index of a new entry for h, which has none.
func (s *slab) make(h fs.Hash) uint32 {
	if 4*(s.count+1) > 3*len(s.table) {
		s.grow()
	}
	if s.spare == none {
		s.addBlock()
	}
	i := s.spare
	e := s.at(i)
	s.spare = e.next
	*e = entry{hash: h, next: none, prev: none}
	slot, _ := s.slot(&h)
	s.table[slot] = i
	s.count++
	return i
}

func (s *slab) addBlock() {
	first := uint32(len(s.blocks) * blockSize)
	s.blocks = append(s.blocks, new([blockSize]entry))
	for i := uint32(blockSize); i > 0; i-- {
		s.at(first + i - 1).next = s.spare
		s.spare = first + i - 1
	}
}

func (s *slab) grow() {
	old := s.table
	s.table = emptyTable(2 * len(old))
	for _, i := range old {
		if i != none {
			slot, _ := s.slot(&s.at(i).hash)
			s.table[slot] = i
		}
	}
}

// drop forgets the entry of h, which is in no list.
func (s *slab) drop(h fs.Hash) {
	gap, i := s.slot(&h)
	if i == none {
		return
	}
	e := s.at(i)
	*e = entry{next: s.spare}
	s.spare = i
	s.count--
	mask := len(s.table) - 1
	for slot := (gap + 1) & mask; s.table[slot] != none; slot = (slot + 1) & mask {
		home := s.home(&s.at(s.table[slot]).hash)
		// It may fill the gap unless its home lies between the gap and here.
		if (slot-home)&mask >= (slot-gap)&mask {
			s.table[gap] = s.table[slot]
			gap = slot
		}
	}
	s.table[gap] = none
}
