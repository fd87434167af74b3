package peer

import (
	"context"
	"errors"
	"net"
	"time"
)

const (
	classMessages = 0
	classCalls    = 1
)

// outbox sends the one-way messages for one peer. Its goroutine ends with the hub.
type outbox struct {
	hub    *Hub
	addr   string
	queue  chan frame
	urgent chan frame // leases and acknowledgements: never behind a burst of proposals
}

func (o *outbox) run(ctx context.Context) {
	var warned bool
	for ctx.Err() == nil {
		c, _, err := o.hub.connect(ctx, o.addr, classMessages)
		if err != nil {
			if errors.Is(err, ErrOtherCluster) || errors.Is(err, ErrVersion) {
				if !warned {
					o.hub.o.Logger.Error("cannot talk to a peer", "addr", o.addr, "err", err)
					warned = true
				}
			}
			o.drop(ctx)
			continue
		}
		warned = false
		o.pump(ctx, c)
		o.hub.untrack(c)
	}
}

// drop waits a moment and forgets what was queued meanwhile: after a pause old
// protocol messages are worth nothing, and what matters is repeated.
func (o *outbox) drop(ctx context.Context) {
	t := time.NewTimer(redialPause)
	defer t.Stop()
	for {
		select {
		case <-o.queue:
		case <-o.urgent:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// pump writes until the connection fails: everything queued goes out in one write.
func (o *outbox) pump(ctx context.Context, c net.Conn) {
	broken := make(chan struct{})
	go func() { // the peer sends nothing on this connection: a read returns when it is gone
		defer close(broken)
		var b [1]byte
		c.Read(b[:])
	}()
	defer func() { c.Close(); <-broken }()
	batch := make([]frame, 0, batchMax)
	for {
		select {
		case f := <-o.urgent:
			batch = append(batch[:0], f)
		case f := <-o.queue:
			batch = append(batch[:0], f)
		case <-broken:
			return
		case <-ctx.Done():
			return
		}
		batch = o.more(batch)
		if writeFrames(c, batch...) != nil {
			return
		}
	}
}

// One write takes at most so many messages, and stops taking large ones beyond
// so many bytes: an urgent one that comes next waits for no more than that.
const (
	batchMax   = 64
	batchBytes = 256 << 10
)

func (o *outbox) more(batch []frame) []frame {
	bytes := len(batch[0].body)
	for len(batch) < batchMax && bytes < batchBytes {
		var f frame
		select {
		case f = <-o.urgent:
		default:
			select {
			case f = <-o.queue:
			default:
				return batch
			}
		}
		batch, bytes = append(batch, f), bytes+len(f.body)
	}
	return batch
}
