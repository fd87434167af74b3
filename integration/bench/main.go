// Command bench measures a cluster of three nodes on this machine beside a
// directory of the local file system, in turns, and beside a bare Raft commit.
// Every figure is a median over rounds; ratios are taken within a round, so
// that a busy minute falls on both sides.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/wpfs/wpfs/integration/bench/rawraft"
	"github.com/wpfs/wpfs/integration/testcluster"
	"github.com/wpfs/wpfs/integration/tree"
)

type options struct {
	dir        string
	rounds     int
	treeRounds int
	warmRounds int
	warmTime   time.Duration
	ops        int
	json       string
	only       string
}

func main() {
	rawraft.Main()
	testcluster.GuardMain()
	var o options
	flag.StringVar(&o.dir, "dir", "", "directory for everything, on the disk to measure (default: the system's for temporary files)")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each measure")
	flag.IntVar(&o.treeRounds, "tree-rounds", 2, "rounds of the measures that copy a whole tree")
	flag.IntVar(&o.warmRounds, "warm-rounds", 5, "rounds of the warm reads")
	flag.DurationVar(&o.warmTime, "warm-time", 300*time.Millisecond, "least time of each warm phase in one round; a lease lasts longer, so 3s shows what its renewal costs")
	flag.IntVar(&o.ops, "ops", 100, "operations of each kind in one round")
	flag.StringVar(&o.json, "json", "", "file for the figures as JSON")
	flag.StringVar(&o.only, "only", "", "parts to run, separated by commas: latency, tree, big, warm, inline (default: all)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	o       options
	book    *book
	session *testcluster.Session
	cluster *testcluster.Cluster
	site    site     // what source found
	local   target   // on the local file system
	nodes   []target // the leader's mount, then a follower's
	machine machine
}

// target is a directory to measure.
type target struct {
	name  string
	dir   string
	other string // the same directory seen from another node
	// The nodes of dir and other; nil for the local file system.
	node, otherNode *testcluster.Node
}

func run(ctx context.Context, o options) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("mounting needs root")
	}
	b := &bench{o: o, book: newBook()}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.open(); err != nil {
		return err
	}
	// A run that is interrupted or fails after an hour still shows what it has.
	return errors.Join(b.parts(ctx), b.report())
}

// parts runs those that were asked for.
func (b *bench) parts(ctx context.Context) error {
	parts := []struct {
		name string
		run  func(ctx context.Context) error
	}{{"latency", b.latency}, {"tree", b.tree}, {"big", b.big}, {"warm", b.warm}, {"inline", b.inline}}
	for _, p := range parts {
		if b.o.only != "" && !strings.Contains(","+b.o.only+",", ","+p.name+",") {
			continue
		}
		if err := p.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

func (b *bench) report() error {
	b.machine.finish(b.cluster)
	if err := report(os.Stdout, b.machine, b.book); err != nil {
		return err
	}
	if b.o.json == "" {
		return nil
	}
	return writeJSON(b.o.json, b.machine, b.book)
}

// open starts what is measured.
func (b *bench) open() error {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	module := filepath.Dir(strings.TrimSpace(string(out)))
	if b.session, err = testcluster.Open(testcluster.Options{Parent: b.o.dir, Module: module}); err != nil {
		return err
	}
	if b.machine, err = describe(b.session.Dir); err != nil {
		return err
	}
	if b.cluster, err = b.session.Start(testcluster.Config{}); err != nil {
		return err
	}
	// As deep as the directories on the mounts: each part of a path costs.
	b.local = target{name: "local", dir: filepath.Join(b.session.Dir, "c0", "dev", "local", "mnt", "bench")}
	b.local.other = b.local.dir
	if err := os.MkdirAll(b.local.dir, 0o755); err != nil {
		return err
	}
	return b.chooseNodes()
}

// chooseNodes finds the leader: an operation there saves the way to it.
func (b *bench) chooseNodes() error {
	leader, err := b.cluster.Leader()
	if err != nil {
		return err
	}
	var follower *testcluster.Node
	for _, n := range b.cluster.Nodes {
		if n != leader {
			follower = n
		}
	}
	b.nodes = []target{
		nodeTarget("leader", leader, follower),
		nodeTarget("follower", follower, leader),
	}
	return os.Mkdir(b.nodes[0].dir, 0o755)
}

func nodeTarget(name string, n, other *testcluster.Node) target {
	return target{name: name, dir: filepath.Join(n.Mount, "bench"), other: filepath.Join(other.Mount, "bench"), node: n, otherNode: other}
}

// targets are all directories to measure, the local one first.
func (b *bench) targets() []target { return append([]target{b.local}, b.nodes...) }

// source provides the tree, once for all parts, and says what it is.
func (b *bench) source(ctx context.Context) (site, error) {
	if b.site.root != "" {
		return b.site, nil
	}
	p, err := b.session.NewPlace()
	if err != nil {
		return site{}, err
	}
	root, note, err := tree.Source(ctx, p.Dir)
	if err != nil {
		return site{}, err
	}
	es, err := tree.Scan(root)
	if err != nil {
		return site{}, err
	}
	files, dirs, _, bytes := tree.Count(es)
	b.machine.Tree = fmt.Sprintf("%s: %d files, %d directories, %d MiB", note, files, dirs, bytes>>20)
	b.site = siteOf(root, es)
	return b.site, nil
}

func (b *bench) close() error {
	var errs []error
	if b.cluster != nil {
		errs = append(errs, b.cluster.Close())
	}
	if b.session != nil {
		errs = append(errs, b.session.Close())
	}
	return errors.Join(errs...)
}
