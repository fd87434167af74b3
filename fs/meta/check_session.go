package meta

import (
	"fmt"

	"github.com/wpfs/wpfs/fs"
)

func (c *checker) checkSessions() {
	c.each(kindSession, func(k, v []byte) {
		where := fmt.Sprintf("session %d", keyTail(k))
		r, err := decodeSession(v)
		switch {
		case err != nil:
			c.report(where, "%v", err)
		case r.node == "" || len(r.node) > NodeIDMax || keyTail(k) == 0:
			c.report(where, "belongs to node %q", r.node)
		case r.opened > c.applied || r.floor == 0:
			c.report(where, "opened at %d, window from %d", r.opened, r.floor)
		}
	})
}

func (c *checker) checkResults() {
	c.each(kindResult, func(k, v []byte) {
		id, seq := fs.SessionID(keyHead(k)), keyTail(k)
		where := fmt.Sprintf("result %d of session %d", seq, id)
		r, err := DecodeResult(v)
		if err != nil || r.Index > c.applied {
			c.report(where, "decided at %d (%v)", r.Index, err)
		}
		s, ok, err := c.session(id)
		if err != nil || !ok || s.expired {
			c.report(where, "the session is missing or ended (%v)", err)
			return
		}
		if seq < s.floor || seq-s.floor >= SessionWindow {
			c.report(where, "outside the window from %d", s.floor)
		}
	})
}
