package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
)

func load(t *testing.T, file string, flags ...string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wpfs.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadConfig(flagsOf(t, append([]string{"--config", path}, flags...)...), nil)
}

func flagsOf(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	configFlags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs
}

// loadLBFile is what wpfs lb run makes of a file.
func loadLBFile(t *testing.T, path string) (Config, error) {
	return loadConfigFor(flagsOf(t, "--config", path), nil, (*Config).ValidateLB)
}

const goodFile = `
node: {id: web1, data_dir: /data}
cluster:
  bind: 10.0.0.1:7480
  replicas: 3
  peers:
    - {id: web1, addr: "10.0.0.1:7480"}
    - {id: web2, addr: "10.0.0.2:7480"}
cache: {reserve_bytes: 512MiB}
object: {url: "file:///objects"}
http: {pprof: true}
`

func TestConfigFromFile(t *testing.T) {
	got, err := load(t, goodFile)
	if err != nil {
		t.Fatal(err)
	}
	want := defaultConfig()
	want.Node.ID, want.Node.DataDir = "web1", "/data"
	want.Cluster.Bind, want.Cluster.Advertise, want.Cluster.Replicas = "10.0.0.1:7480", "10.0.0.1:7480", 3
	want.Cluster.Peers = []Peer{{"web1", "10.0.0.1:7480"}, {"web2", "10.0.0.2:7480"}}
	want.Cluster.Join = []string{}
	want.Cache.Dir, want.Cache.ReserveBytes = "/data/cache", 512<<20
	want.Object.URL, want.HTTP.Pprof = "file:///objects", true
	if got.Cluster.Join == nil {
		got.Cluster.Join = []string{}
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
}

// TestConfigPrecedence: a flag beats the environment, which beats the file,
// which beats the default, for each kind of value.
func TestConfigPrecedence(t *testing.T) {
	t.Setenv("WPFS_CLUSTER_REPLICAS", "4")
	t.Setenv("WPFS_LOG_LEVEL", "warn")
	t.Setenv("WPFS_HTTP_PPROF", "false")
	t.Setenv("WPFS_CACHE_RESERVE_BYTES", "1GiB")
	t.Setenv("WPFS_CLUSTER_PEERS", "web1=10.0.0.1:7480, web3=10.0.0.3:7480")
	got, err := load(t, goodFile, "--log-level", "debug", "--cluster-name=shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		what      string
		got, want any
	}{
		{"default", got.Node.Socket, defaultConfig().Node.Socket},
		{"file", got.Node.DataDir, "/data"},
		{"environment over file", got.Cluster.Replicas, 4},
		{"environment over file, false", got.HTTP.Pprof, false},
		{"environment over file, size", got.Cache.ReserveBytes, Bytes(1 << 30)},
		{"environment over file, list", got.Cluster.Peers, []Peer{{"web1", "10.0.0.1:7480"}, {"web3", "10.0.0.3:7480"}}},
		{"flag over environment", got.Log.Level, "debug"},
		{"flag over default", got.Cluster.Name, "shop"},
	} {
		if d := cmp.Diff(row.want, row.got); d != "" {
			t.Errorf("%s: %s", row.what, d)
		}
	}
}

func TestConfigJoinFromFlag(t *testing.T) {
	got, err := load(t, "object: {url: 'file:///o'}\nnode: {id: x}", "--cluster-join", "10.0.0.1:1,10.0.0.2:2")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"10.0.0.1:1", "10.0.0.2:2"}, got.Cluster.Join); d != "" {
		t.Error(d)
	}
}

func TestObjectURL(t *testing.T) {
	for name, row := range map[string]struct {
		url  string
		want string // part of the error; "": good
	}{
		"directory":     {"file:///var/objects", ""},
		"bucket":        {"s3://bucket/prefix?region=eu-central-1", ""},
		"own server":    {"s3://b?endpoint=http://127.0.0.1:7070&region=us-east-1&path_style=true", ""},
		"empty":         {"", "s3://BUCKET"},
		"relative":      {"file://objects", "file:///"},
		"misspelt":      {"s3://b?endpont=http://x", "endpont"},
		"bad endpoint":  {"s3://b?endpoint=127.0.0.1:7070", "endpoint"},
		"bad style":     {"s3://b?path_style=maybe", "path_style"},
		"credentials":   {"s3://k:s@b", "credentials"},
		"other service": {"gs://b", "s3://BUCKET"},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkObjectURL(row.url)
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("%q: %v, want %q", row.url, err, row.want)
			}
		})
	}
	_, o, err := parseObjectURL("s3://b?endpoint=http://h:1&path_style=false")
	if err != nil || !o.VirtualHost {
		t.Errorf("path_style=false: %+v, %v", o, err)
	}
}

func TestNearest(t *testing.T) {
	valid := []string{"node.data_dir", "node.id", "cluster.bind"}
	for got, want := range map[string]string{
		"node.data_dri": "node.data_dir", "node.datadir": "node.data_dir", "cluster.bnid": "cluster.bind",
		"node.i": "node.id", "entirely.different": "",
	} {
		if n := nearest(got, valid); n != want {
			t.Errorf("nearest to %q is %q, want %q", got, n, want)
		}
	}
}

func TestMountOptions(t *testing.T) {
	got, err := mountOptions([]string{"config=/etc/w.yaml,rw,_netdev", "cluster.peers=a=h:1,,b=h:2,x-systemd.automount"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"config": "/etc/w.yaml", "cluster.peers": "a=h:1,b=h:2"}, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"ro", "node.id", "nod.id=x", "sync"} {
		if _, err := mountOptions([]string{bad}); codeOf(err) != CodeUsage {
			t.Errorf("-o %s: %v", bad, err)
		}
	}
}
