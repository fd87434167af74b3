package rawraft

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// Environment of a child.
const (
	envDir  = "RAWRAFT_DIR"
	envAddr = "RAWRAFT_ADDR"
	envPeer = "RAWRAFT_PEER"
)

// The settings of the cluster package, as DESIGN and the raft measurements
// decided them.
const (
	heartbeat   = 250 * time.Millisecond
	leaderLease = 125 * time.Millisecond
	logCache    = 4096
	maxAppend   = 64
)

// Main serves as a raft process and ends it if it was started as one, and
// returns at once if not.
func Main() {
	dir := os.Getenv(envDir)
	if dir == "" {
		return
	}
	if err := serve(dir, os.Getenv(envAddr), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "rawraft:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// nothing is a state machine without state.
type nothing struct{}

func (nothing) Apply(*raft.Log) any { return nil }

func (nothing) ApplyBatch(logs []*raft.Log) []any { return make([]any, len(logs)) }

func (nothing) Snapshot() (raft.FSMSnapshot, error) {
	return nil, errors.New("rawraft makes no snapshots")
}

func (nothing) Restore(io.ReadCloser) error { return nil }

func serve(dir, addr string, in io.Reader, out io.Writer) error {
	r, closeAll, err := open(dir, addr)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	enc, dec := gob.NewEncoder(w), gob.NewDecoder(bufio.NewReader(in))
	for {
		var q ask
		if err := dec.Decode(&q); errors.Is(err, io.EOF) {
			return closeAll()
		} else if err != nil {
			return err
		}
		a := answer{Leader: r.State() == raft.Leader}
		if q.What == askMeasure {
			took, err := measure(r, q)
			a.Took = took
			if err != nil {
				a.Err = err.Error()
			}
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
}

func open(dir, addr string) (*raft.Raft, func() error, error) {
	store, err := wal.Open(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("open log: %w", err)
	}
	cached, err := raft.NewLogCache(logCache, store)
	if err != nil {
		return nil, nil, err
	}
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	// Raft's own log has nothing for a measurement: failures come back as errors,
	// and the others' end is no failure.
	quiet := hclog.NewNullLogger()
	trans, err := raft.NewTCPTransportWithLogger(addr, tcp, 4, 10*time.Second, quiet)
	if err != nil {
		return nil, nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(addr)
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = heartbeat, heartbeat, leaderLease
	conf.BatchApplyCh, conf.MaxAppendEntries = true, maxAppend
	conf.Logger = quiet
	r, err := raft.NewRaft(conf, nothing{}, cached, store, raft.NewDiscardSnapshotStore(), trans)
	if err != nil {
		return nil, nil, err
	}
	var servers []raft.Server
	for i := 0; ; i++ {
		p := os.Getenv(fmt.Sprintf("%s%d", envPeer, i))
		if p == "" {
			break
		}
		servers = append(servers, raft.Server{ID: raft.ServerID(p), Address: raft.ServerAddress(p)})
	}
	// Every node starts with the same list, so no join is needed.
	if err := r.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		return nil, nil, fmt.Errorf("bootstrap: %w", err)
	}
	return r, func() error {
		return errors.Join(r.Shutdown().Error(), trans.Close(), store.Close())
	}, nil
}

func measure(r *raft.Raft, q ask) ([]time.Duration, error) {
	entry := make([]byte, q.Size)
	took := make([]time.Duration, 0, q.Count)
	for range q.Count {
		start := time.Now()
		if err := r.Apply(entry, 10*time.Second).Error(); err != nil {
			return took, fmt.Errorf("commit: %w", err)
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}
