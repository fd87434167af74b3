package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
)

// report prints the figures as a table, and below it how they were obtained.
func report(w io.Writer, m machine, b *book) error {
	fmt.Fprintf(w, "\nwpfs, three agents on one machine, %s\n", m.Time)
	fmt.Fprintf(w, "machine: %d x %s, %d MiB, Linux %s; disk: %s\n", m.CPUs, m.CPU, m.MemoryMiB, m.Kernel, m.Disk)
	fmt.Fprintf(w, "load average: %s at the start, %s at the end; 1 MiB of SHA-256 took %.0f us at best, %.0f us in the median of %d rounds\n",
		m.LoadStart, m.LoadEnd, quantile(m.FixedUS, 0), quantile(m.FixedUS, 0.5), len(m.FixedUS))
	if m.Tree != "" {
		fmt.Fprintf(w, "tree: %s\n", m.Tree)
	}
	for _, a := range m.Agents {
		fmt.Fprintln(w, a)
	}
	if err := b.slowerTable(w); err != nil {
		return err
	}
	if err := b.goalTable(w, m); err != nil {
		return err
	}
	b.requestLines(w)
	fmt.Fprintln(w, "\nHow each was obtained:")
	for _, name := range b.order {
		fmt.Fprintf(w, "  %s: %s\n", name, b.about[name].How)
	}
	return nil
}

// slowerTable is for the measures that have no goal, or one in words.
func (b *book) slowerTable(w io.Writer) error {
	names := slices.DeleteFunc(slices.Clone(b.order), func(n string) bool { return b.about[n].Goal != goal{} })
	if len(names) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nMedians over rounds. \"slower\" is the median over rounds of the ratio to the local file system in the same round;\n"+
		"\"raft\" is the ratio to the bare Raft commit in the same way. All parts share this machine's processors and disk.\n\n")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "measure\tunit\tlocal\tp99\tleader\tp99\tslower\traft\tfollower\tp99\tslower\traft\trounds\ttarget")
	for _, name := range names {
		fmt.Fprintln(tw, line(b, name))
	}
	return tw.Flush()
}

// line is one row of the table. A bare commit has no mount: it stands in the
// leader's column.
func line(b *book, name string) string {
	m := b.about[name]
	row := fmt.Sprintf("%s\t%s", name, m.Unit)
	local, ok := b.figures(name, "local", "")
	row += cell(local.Median, ok) + cell(local.P99, ok)
	rounds := local.Rounds
	if raft, ok := b.figures(name, "raft", ""); ok {
		return fmt.Sprintf("%s%s%s\t\t\t\t\t\t\t%d\t", row, cell(raft.Median, true), cell(raft.P99, true), raft.Rounds)
	}
	for _, t := range []string{"leader", "follower"} {
		f, ok := b.figures(name, t, "local")
		rounds = max(rounds, f.Rounds)
		row += cell(f.Median, ok) + cell(f.P99, ok) + cell(f.Slower, ok && f.Slower > 0)
		r, has := b.overRaft(name, t)
		row += cell(r, has)
	}
	return fmt.Sprintf("%s\t%d\t%s", row, rounds, m.Target)
}

func cell(v float64, ok bool) string {
	switch {
	case !ok:
		return "\t-"
	case v >= 1000:
		return fmt.Sprintf("\t%.0f", v)
	case v >= 10:
		return fmt.Sprintf("\t%.1f", v)
	}
	return fmt.Sprintf("\t%.2f", v)
}

// overRaft is the ratio of an operation to the bare commit of the same round.
func (b *book) overRaft(name, target string) (float64, bool) {
	if b.about[name].Unit != "us/op" {
		return 0, false
	}
	var ratios []float64
	for r, vs := range b.values[name][target] {
		if base := b.values[rawCommit.Name]["raft"][r]; len(base) > 0 {
			ratios = append(ratios, quantile(vs, 0.5)/quantile(base, 0.5))
		}
	}
	return quantile(ratios, 0.5), len(ratios) > 0
}

// writeJSON writes the same figures for a program.
func writeJSON(path string, m machine, b *book) error {
	type entry struct {
		measure
		Verdict verdict            `json:"verdict,omitempty"`
		Targets map[string]figures `json:"targets"`
		Raft    map[string]float64 `json:"over_raft,omitempty"`
	}
	var entries []entry
	for _, name := range b.order {
		e := entry{measure: b.about[name], Verdict: b.verdict(name, "local"), Targets: map[string]figures{}, Raft: map[string]float64{}}
		for t := range b.values[name] {
			e.Targets[t], _ = b.figures(name, t, "local")
			if r, ok := b.overRaft(name, t); ok && t != "raft" {
				e.Raft[t] = r
			}
		}
		entries = append(entries, e)
	}
	type account struct {
		*caused
		Verdict verdict `json:"verdict,omitempty"`
	}
	var accounts []account
	for _, c := range b.requests {
		accounts = append(accounts, account{c, c.verdict()})
	}
	out, err := json.MarshalIndent(map[string]any{"machine": m, "measures": entries, "requests": accounts}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(out, '\n'), 0o644)
}
