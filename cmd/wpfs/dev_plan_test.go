package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func fitted(t *testing.T, dir string, n int, s3 string) devPlan {
	t.Helper()
	p, err := loadPlan(dir)
	if err == nil {
		err = p.fit(dir, n, s3)
	}
	if err == nil {
		err = p.save(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlanKeepsItsNodes(t *testing.T) {
	dir := t.TempDir()
	first := fitted(t, dir, 0, "")
	if len(first.Nodes) != devNodesDefault {
		t.Fatalf("%d nodes by default", len(first.Nodes))
	}
	if d := cmp.Diff(first, fitted(t, dir, 0, "")); d != "" {
		t.Errorf("the second start differs: %s", d)
	}
	more := fitted(t, dir, 4, "")
	if d := cmp.Diff(first.Nodes, more.Nodes[:3]); d != "" {
		t.Errorf("adding a node changed the others: %s", d)
	}
	for i, n := range more.Nodes {
		if n.Founder != (i < 3) {
			t.Errorf("%s: founder %v", n.ID, n.Founder)
		}
	}
	for _, row := range []struct {
		nodes int
		s3    string
	}{{3, ""}, {devNodesMax + 1, ""}, {0, "s3://b"}} {
		p, _ := loadPlan(dir)
		if err := p.fit(dir, row.nodes, row.s3); codeOf(err) != CodeUsage {
			t.Errorf("--nodes %d --s3 %q: %v", row.nodes, row.s3, err)
		}
	}
}

// TestPlanConfigIsValid: what wpfs dev writes is what wpfs agent accepts.
func TestPlanConfigIsValid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `odd "name" # here`)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fitted(t, dir, 3, "")
	p := fitted(t, dir, 4, "")
	for i, n := range p.Nodes {
		b, err := p.config(dir, n)
		if err != nil {
			t.Fatal(err)
		}
		c, err := load(t, string(b))
		if err != nil {
			t.Fatalf("%s: %v", n.ID, err)
		}
		if c.Node.ID != n.ID || c.Mount.Path != nodeMount(dir, n) || c.Cluster.Bind != n.Bind {
			t.Errorf("%s: %+v", n.ID, c)
		}
		if joins := len(c.Cluster.Join) > 0; joins != (i == 3) || joins == (len(c.Cluster.Peers) > 0) {
			t.Errorf("%s: peers %v, join %v", n.ID, c.Cluster.Peers, c.Cluster.Join)
		}
	}
}

// TestPlanConfigWithSet: values of --set reach every node's file, over dev's own
// choices too, and are not kept for the next run.
func TestPlanConfigWithSet(t *testing.T) {
	dir := t.TempDir()
	p := fitted(t, dir, 3, "")
	var err error
	p.Set, err = parseSet([]string{"cluster.on_lease_lost=stale", "cluster.on_lease_lost=fail", "mount.debug_no_epoch=true",
		"cluster.replicas=3", "cache.reserve_bytes=1MiB", "log.level=debug", "http.pprof=false"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.checkSet(dir), p.save(dir)); err != nil {
		t.Fatal(err)
	}
	for _, n := range p.Nodes {
		b, err := p.config(dir, n)
		if err != nil {
			t.Fatal(err)
		}
		c, err := load(t, string(b))
		if err != nil {
			t.Fatalf("%s: %v", n.ID, err)
		}
		if c.Cluster.OnLeaseLost != leaseLostFail || !c.Mount.DebugNoEpoch || c.Cluster.Replicas != 3 || c.Cache.ReserveBytes != 1<<20 ||
			c.Log.Level != "debug" || c.HTTP.Pprof || c.Mount.Path != nodeMount(dir, n) || c.Cluster.Profile != profileOneMachine {
			t.Errorf("%s: %+v", n.ID, c)
		}
	}
	if again := fitted(t, dir, 3, ""); len(again.Set) != 0 {
		t.Errorf("the next run has %v", again.Set)
	}
}

// TestSetRefusesWhatDevDecides: a key that the files of two nodes must not share
// is refused. A key that dev will write one day falls under this test.
func TestSetRefusesWhatDevDecides(t *testing.T) {
	dir := t.TempDir()
	p := fitted(t, dir, 2, "")
	var files [2]map[string]map[string]any
	for i := range files {
		b, err := p.config(dir, p.Nodes[i])
		if err == nil {
			err = json.Unmarshal(b, &files[i])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	found := 0
	for section, keys := range files[0] {
		for key, val := range keys {
			if cmp.Equal(val, files[1][section][key]) {
				continue
			}
			found++
			if _, err := parseSet([]string{section + "." + key + "=x"}); codeOf(err) != CodeConfig {
				t.Errorf("--set %s.%s=x: %v", section, key, err)
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d keys differ between two nodes", found)
	}
	for _, key := range devDecides {
		if _, err := parseSet([]string{key + "=x"}); codeOf(err) != CodeConfig || !strings.Contains(err.Error(), "decides") {
			t.Errorf("--set %s=x: %v", key, err)
		}
	}
}

func TestPlanOfAnotherTime(t *testing.T) {
	for name, row := range map[string]struct {
		file string
		want Code
	}{
		"newer":   {`{"version": 2}`, CodeDataDir},
		"damaged": {`{"version": 1`, CodeCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, devPlanFile)
			if err := os.WriteFile(path, []byte(row.file), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := loadPlan(dir); codeOf(err) != row.want {
				t.Errorf("%v", err)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != row.file {
				t.Errorf("the plan was changed: %q, %v", b, err)
			}
		})
	}
}

func TestDevDirInUse(t *testing.T) {
	dir, unlock, err := openDevDir(filepath.Join(t.TempDir(), "new", "one"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := openDevDir(dir); codeOf(err) != CodeBusy {
		t.Errorf("a second wpfs dev on the directory: %v", err)
	}
	unlock()
	if _, unlock, err := openDevDir(dir); err != nil {
		t.Errorf("after the first has ended: %v", err)
	} else {
		unlock()
	}
}

// TestAgentEnv: what configures wpfs must not reach the agents of wpfs dev, what
// S3 needs must.
func TestAgentEnv(t *testing.T) {
	got := agentEnv([]string{"PATH=/bin", "WPFS_NODE_ID=x", "WPFS_CLUSTER_BNID=y", "NOTIFY_SOCKET=/n", "AWS_ACCESS_KEY_ID=k", "WPFS_IT_TOKEN=t"})
	if d := cmp.Diff([]string{"PATH=/bin", "AWS_ACCESS_KEY_ID=k", "WPFS_IT_TOKEN=t"}, got); d != "" {
		t.Error(d)
	}
}

func TestDevJSONFields(t *testing.T) {
	d := &devCluster{dir: t.TempDir(), ready: true}
	d.plan = fitted(t, d.dir, 1, "s3://b/p?region=r")
	d.agents = []*devAgent{newDevAgent(d.plan.Nodes[0], d.dir, nil, nil, nil)}
	if err := d.writeJSON(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(d.dir, devJSONFile))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Nodes  []map[string]any
		Object map[string]string
	}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	n := got.Nodes[0]
	if n["id"] != "node1" || n["mount"] != filepath.Join(d.dir, "node1", "mnt") || n["socket"] != filepath.Join(d.dir, "node1", "admin.sock") ||
		n["pid"] != 0.0 || !strings.HasPrefix(n["http"].(string), "http://127.0.0.1:") || got.Object["url"] != "s3://b/p?region=r" {
		t.Errorf("dev.json is %s", b)
	}
}

// TestPlanWithLB: the balancer joins the cluster, its file is what wpfs agent
// accepts, the nodes tell it of their web servers, and it stays in the plan.
func TestPlanWithLB(t *testing.T) {
	dir := t.TempDir()
	p := fitted(t, dir, 2, "")
	if err := errors.Join(p.fitLB(), p.save(dir)); err != nil {
		t.Fatal(err)
	}
	p = fitted(t, dir, 3, "") // a node more, and nobody says --lb
	var err error
	if p.Set, err = parseSet([]string{"lb.health_path=/x", "log.level=debug"}); err != nil {
		t.Fatal(err)
	}
	if err := p.checkSet(dir); err != nil {
		t.Fatal(err)
	}
	b, err := p.lbConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := load(t, string(b))
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.ID != devLBID || c.Mount.Path != "" || len(c.Cluster.Join) != 2 || c.LB.Listen[0] != p.LB.Listen || c.LB.HealthPath != "/x" || c.Log.Level != "debug" {
		t.Errorf("%+v", c)
	}
	webs := map[string]bool{}
	for _, n := range p.Nodes {
		b, err := p.config(dir, n)
		if err != nil {
			t.Fatal(err)
		}
		c, err := load(t, string(b))
		if err != nil {
			t.Fatal(err)
		}
		if c.Web.Addr == "" || c.Web.Addr != n.Web || c.LB.enabled() || c.LB.HealthPath != "" {
			t.Errorf("%s: %+v %+v", n.ID, c.Web, c.LB)
		}
		webs[n.Web] = true
	}
	if len(webs) != 3 {
		t.Errorf("the web servers' addresses are %v", webs)
	}
}

// TestMakeCert: made once, and anew when it runs out.
func TestMakeCert(t *testing.T) {
	cert, key := filepath.Join(t.TempDir(), "lb", "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	read := func() string {
		t.Helper()
		if err := makeCert(cert, key); err != nil {
			t.Fatal(err)
		}
		if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(cert)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := read()
	if read() != first {
		t.Error("a good certificate was made anew")
	}
	if err := os.WriteFile(cert, []byte("broken"), 0o644); err != nil {
		t.Fatal(err)
	}
	if read() == first {
		t.Error("a broken certificate stays")
	}
}
