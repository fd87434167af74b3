package main

import (
	"slices"
	"strings"
)

// devDecides are the keys that wpfs dev itself gives to each agent, or that
// could not be the same for all agents of one machine.
var devDecides = []string{
	"cluster.name", "cluster.bind", "cluster.advertise", "cluster.peers", "cluster.join",
	"cache.dir", "object.url", "mount.path", "http.listen", "web.addr",
	"lb.listen", "lb.listen_tls", "lb.certificates", "lb.state_file", "lb.acme_dir",
}

// parseSet reads the KEY=VALUE of --set. A later one of the same key wins.
func parseSet(list []string) (map[string]string, error) {
	set := map[string]string{}
	for _, kv := range list {
		key, val, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, usagef("--set %s: must be KEY=VALUE, as in --set cluster.on_lease_lost=fail", kv)
		}
		if err := unknownKeys([]string{key}, "--set"); err != nil {
			return nil, problem(CodeConfig, err, "the configuration is wrong", "")
		}
		if strings.HasPrefix(key, "node.") || slices.Contains(devDecides, key) {
			return nil, problem(CodeConfig, nil, "--set "+key+": wpfs dev decides this for each of its nodes itself",
				"--dir, --nodes and --s3 say where, how many and which store")
		}
		set[key] = val
	}
	return set, nil
}

// checkSet finds out before anything is started whether the agents will accept
// the values.
func (p devPlan) checkSet(dir string) error {
	if len(p.Set) == 0 {
		return nil
	}
	for key := range p.Set {
		if strings.HasPrefix(key, "lb.") && p.LB == nil {
			return usagef("--set %s: there is no balancer; add --lb", key)
		}
	}
	b, err := p.config(dir, p.Nodes[0])
	if err != nil {
		return err
	}
	if _, err := parseConfig("--set", b); err != nil || p.LB == nil {
		return err
	}
	if b, err = p.lbConfig(dir); err != nil {
		return err
	}
	_, err = parseConfig("--set", b)
	return err
}
