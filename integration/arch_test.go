package integration

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/wpfs/wpfs"

// layer is a package (or, with a trailing "/", all packages below a path) and
// what it may import of ours.
type layer struct {
	pkg string
	may []string
	why string // why not more
}

// layers is the import rule: arrows point down only, equals never see each
// other. A package matches its longest prefix. What is not listed fails: a new
// package states its place here.
var layers = []layer{
	{"fs", nil, "the nouns and interfaces in the middle: everything hangs off it, it hangs off nothing"},
	{"fs/meta", []string{"fs"}, "the state machine is pure; it must not learn who orders or serves it"},
	{"fs/meta/", []string{"fs", "fs/meta"}, "toy models are compared with the state machine"},
	{"fs/vfs", []string{"fs"}, "the file system without a kernel and without a cluster: it is tested with both faked"},
	{"fs/vfs/", []string{"fs", "fs/vfs"}, "helpers of vfs and its tests"},
	{"fs/fuse", []string{"fs", "fs/vfs", "fs/fuse/"}, "translates requests; what they mean is vfs's"},
	{"fs/fuse/kcache", []string{"fs"}, "what the kernel keeps, without a kernel: it is tested with a faked one"},
	{"fs/fuse/", []string{"fs", "fs/vfs", "fs/fuse"}, "helpers of fuse and its tests"},
	{"fs/object", nil, "the bucket interface knows nothing of files"},
	{"fs/object/", []string{"fs/object"}, "a driver or a wrapper knows the interface, never another driver"},
	{"fs/bulk", []string{"fs/object"}, "copies what any program can see: it knows a directory and plain objects, nothing of how wpfs keeps either"},
	{"cache", []string{"fs", "fs/object", "cache/pack", "cache/policy"}, "peers reach it through an interface of its own"},
	{"cache/pack", []string{"fs", "fs/object"}, "the format of content in the bucket is read without a cache, too"},
	{"cache/policy", []string{"fs"}, "names, sizes and order: it touches no file and knows no cluster"},
	{"cache/", []string{"fs", "fs/object", "cache"}, "helpers of cache and its tests"},
	{"cluster/wire", nil, "bytes on one port; it does not know what they say"},
	{"cluster/member", nil, "who seems alive; decides nothing"},
	{"cluster/protocol", []string{"fs", "cluster/protocol/"}, "the consistency core has no I/O, clock or goroutine: the simulator drives it alone"},
	{"cluster/protocol/", []string{"fs", "cluster/protocol", "cluster/protocol/"}, "simulator and mutants know the core and the nouns, nothing that does I/O"},
	{"cluster/peer", []string{"fs", "cluster/wire"}, "calls between nodes: the same interface at both ends"},
	{"cluster/archive", []string{"fs", "fs/object"}, "log and state as opaque bytes between a source and a bucket: it is tested with both faked"},
	{"cluster", []string{"fs", "fs/meta", "cluster/"}, "order and visibility; content reaches it through an interface of its own"},
	{"lb", nil, "the balancer; membership and certificates reach it through interfaces of its own"},
	{"cmd/wpfs", []string{""}, "joins all packages"},
	{"integration", []string{""}, "tests all packages together"},
	{"integration/", []string{""}, "tests all packages together"},
}

// homes are the third-party modules that one folder owns, so that an upgrade
// touches one folder.
var homes = []struct{ prefix, home, why string }{
	{"github.com/hanwen/go-fuse/", "fs/fuse", "its types and its threads stay behind one front"},
	{"github.com/aws/", "fs/object/s3", "the SDK is large and moves fast"},
	{"github.com/hashicorp/raft", "cluster", "the log is replaceable behind a narrow interface"},
	{"github.com/hashicorp/memberlist", "cluster/member", "gossip is a hint behind one interface"},
	{"github.com/tink-crypto/", "fs/object/seal", "what is in the bucket is encrypted in one place"},
	{"github.com/klauspost/compress", "cache/pack", "how content is compressed is part of one format"},
	{"github.com/cockroachdb/pebble", "fs/meta", "the store is one implementation of a small interface"},
	{"github.com/spf13/", "cmd/wpfs", "packages take typed options, never flags or files"},
	{"github.com/prometheus/client_golang", "cmd/wpfs", "packages offer numbers; the program exports them"},
	{"github.com/pires/go-proxyproto", "lb", "a detail of accepting connections"},
	{"github.com/caddyserver/certmagic", "lb", "certificates are the balancer's business"},
	{"github.com/johannesboyne/gofakes3", "", "a fake bucket for tests only"},
}

// homeAlso are packages beside a home that may use its module, each with the reason.
var homeAlso = map[string]string{
	"cluster/archive":           "the copy of the metadata has a format of its own",
	"integration/bench/rawraft": "measures bare raft beside ours in the same run",
}

// goPackage is what go list tells.
type goPackage struct {
	ImportPath, Doc  string
	GoFiles, Imports []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,GoFiles,Imports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			t.Fatalf("go list: %v\n%s", err, ee.Stderr)
		}
		t.Fatal(err)
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	return all
}

// ours is a package's path inside the module, and whether it is in it.
func ours(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, module+"/")
}

// covers reports whether rule, a path or a prefix ending in "/", is about pkg.
func covers(rule, pkg string) bool {
	return rule == pkg || rule == "" || strings.HasSuffix(rule, "/") && strings.HasPrefix(pkg, rule)
}

func layerOf(pkg string) *layer {
	var best *layer
	for i := range layers {
		if l := &layers[i]; covers(l.pkg, pkg) && (best == nil || len(l.pkg) > len(best.pkg)) {
			best = l
		}
	}
	return best
}

// TestImportsPointDown checks every import of ours by ours against layers.
// Tests may import fakes from anywhere, so only what ships is looked at.
func TestImportsPointDown(t *testing.T) {
	for _, p := range listPackages(t) {
		pkg, _ := ours(p.ImportPath)
		l := layerOf(pkg)
		if l == nil {
			t.Errorf("%s has no place in layers (integration/arch_test.go): say what it may import and why", pkg)
			continue
		}
		for _, imp := range p.Imports {
			to, our := ours(imp)
			if our && !slices.ContainsFunc(l.may, func(rule string) bool { return covers(rule, to) }) {
				t.Errorf("%s must not import %s: %s", pkg, to, l.why)
			}
		}
	}
}

// TestThirdPartyHomes checks that a quarantined module is used in its home only.
// Tests may bring fakes and suites of it, so only what ships is looked at.
func TestThirdPartyHomes(t *testing.T) {
	for _, p := range listPackages(t) {
		pkg, _ := ours(p.ImportPath)
		if homeAlso[pkg] != "" {
			continue
		}
		for _, h := range homes {
			for _, imp := range p.Imports {
				if strings.HasPrefix(imp, h.prefix) && pkg != h.home {
					t.Errorf("%s must not import %s, whose home is %q: %s", pkg, imp, h.home, h.why)
				}
			}
		}
	}
}

// TestViperInOneFile keeps the configuration library behind one file.
func TestViperInOneFile(t *testing.T) {
	out, err := exec.Command("grep", "-rlE", "--include=*.go", `^(import)?[[:space:]]*"github.com/spf13/viper"$`, "..").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := strings.Fields(string(out))
	if len(files) != 1 || filepath.Base(files[0]) != "config_load.go" {
		t.Errorf("viper is imported by %q; it belongs into cmd/wpfs/config_load.go only", files)
	}
}

// TestPackageDocs wants a package comment that says what the package is for.
func TestPackageDocs(t *testing.T) {
	const enough = 60 // bytes: a sentence
	for _, p := range listPackages(t) {
		if len(p.GoFiles) > 0 && len(p.Doc) < enough {
			t.Errorf("%s: its package comment %q does not say what it is for", p.ImportPath, p.Doc)
		}
	}
}
