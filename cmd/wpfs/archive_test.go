package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wpfs/wpfs/cluster/archive"
	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/faulty"
	"github.com/wpfs/wpfs/fs/object/mem"
)

var quiet = slog.New(slog.DiscardHandler)

// ownedBy is a bucket that a cluster confirmed so long ago.
func ownedBy(t *testing.T, founders string, ago time.Duration) object.Store {
	t.Helper()
	st := mem.New()
	o := archive.Owner{Cluster: "c1", Name: "shop", Epoch: 1, Node: "web1", Founders: founders, Time: time.Now().Add(-ago)}
	if err := archive.TakeOver(t.Context(), st, o, ""); err != nil {
		t.Fatal(err)
	}
	return st
}

func TestCheckOwner(t *testing.T) {
	trio := []Peer{{"web2", "10.0.0.2:7480"}, {"web1", "10.0.0.1:7480"}}
	const list = "web1=10.0.0.1:7480,web2=10.0.0.2:7480"
	broken := faulty.New(mem.New())
	broken.Inject(faulty.Fault{Kind: object.Unreachable})
	for _, row := range []struct {
		name     string
		st       object.Store
		identity string // of the data directory; "": empty
		peers    []Peer
		want     error
	}{
		{"nobody's bucket", mem.New(), "", trio, nil},
		{"the cluster's own node", ownedBy(t, list, time.Hour), `{"uuid": "c1"}`, trio, nil},
		{"a node that does not know its cluster yet", ownedBy(t, list, time.Hour), `{"uuid": ""}`, trio, nil},
		{"another cluster's node", ownedBy(t, list, time.Hour), `{"uuid": "c2"}`, trio, archive.ErrForeign},
		{"a founder that was late", ownedBy(t, list, time.Minute), "", trio, nil},
		{"founders again after all was lost", ownedBy(t, list, time.Hour), "", trio, archive.ErrForeign},
		{"other founders", ownedBy(t, "db1=10.0.0.9:7480", time.Second), "", trio, archive.ErrForeign},
		{"founders on a restored cluster's bucket", ownedBy(t, "", time.Second), "", trio, archive.ErrForeign},
		{"a single founder again", ownedBy(t, "web1=10.0.0.1:7480", time.Second), "", []Peer{{"web1", "10.0.0.1:7480"}}, archive.ErrForeign},
		{"a node that joins", ownedBy(t, list, time.Hour), "", nil, nil},
		{"no answer to a new node", broken, "", trio, object.Unreachable},
		{"no answer to an old node", broken, `{"uuid": "c1"}`, trio, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := defaultConfig()
			cfg.Node.DataDir, cfg.Cluster.Peers = t.TempDir(), row.peers
			if row.identity != "" {
				if err := os.WriteFile(filepath.Join(cfg.Node.DataDir, "identity.json"), []byte(row.identity), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := checkOwner(t.Context(), row.st, &cfg, quiet)
			if row.want == nil && err != nil || !errors.Is(err, row.want) {
				t.Errorf("%v, want %v", err, row.want)
			}
			if errors.Is(err, archive.ErrForeign) {
				if p := asProblem(err); codeOf(p) != CodeForeign || !strings.Contains(p.Error(), "wpfs restore --from-bucket") {
					t.Errorf("it says: %v", p)
				}
			}
		})
	}
}

func TestOwnedStore(t *testing.T) {
	st := mem.New()
	owner := archive.NewOwnership(archive.OwnershipOptions{Store: st, UUID: func() string { return "c1" }, Leads: func() bool { return true }})
	s := ownedStore{st, owner}
	try := func() error {
		err := s.Put(t.Context(), "k", []byte("x"), object.PutOptions{})
		if derr := s.Delete(t.Context(), "other"); (derr == nil) != (err == nil) {
			t.Errorf("Put: %v, Delete: %v", err, derr)
		}
		return err
	}
	if err := try(); object.ClassOf(err) != object.Again {
		t.Errorf("before it is known whose bucket it is: %v", err)
	}
	if err := owner.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := try(); err != nil {
		t.Errorf("the owner: %v", err)
	}
	_, version, err := archive.ReadOwner(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	if err := archive.TakeOver(t.Context(), st, archive.Owner{Cluster: "c2", Epoch: 2}, version); err != nil {
		t.Fatal(err)
	}
	if err := owner.Confirm(t.Context()); !errors.Is(err, archive.ErrForeign) {
		t.Fatal(err)
	}
	if err := try(); object.ClassOf(err) != object.Never || !errors.Is(err, archive.ErrForeign) {
		t.Errorf("after it was taken over: %v", err)
	}
	if b, err := s.Get(t.Context(), "k", 0, -1); err != nil || string(b) != "x" {
		t.Errorf("reading: %q, %v", b, err)
	}
}

// deaf ignores the conditions of puts.
type deaf struct{ object.Store }

func (d deaf) Put(ctx context.Context, key string, b []byte, _ object.PutOptions) error {
	return d.Store.Put(ctx, key, b, object.PutOptions{})
}

func TestDeafStoreIsRefused(t *testing.T) {
	for _, first := range []bool{true, false} {
		works, err := proveStore(t.Context(), deaf{mem.New()}, first, quiet)
		p := asProblem(err)
		if works || codeOf(p) != CodeObjectStore || !strings.Contains(p.Error(), "object.unsafe_no_conditional_writes") {
			t.Errorf("first start %t: works %t, %v", first, works, p)
		}
	}
}

func TestRestoreOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "wpfs.yaml")
	conf := `{"node": {"id": "web1", "data_dir": "/var/lib/wpfs"}, "cluster": {"name": "shop", "bind": "10.0.0.1:7480", "advertise": "10.0.0.1:7480"},
		"object": {"url": "file:///objects", "unsafe_no_conditional_writes": true}}`
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	good := restoreOptions{Bucket: "file:///o", DataDir: "/d", NodeID: "web1", Advertise: "10.0.0.1:7480", Output: outputText}
	for _, row := range []struct {
		name   string
		change func(o *restoreOptions)
		says   string // "": fine
	}{
		{"all flags", func(*restoreOptions) {}, ""},
		{"no bucket", func(o *restoreOptions) { o.Bucket = "" }, "--from-bucket"},
		{"bad bucket", func(o *restoreOptions) { o.Bucket = "ftp://x" }, "--from-bucket"},
		{"no directory", func(o *restoreOptions) { o.DataDir = "" }, "--data-dir"},
		{"bad name", func(o *restoreOptions) { o.NodeID = "a b" }, "--node-id"},
		{"no address", func(o *restoreOptions) { o.Advertise = "" }, "--advertise"},
		{"address without a host", func(o *restoreOptions) { o.Advertise = ":7480" }, "--advertise"},
		{"address of all", func(o *restoreOptions) { o.Advertise = "0.0.0.0:7480" }, "--advertise"},
		{"bad time", func(o *restoreOptions) { o.At = "yesterday" }, "--at"},
		{"index", func(o *restoreOptions) { o.At = "77" }, ""},
		{"time", func(o *restoreOptions) { o.At = "2026-11-25T14:30:00Z" }, ""},
		{"local time", func(o *restoreOptions) { o.At = "2026-11-25 14:30:00" }, ""},
		{"bad output", func(o *restoreOptions) { o.Output = "xml" }, "--output"},
		{"absent file", func(o *restoreOptions) { o.Config = file + "x" }, "--config"},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := good
			row.change(&o)
			err := o.complete()
			if (err != nil) != (row.says != "") || err != nil && !strings.Contains(err.Error(), row.says) {
				t.Errorf("%v, want %q", err, row.says)
			}
			if o.At != "" && err == nil && o.atIndex == 0 && o.atTime.IsZero() {
				t.Errorf("--at %s is lost", o.At)
			}
		})
	}
	o := restoreOptions{Config: file, NodeID: "web9", Output: outputText}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	if o.Bucket != "file:///objects" || o.DataDir != "/var/lib/wpfs" || o.NodeID != "web9" || o.Cluster != "shop" || o.Advertise != "10.0.0.1:7480" || !o.object.UnsafeNoConditionalWrites {
		t.Errorf("of the configuration: %+v", o)
	}
}

func TestRestoreWantsTheOldClusterDead(t *testing.T) {
	now := time.Now()
	for _, row := range []struct {
		age    time.Duration
		insist bool
		ok     bool
	}{
		{time.Second, false, false}, {archive.AliveFor - time.Second, false, false}, {archive.AliveFor, false, true},
		{-time.Hour, false, false}, {time.Second, true, true},
	} {
		err := checkDead(&archive.Backup{Alive: now.Add(-row.age)}, row.insist, now)
		if (err == nil) != row.ok || err != nil && codeOf(err) != CodeAlive {
			t.Errorf("last sign %v ago, insist %t: %v", row.age, row.insist, err)
		}
	}
}
