package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPublicStatusNamesNoFiles(t *testing.T) {
	st := publicStatus(Status{Content: ContentStatus{AtRisk: RiskStatus{Chunks: 3, Files: []RiskyFile{{Path: "secret"}}}}})
	if st.Content.AtRisk.Chunks != 3 || st.Content.AtRisk.Files != nil {
		t.Errorf("%+v", st.Content)
	}
}

func TestHTTP(t *testing.T) {
	r := startTestAgent(t, newFakeStack())
	base := "http://" + r.cfg.HTTP.Listen
	for path, want := range map[string]string{
		"/healthz": "ok\n",
		"/status":  `"node": "web1"`,
		"/members": `"id": "web1"`,
		"/metrics": "\nwpfs_lease_valid 1\n",
		"/":        "10.0.0.1:7480",
	} {
		code, body := get(t, base+path)
		if code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, %q is missing in:\n%.600s", path, code, want, body)
		}
	}
	for _, path := range []string{"/nothing", "/debug/pprof/", "/v1/drain"} {
		if code, _ := get(t, base+path); code != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, code)
		}
	}
}

// TestStatusCommands reads the admin socket the way a person and a script do.
func TestStatusCommands(t *testing.T) {
	f := newFakeStack()
	f.unfit = true
	r := startTestAgent(t, f)
	for args, want := range map[string]string{
		"status":                          "NOT HEALTHY",
		"cluster status":                  "leader        web1",
		"cluster members":                 "web1 (this)  leader  held",
		"status --output json":            `"reasons": [`,
		"cluster status --output json":    `"stable_index": 8`,
		"cluster members --output json":   `"addr": "10.0.0.1:7480"`,
		"status --output=json --socket=@": `"healthy": false`,
	} {
		var out, errs bytes.Buffer
		line := strings.Fields(strings.ReplaceAll(args, "--socket=@", ""))
		code := run(t.Context(), append(line, "--socket", r.cfg.Node.Socket), stdio{nil, &out, &errs})
		if code != CodeOK || !strings.Contains(out.String(), want) {
			t.Errorf("wpfs %s: code %d, %q is missing in:\n%s%s", args, code, want, &out, &errs)
		}
		if strings.Contains(args, "json") && !json.Valid(out.Bytes()) {
			t.Errorf("wpfs %s: not JSON", args)
		}
	}
}

func TestHealth(t *testing.T) {
	fit := func() Status {
		return Status{Mount: MountStatus{Path: "/srv", Live: true}, Cluster: ClusterStatus{LeaseValid: true, Leader: "web1"}}
	}
	for name, row := range map[string]struct {
		change func(*Status)
		reason string // "": healthy
	}{
		"all well":               {func(*Status) {}, ""},
		"no mount role":          {func(s *Status) { s.Mount = MountStatus{} }, ""},
		"a witness has no lease": {func(s *Status) { s.Mount, s.Cluster.LeaseValid = MountStatus{}, false }, ""},
		"a witness alone":        {func(s *Status) { s.Mount, s.Cluster = MountStatus{}, ClusterStatus{} }, "no leader is known"},
		"mount is gone":          {func(s *Status) { s.Mount.Live = false }, "/srv is not served"},
		"no lease":               {func(s *Status) { s.Cluster.LeaseValid = false }, "the leader web1 has not granted one"},
		"no leader":              {func(s *Status) { s.Cluster.LeaseValid, s.Cluster.Leader = false, "" }, "no leader is known"},
		"draining":               {func(s *Status) { s.Draining = true }, "draining"},
		"several at once":        {func(s *Status) { s.Draining, s.Mount.Live = true, false }, "not served"},
	} {
		t.Run(name, func(t *testing.T) {
			s := fit()
			row.change(&s)
			s.judge()
			if s.Healthy != (row.reason == "") || !strings.Contains(strings.Join(s.Reasons, "\n"), row.reason) {
				t.Errorf("healthy %v, reasons %q, want %q", s.Healthy, s.Reasons, row.reason)
			}
		})
	}
}

// TestUnixSocket: private from the first moment, long paths, stale and live ones.
func TestUnixSocket(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	path := filepath.Join(long, "admin.sock")
	for i := range 2 { // the second start finds the first one's path, which nobody listens on
		l, err := listenUnix(path)
		if err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Mode().Perm(); got != 0o600 {
			t.Errorf("mode %o, want 600", got)
		}
		c, err := dialUnix(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if _, err := listenUnix(path); codeOf(err) != CodePort {
			t.Errorf("a socket in use was taken: %v", err)
		}
		l.Close() // as a kill leaves it: the path stays
	}
}

func TestHumanNumbers(t *testing.T) {
	for _, row := range []struct{ got, want string }{
		{humanBytes(0), "0 B"}, {humanBytes(1023), "1023 B"}, {humanBytes(1536), "1.5 KiB"}, {humanBytes(5 << 30), "5.0 GiB"},
		{humanDuration(3), "3s"}, {humanDuration(61), "1m 1s"}, {humanDuration(3 * 3600), "3h 0m"}, {humanDuration(90000), "1d 1h"},
		{fmt.Sprint(Bytes(2 << 30)), "2GiB"}, {fmt.Sprint(Bytes(1500)), "1500"}, {fmt.Sprint(Bytes(0)), "0"},
	} {
		if row.got != row.want {
			t.Errorf("got %q, want %q", row.got, row.want)
		}
	}
}
