package cluster

import (
	"context"

	"github.com/wpfs/wpfs/fs/meta"
)

// batcher turns commands into log entries while this node leads. It never waits
// for more to come: what arrives while raft is busy with the entries before
// goes into the next entry together, so batches grow exactly with the load.
type batcher struct {
	in    chan []byte
	apply func(entry []byte) // blocks while raft's queue is full, not for the commit
}

// batchQueue bounds the commands waiting to become an entry; more are refused
// and sent again by their nodes.
const batchQueue = 8192

func newBatcher(apply func([]byte)) *batcher {
	return &batcher{in: make(chan []byte, batchQueue), apply: apply}
}

// submit queues an encoded command; false if the queue is full.
func (b *batcher) submit(command []byte) bool {
	select {
	case b.in <- command:
		return true
	default:
		return false
	}
}

func (b *batcher) run(ctx context.Context) {
	var batch [][]byte
	var next []byte // taken from the queue, but it would have made the entry too large
	for {
		batch = batch[:0]
		if next == nil {
			select {
			case next = <-b.in:
			case <-ctx.Done():
				return
			}
		}
		batch, next = append(batch, next), nil
		for size := len(batch[0]); len(batch) < proposeOps && next == nil; {
			select {
			case c := <-b.in:
				if size += len(c); size > proposeBytes {
					next = c
				} else {
					batch = append(batch, c)
				}
				continue
			default:
			}
			break
		}
		// If this node leads no more the entry is lost: the commands' nodes send
		// them again, to whoever leads then.
		b.apply(meta.EncodeBatch(batch))
	}
}
