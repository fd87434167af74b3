package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bookOfOneRound has a measure of each kind.
func bookOfOneRound() *book {
	b := newBook()
	for target, v := range map[string]float64{"local": 2, "leader": 4, "follower": 800} {
		b.add(statAll, target, 0, v)
		b.add(measure{Name: "mkdir", Unit: "us/op"}, target, 0, v)
	}
	b.add(idleCPU, "agents", 0, 1.5)
	b.caused(statAll.Name, "leader", true).book(2535, 2600, time.Second, requestCounts{"lookup": 9000, "getattr": 7})
	b.caused(freshRead.Name, "leader", false).book(3000, 3000, time.Second, nil)
	return b
}

func TestReportShowsGoalsAndRequests(t *testing.T) {
	var out bytes.Buffer
	if err := report(&out, machine{Disk: "ext4", CallNS: 31}, bookOfOneRound()); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"stat, all files, warm us/file 2.00 4.00 0.50 800.0 0.0025 1 >= 0.75 x ext4 MISSED",
		"mkdir us/op 2.00 2.00 4.00 4.00 2.00 - 800.0 800.0 400.0 - 1",
		"31 ns here",
		"idle: 1.50 % of one core for all agents together, 1.50 in the worst of 1 rounds; target <= 2 % of one core: ok",
		"stat, all files, warm, leader: 2535 calls in 1.0 s caused: getattr 7 lookup 9000; at most 2600 lookups and getattrs each: MISSED",
		"new small files, leader: 3000 calls in 1.0 s caused: nothing",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

func TestReportOfNothing(t *testing.T) {
	var out bytes.Buffer
	if err := report(&out, machine{}, newBook()); err != nil || strings.Contains(out.String(), "Medians") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

func TestJSONHasRatiosAndRequests(t *testing.T) {
	path := filepath.Join(t.TempDir(), "figures.json")
	if err := writeJSON(path, machine{}, bookOfOneRound()); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Measures []struct {
			Name, Verdict string
			Goal          struct {
				Speed float64 `json:"speed_min"`
			}
			Targets map[string]struct{ Speed float64 }
		}
		Requests []struct {
			Phase, Target, Verdict string
			Calls                  int
			Requests               map[string]int
		}
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	m, c := got.Measures[0], got.Requests[0]
	if m.Name != statAll.Name || m.Verdict != "MISSED" || m.Goal.Speed != 0.75 || m.Targets["follower"].Speed != 0.0025 {
		t.Errorf("measure: %+v", m)
	}
	if c.Phase != statAll.Name || c.Target != "leader" || c.Verdict != "MISSED" || c.Calls != 2535 || c.Requests["lookup"] != 9000 {
		t.Errorf("requests: %+v", c)
	}
}
