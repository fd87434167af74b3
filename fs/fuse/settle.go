package fuse

import (
	"sync"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/fuse/kcache"
)

// settleTries bounds how often the kernel is asked before a call goes on with what
// the kernel has. Each try means that something came between.
const settleTries = 8

// settler makes the kernel take an inode's attributes anew, by asking for them as
// any user of the mount would. There is no notification that brings attributes;
// package kcache (unsettled) tells why they are needed.
type settler struct {
	cache *kcache.Cache
	spare func() // sees to it that somebody waits for requests
	asker *asker // nil: nobody can ask

	mu      sync.Mutex
	flights map[fs.Ino]chan struct{} // inodes that are being settled
}

// settle sees to it that the kernel goes on with attributes of ino that are not older
// than the request of thread pid that is being answered, and tells whether it has
// taken such. It blocks as long as a GETATTR takes, and while the kernel drops
// pages that do not go with a new size; nothing that a change waits for is held.
func (n *node) settle(ino fs.Ino, pid uint32) bool {
	s := n.settler
	if s.asker == nil || s.asker.mine(pid) {
		return false
	}
	s.spare() // somebody has to answer
	for range settleTries {
		landed, busy := s.take(ino)
		if busy {
			<-landed
			if s.cache.Unsettled(ino) == 0 {
				return false
			}
			continue
		}
		taken, err := s.once(ino)
		s.give(ino, landed)
		if taken {
			return true
		}
		if err != nil {
			break
		}
	}
	s.cache.GaveUp()
	return false
}

// once asks once. That the kernel has taken an answer which was asked for after this
// call began is enough for the caller; the inode is settled only if it was not told
// anything else since.
func (s *settler) once(ino fs.Ino) (taken bool, err error) {
	s.cache.AwaitPages(ino) // the answer would wait for them
	mark := s.cache.Unsettled(ino)
	if taken, err = s.asker.ask(ino, s.cache.Generation(ino)); taken && mark != 0 {
		s.cache.Settled(ino, mark)
	}
	return taken, err
}

// take begins a flight, or returns the one under way.
func (s *settler) take(ino fs.Ino) (landed chan struct{}, busy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[ino]; f != nil {
		return f, true
	}
	f := make(chan struct{})
	s.flights[ino] = f
	return f, false
}

func (s *settler) give(ino fs.Ino, f chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flights, ino)
	close(f)
}
