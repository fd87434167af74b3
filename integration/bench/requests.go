package main

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wpfs/wpfs/integration/testcluster"
)

// requestCounts are the kernel's requests to one agent, by operation.
type requestCounts map[string]int64

// requestMetric is the agent's name for them.
const requestMetric = "wpfs_fuse_requests_total"

// parseRequests reads them from a page of metrics. A page without any is an
// error: the bench would report a silent kernel.
func parseRequests(page []byte) (requestCounts, error) {
	counts := requestCounts{}
	sc := bufio.NewScanner(bytes.NewReader(page))
	for sc.Scan() {
		rest, ok := strings.CutPrefix(sc.Text(), requestMetric+`{op="`)
		if !ok {
			continue
		}
		op, value, ok := strings.Cut(rest, `"}`)
		if !ok || strings.Contains(op, `"`) {
			return nil, fmt.Errorf("metrics: %q has another form", sc.Text())
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64) // large ones come with an exponent
		if err != nil {
			return nil, fmt.Errorf("metrics: %q: %w", sc.Text(), err)
		}
		counts[op] += int64(n)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	if len(counts) == 0 {
		return nil, fmt.Errorf("metrics: no %s", requestMetric)
	}
	return counts, nil
}

// requestsOf asks an agent.
func requestsOf(n *testcluster.Node) (requestCounts, error) {
	page, _, err := n.Get("/metrics")
	if err != nil {
		return nil, err
	}
	c, err := parseRequests(page)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.ID, err)
	}
	return c, nil
}

// since is what came after before.
func (c requestCounts) since(before requestCounts) requestCounts {
	d := requestCounts{}
	for op, n := range c {
		if n != before[op] {
			d[op] = n - before[op]
		}
	}
	return d
}

func (c requestCounts) String() string {
	var out []string
	for _, op := range slices.Sorted(maps.Keys(c)) {
		out = append(out, fmt.Sprintf("%s %d", op, c[op]))
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, " ")
}

// reaskAfter is the least time for which a node lets the kernel answer by itself.
const reaskAfter = 2 * time.Second

// free are the requests that a warm phase may cause without limit: open is where
// a node learns what it has to keep, and release is asynchronous.
var free = []string{"open", "release", "opendir", "releasedir"}

// reasks names what asks for a name or an attribute once more.
var reasks = map[string]string{"lookup": "names", "getattr": "attributes", "statx": "attributes"}

// caused is what the kernel asked a node during one phase, over all rounds.
type caused struct {
	Phase    string        `json:"phase"`
	Target   string        `json:"target"`
	Calls    int64         `json:"calls"` // lstats, open-read-closes and entries, that is what the values count
	Seconds  float64       `json:"seconds"`
	Requests requestCounts `json:"requests"`
	// Reasks is how many lookups, and as many requests for attributes, the phase
	// may have: each name as often as its lease can have ended in a round.
	Reasks int64 `json:"reasks_max"`
	// Judged is false where the phase is not warm.
	Judged bool `json:"judged"`
}

// book adds one round in which names distinct names were used.
func (c *caused) book(calls, names int, took time.Duration, got requestCounts) {
	c.Calls += int64(calls)
	c.Seconds += took.Seconds()
	c.Reasks += int64(names) * (1 + int64(took/reaskAfter))
	if c.Requests == nil {
		c.Requests = requestCounts{}
	}
	for op, n := range got {
		c.Requests[op] += n
	}
}

// verdict is missed where the kernel asked more than leases explain.
func (c *caused) verdict() verdict {
	if !c.Judged {
		return noGoal
	}
	sums := map[string]int64{}
	for op, n := range c.Requests {
		what, limited := reasks[op]
		if !limited && n > 0 && !slices.Contains(free, op) {
			return missed
		}
		sums[what] += n
	}
	return verdictOf(sums["names"] <= c.Reasks && sums["attributes"] <= c.Reasks)
}

// caused finds or makes the account of a phase.
func (b *book) caused(phase, target string, judged bool) *caused {
	for _, c := range b.requests {
		if c.Phase == phase && c.Target == target {
			return c
		}
	}
	c := &caused{Phase: phase, Target: target, Judged: judged}
	b.requests = append(b.requests, c)
	return c
}
