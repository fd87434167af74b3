package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wpfs/wpfs/lb"
)

func newLBCmd(std stdio) *cobra.Command {
	c := &cobra.Command{
		Use:   "lb",
		Short: "Run a balancer, and tell one what to do",
		Long: `The balancer takes HTTP and HTTPS requests and passes each to the right web server of a
WordPress cluster. It is a role of the agent (lb.listen in its configuration), or a program
of its own: wpfs lb run. The other commands talk to whichever runs here, through its admin
socket. docs/BALANCER.md says what it does with which request.`,
		GroupID: "run",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newLBRunCmd(std), newLBStatusCmd(std), newLBDrainCmd(std, true), newLBDrainCmd(std, false), newLBMaintenanceCmd(std), newLBReloadCmd(std))
	return c
}

func newLBStatusCmd(std stdio) *cobra.Command {
	var o agentOptions
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the upstreams, which of them serves administration, and what is in flight",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var st lb.Status
			if err := o.get(c.Context(), "/v1/lb/status", &st); err != nil {
				return err
			}
			return printLB(o, std, st)
		},
	}
	o.AddFlags(c)
	return c
}

func printLB(o agentOptions, std stdio, st lb.Status) error {
	if o.Output == outputJSON {
		return writeJSON(std.Out, st)
	}
	rows := [][]string{{"UPSTREAM", "STATE", "IN FLIGHT", "REQUESTS", "FAILURES", "WEIGHT", "ADDRESS", "ZONE"}}
	for _, u := range st.Upstreams {
		id, weight := u.ID, strconv.FormatFloat(u.Weight, 'g', -1, 64)
		if u.ID == st.Admin {
			id += " (admin)"
		}
		if u.Share < 1 && u.State == "up" {
			weight += fmt.Sprintf(" × %.0f %%", 100*u.Share)
		}
		rows = append(rows, []string{id, u.State, fmt.Sprint(u.InFlight), fmt.Sprint(u.Requests), fmt.Sprint(u.Failures), weight, u.Addr, u.Zone})
	}
	if err := columns(std.Out, rows); err != nil {
		return err
	}
	for _, u := range st.Upstreams {
		if u.Why != "" {
			fmt.Fprintf(std.Out, "%s: %s\n", u.ID, u.Why)
		}
	}
	if st.Maintenance {
		fmt.Fprintln(std.Out, "Maintenance mode is on: clients get the maintenance page.")
	}
	_, err := fmt.Fprintf(std.Out, "%d requests in flight, %d connections\n", st.InFlight, st.Connections)
	return err
}

// change sends a change and shows what has become of it.
func (o *agentOptions) change(ctx context.Context, path string, body any, std stdio) error {
	if err := checkOutput(o.Output); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, adminCallTimeout)
	defer cancel()
	var st lb.Status
	if err := (adminClient{o.Socket}).call(ctx, http.MethodPost, path, body, &st); err != nil {
		return err
	}
	return printLB(*o, std, st)
}

func newLBDrainCmd(std stdio, on bool) *cobra.Command {
	var o agentOptions
	c := &cobra.Command{
		Use:   "drain UPSTREAM",
		Short: "Send an upstream no new request; those in flight end",
		Long: `Sends the upstream no new request; its clients go to others. Requests in flight end
undisturbed: wpfs lb status shows how many there are. It stays drained until wpfs lb undrain,
also when the balancer restarts (lb.state_file). With several balancers, tell each.`,
		Args: exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			return o.change(c.Context(), "/v1/lb/drain", lbChange{Upstream: args[0], On: on}, std)
		},
	}
	if !on {
		c.Use, c.Short, c.Long = "undrain UPSTREAM", "Send an upstream requests again", ""
	}
	o.AddFlags(c)
	return c
}

func newLBMaintenanceCmd(std stdio) *cobra.Command {
	var o agentOptions
	c := &cobra.Command{
		Use:   "maintenance on|off",
		Short: "Answer every request with the maintenance page, or end that",
		Long: `Answers every request with the maintenance page (503, Retry-After), except those of
lb.maintenance_allow. Programs get a line of text. It stays on when the balancer restarts
(lb.state_file). With several balancers, tell each.`,
		Args: exactly(1),
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] != "on" && args[0] != "off" {
				return usagef("wpfs lb maintenance takes on or off, not %q", args[0])
			}
			return o.change(c.Context(), "/v1/lb/maintenance", lbChange{On: args[0] == "on"}, std)
		},
	}
	o.AddFlags(c)
	return c
}

func newLBReloadCmd(std stdio) *cobra.Command {
	var o agentOptions
	c := &cobra.Command{
		Use:   "reload",
		Short: "Read the balancer's configuration again, without dropping a request",
		Long: `Reads the section lb of the configuration again and opens the access log anew, as SIGHUP
does. Requests in flight end with the former configuration. If the new one is wrong, it says
why, and the former one stays in force. A changed key that needs a restart (the ports and what
belongs to them, files that are opened at the start) is such an error.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			err := o.change(c.Context(), "/v1/lb/reload", nil, std)
			if err != nil && codeOf(err) == CodeOther && !strings.Contains(err.Error(), "has no balancer") {
				return problem(CodeConfig, err, "the new configuration is not used", "The former one stays in force")
			}
			return err
		},
	}
	o.AddFlags(c)
	return c
}
