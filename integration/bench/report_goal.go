package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// goalTable is for the measures whose goal the report checks.
func (b *book) goalTable(w io.Writer, m machine) error {
	disk, _, _ := strings.Cut(m.Disk, " ")
	var rows, single []string
	for _, name := range b.order {
		if b.about[name].Goal == (goal{}) {
			continue
		}
		if f, ok := b.figures(name, "agents", ""); ok {
			single = append(single, b.singleLine(name, f))
			continue
		}
		rows = append(rows, b.goalLine(name, disk))
	}
	if len(rows) > 0 {
		fmt.Fprintf(w, "\nMedians over rounds. \"x %s\" is the median over rounds of the speed as a share of the local file system's\n"+
			"in the same round: 1.00 is as fast, less is slower.\n", disk)
		if m.CallNS > 0 {
			fmt.Fprintf(w, "All columns include what Go adds to each system call, %.0f ns here (measured).\n", m.CallNS)
		}
		fmt.Fprintln(w)
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(tw, "measure\tunit\tlocal\tleader\tx %s\tfollower\tx %s\trounds\ttarget\t\n", disk, disk)
		for _, r := range rows {
			fmt.Fprintln(tw, r)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	for _, s := range single {
		fmt.Fprintf(w, "\n%s\n", s)
	}
	return nil
}

func (b *book) goalLine(name, disk string) string {
	m := b.about[name]
	local, ok := b.figures(name, "local", "")
	row := fmt.Sprintf("%s\t%s%s", name, m.Unit, cell(local.Median, ok))
	rounds := local.Rounds
	for _, t := range []string{"leader", "follower"} {
		f, ok := b.figures(name, t, "local")
		rounds = max(rounds, f.Rounds)
		row += cell(f.Median, ok) + share(f.Speed)
	}
	return fmt.Sprintf("%s\t%d\t%s\t%s", row, rounds, m.Goal.text(m.Unit, disk), b.verdict(name, "local"))
}

// share has the digits to tell a tenth of a percent from nothing.
func share(v float64) string {
	if v > 0 && v < 0.1 {
		return fmt.Sprintf("\t%.4f", v)
	}
	return cell(v, v > 0)
}

// singleLine is for what is one figure for the whole cluster.
func (b *book) singleLine(name string, f figures) string {
	m := b.about[name]
	return fmt.Sprintf("%s: %.2f %s for all agents together, %.2f in the worst of %d rounds; target %s: %s",
		name, f.Median, m.Unit, f.P99, f.Rounds, m.Goal.text(m.Unit, ""), b.verdict(name, "local"))
}

// requestLines says what the kernel asked in each phase.
func (b *book) requestLines(w io.Writer) {
	if len(b.requests) == 0 {
		return
	}
	fmt.Fprintf(w, "\nWhat the kernel asked the node during each phase, by its own count, all rounds together. Target of warm phases:\n"+
		"nothing but %s, and each name and its attributes once more when %v have passed.\n", strings.Join(free, ", "), reaskAfter)
	for _, c := range b.requests {
		fmt.Fprintf(w, "  %s, %s: %d calls in %.1f s caused: %s", c.Phase, c.Target, c.Calls, c.Seconds, c.Requests)
		if c.Judged {
			fmt.Fprintf(w, "; at most %d lookups and getattrs each: %s", c.Reasks, c.verdict())
		}
		fmt.Fprintln(w)
	}
}
