package cluster

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/wpfs/wpfs/fs"
	"github.com/wpfs/wpfs/fs/meta"
)

const (
	sessionEvery = 100 * time.Millisecond // between two looks at whether the session stands yet
	sessionCheck = time.Second            // and at whether it still does
	sessionTries = 100                    // to register one number, before another is drawn
)

// keepSession registers this run of the daemon, and registers anew when the
// session was ended because the node had been silent for too long (rule R25).
// What the mount had open stays open; a file that was unlinked elsewhere and
// reclaimed meanwhile answers ESTALE.
func (n *Node) keepSession(ctx context.Context) {
	session := n.self.Session
	registered := false
	asked := 0
	for {
		var known bool
		n.store.use(func(s *meta.State) { _, known = s.Session(session) })
		switch {
		case known && !registered:
			registered, asked = true, 0
			n.propose.registered(session)
		case !known && registered:
			n.log.Warn("this node's session was ended: it had not been heard of for too long; registering anew")
			n.propose.unregistered()
			registered, session = false, newSession()
			fallthrough
		case !known:
			if l := n.leader(); l.id != "" {
				if asked++; asked > sessionTries { // it may have been ended before this node saw it begin
					asked, session = 0, newSession()
				}
				n.sendProposals(l.id, [][]byte{meta.EncodeCommand(fs.Command{
					Now: fs.TimeOf(time.Now()), Op: fs.OpenSession{Session: session, Node: n.o.ID},
				})})
			}
		}
		pause := sessionEvery
		if registered {
			pause = sessionCheck
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// newSession draws a session number; it is never 0.
func newSession() fs.SessionID { return fs.SessionID(rand.Uint64()>>1 + 1) }
