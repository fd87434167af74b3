package meta

import "github.com/wpfs/wpfs/fs"

// SessionWindow is how many results of one session are remembered: a session
// must not have a command in flight that is this far below its newest one.
const SessionWindow = 1024

// run applies one command exactly once (rule R19): a repetition gets the stored
// result and changes nothing.
func (t *tx) run(c fs.Command) (fs.Result, error) {
	if c.Session == 0 {
		return t.attempt(c)
	}
	s, ok, err := t.session(c.Session)
	if err != nil {
		return fs.Result{}, err
	}
	switch {
	case !ok || s.expired:
		return fs.Result{Index: t.at, Kind: fs.ErrStale}, nil
	case c.Seq == 0:
		return fs.Result{Index: t.at, Kind: fs.ErrInvalid}, nil
	case c.Seq < s.floor:
		return fs.Result{Index: t.at, Kind: fs.ErrStale}, nil
	}
	if r, ok, err := t.result(c.Session, c.Seq); err != nil || ok {
		return r, err
	}
	r, err := t.attempt(c)
	if err != nil {
		return r, err
	}
	return r, t.remember(c, r)
}

// remember stores a result and forgets those that the session has or can no
// longer ask for. The command itself may have ended its session.
func (t *tx) remember(c fs.Command, r fs.Result) error {
	s, _, err := t.session(c.Session)
	if err != nil || s.expired {
		return err
	}
	t.o.put(keyResult(c.Session, c.Seq), EncodeResult(r))
	floor := s.floor
	if low := min(c.LowWater, c.Seq); low > floor {
		floor = low
	}
	if c.Seq >= SessionWindow && c.Seq-SessionWindow+1 > floor {
		floor = c.Seq - SessionWindow + 1
	}
	if floor == s.floor {
		return nil
	}
	if err := t.forget(c.Session, s.floor, floor); err != nil {
		return err
	}
	s.floor = floor
	t.o.put(keySession(c.Session), s.encode())
	return nil
}

// forget deletes the results of sequence numbers in [from, to).
func (t *tx) forget(id fs.SessionID, from, to uint64) error {
	if to-from <= 4 { // the usual case: spare it the iterator
		for seq := from; seq < to; seq++ {
			k := keyResult(id, seq)
			_, ok, err := t.o.Get(k)
			if err != nil {
				return err
			}
			if ok {
				t.o.del(k)
			}
		}
		return nil
	}
	return t.deleteRange(keyResult(id, from), keyResult(id, to))
}

// deleteRange deletes every key in [lo, hi).
func (t *tx) deleteRange(lo, hi []byte) error {
	var keys [][]byte
	err := t.o.Scan(lo, hi, func(k, _ []byte) bool {
		keys = append(keys, append([]byte{}, k...))
		return true
	})
	for _, k := range keys {
		t.o.del(k)
	}
	return err
}

func (t *tx) openSession(o fs.OpenSession) error {
	if o.Session == 0 || o.Node == "" || len(o.Node) > NodeIDMax {
		return fs.ErrInvalid
	}
	s, ok, err := t.session(o.Session)
	switch {
	case err != nil:
		return err
	case ok && s.expired:
		return fs.ErrStale
	case ok && s.node != o.Node:
		return fs.ErrExist
	case ok:
		return nil
	}
	t.o.put(keySession(o.Session), sessionRecord{node: o.Node, opened: t.at, floor: 1}.encode())
	return nil
}

// expireSession leaves a record of each session's end, or a late OpenSession of
// a dead daemon would begin it anew.
func (t *tx) expireSession(o fs.ExpireSession) error {
	for _, id := range o.Sessions {
		s, ok, err := t.session(id)
		if err != nil {
			return err
		}
		if !ok || s.expired {
			continue
		}
		s.expired = true
		t.o.put(keySession(id), s.encode())
		prefix := key8(kindResult, uint64(id))
		if err := t.deleteRange(prefix, after(prefix)); err != nil {
			return err
		}
	}
	return nil
}
