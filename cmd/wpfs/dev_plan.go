package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// What wpfs dev keeps in its directory, beside one directory per node.
const (
	devPlanFile    = "plan.json" // the plan: kept between starts
	devJSONFile    = "dev.json"  // what runs now, for other programs; there only while all is ready
	devSocketFile  = "dev.sock"  // control socket of the running wpfs dev
	devLockFile    = "dev.lock"
	devObjectsDir  = "objects"
	devPlanVersion = 1
)

// Limits of wpfs dev.
const (
	devNodesMax = 9 // beyond that one machine measures itself only
	// Ports are chosen below the range that Linux gives to outgoing connections
	// (32768 and up), so that a stopped node's port stays free.
	devPortMin, devPortMax = 20000, 32000
	devPortTries           = 200
)

// devPlan is what must stay the same between two starts on one directory: the
// nodes and their addresses (raft's configuration has them) and the store.
type devPlan struct {
	Version int       `json:"version"`
	Name    string    `json:"name"`
	S3      string    `json:"s3,omitempty"` // "": the embedded store below the directory
	Nodes   []devNode `json:"nodes"`
	LB      *devLB    `json:"lb,omitempty"` // once asked for, it stays: it is a member of the cluster

	Set map[string]string `json:"-"` // of --set: for this run only, so that the next one is not surprised
}

// devNode is one node of the plan.
type devNode struct {
	ID      string `json:"id"`
	Bind    string `json:"bind"`
	HTTP    string `json:"http"`
	Founder bool   `json:"founder"`       // was there when the cluster began; others join
	Web     string `json:"web,omitempty"` // where the balancer expects the node's web server
}

// loadPlan reads the plan of dir; a directory without one gives an empty plan.
func loadPlan(dir string) (devPlan, error) {
	path := filepath.Join(dir, devPlanFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return devPlan{Version: devPlanVersion, Name: "dev"}, nil
	}
	if err != nil {
		return devPlan{}, problem(CodeDataDir, err, "the plan of this cluster cannot be read", "")
	}
	var p devPlan
	if err := json.Unmarshal(b, &p); err != nil {
		return devPlan{}, problem(CodeCorrupt, err, path+" is damaged", "Move the directory away and start with an empty one")
	}
	if p.Version > devPlanVersion {
		return devPlan{}, problem(CodeDataDir, nil, fmt.Sprintf("%s was written by a newer wpfs (format %d, this one knows %d)", path, p.Version, devPlanVersion),
			"Use that version, or another --dir")
	}
	return p, nil
}

// save writes the plan so that a crash leaves the old or the new one.
func (p devPlan) save(dir string) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return writeFileAtomic(filepath.Join(dir, devPlanFile), append(b, '\n'))
}

// fit brings the plan to n nodes (0: as many as there are, or devNodesDefault)
// and the store to s3. It refuses what would take something away.
func (p *devPlan) fit(dir string, n int, s3 string) error {
	have := len(p.Nodes)
	if n == 0 {
		n = max(have, devNodesDefault)
		if have > 0 {
			n = have
		}
	}
	if n < 1 || n > devNodesMax {
		return usagef("--nodes must be 1 to %d, is %d", devNodesMax, n)
	}
	if n < have {
		return usagef("%s holds a cluster of %d nodes and --nodes says %d: leave --nodes away to start them all, or use another --dir", dir, have, n)
	}
	if have > 0 && s3 != "" && s3 != p.S3 {
		return usagef("%s keeps its content in %s and --s3 says %s: use another --dir", dir, p.storeName(), s3)
	}
	if have == 0 {
		p.S3 = s3
	}
	for len(p.Nodes) < n {
		node, err := p.newNode(have == 0)
		if err != nil {
			return err
		}
		p.Nodes = append(p.Nodes, node)
	}
	return p.fitWeb()
}

const devNodesDefault = 3

func (p *devPlan) storeName() string {
	if p.S3 == "" {
		return "its embedded store"
	}
	return p.S3
}

func (p *devPlan) newNode(founder bool) (devNode, error) {
	i := len(p.Nodes) + 1
	host := "127.0.0." + strconv.Itoa(i)
	n := devNode{ID: "node" + strconv.Itoa(i), Founder: founder}
	used := map[string]bool{}
	return n, fillAddrs(host, used, &n.Bind, &n.HTTP)
}

// fillAddrs gives each a free address of host.
func fillAddrs(host string, used map[string]bool, addrs ...*string) error {
	for _, addr := range addrs {
		a, err := freeAddr(host, used)
		if err != nil {
			return err
		}
		*addr = a
	}
	return nil
}

// freeAddr finds a port of host that is free now, and the one above it for
// gossip, and marks both used.
func freeAddr(host string, used map[string]bool) (string, error) {
	var last error
	for range devPortTries {
		addr := net.JoinHostPort(host, strconv.Itoa(devPortMin+rand.IntN(devPortMax-devPortMin)))
		next := portAbove(addr)
		if used[addr] || used[next] {
			continue
		}
		if last = errors.Join(tryAddr(addr), tryAddr(next)); last == nil {
			used[addr], used[next] = true, true
			return addr, nil
		}
	}
	return "", problem(CodePort, last, "no free port was found on "+host, "Is the loopback interface up?")
}

func tryAddr(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	return u.Close()
}

// nodeDir and the paths in it.
func nodeDir(dir string, n devNode) string { return filepath.Join(dir, n.ID) }

func nodeMount(dir string, n devNode) string  { return filepath.Join(nodeDir(dir, n), "mnt") }
func nodeSocket(dir string, n devNode) string { return filepath.Join(nodeDir(dir, n), "admin.sock") }
func nodeLog(dir string, n devNode) string    { return filepath.Join(nodeDir(dir, n), "agent.log") }
func nodeData(dir string, n devNode) string   { return filepath.Join(nodeDir(dir, n), "data") }
func nodeConfig(dir string, n devNode) string { return filepath.Join(nodeDir(dir, n), "wpfs.yaml") }

// objectURL is where all nodes keep content for good.
func (p devPlan) objectURL(dir string) string {
	if p.S3 != "" {
		return p.S3
	}
	return "file://" + filepath.Join(dir, devObjectsDir)
}

// config is the agent's configuration file of node n. JSON is YAML too, and
// its quoting is right for every path.
func (p devPlan) config(dir string, n devNode) ([]byte, error) {
	var peers []map[string]string
	var join []string
	for _, o := range p.Nodes {
		if !o.Founder {
			continue
		}
		peers = append(peers, map[string]string{"id": o.ID, "addr": o.Bind})
		join = append(join, o.Bind)
	}
	cluster := map[string]any{
		"name": p.Name, "bind": n.Bind, "profile": profileOneMachine,
	}
	if n.Founder {
		cluster["peers"] = peers
	} else {
		cluster["join"] = join
	}
	conf := map[string]map[string]any{
		"node":    {"id": n.ID, "data_dir": nodeData(dir, n), "socket": nodeSocket(dir, n)},
		"cluster": cluster,
		"cache":   {"reserve_bytes": int64(devReserveBytes)},
		"object":  {"url": p.objectURL(dir)},
		"mount":   {"path": nodeMount(dir, n)},
		"http":    {"listen": n.HTTP, "pprof": true},
	}
	if n.Web != "" {
		conf["web"] = map[string]any{"addr": n.Web}
	}
	p.applySet(conf, false)
	return json.MarshalIndent(conf, "", "  ")
}

// applySet adds the keys of --set, as text, which the agent reads like a value of
// the environment. Those of the balancer are for its agent only.
func (p devPlan) applySet(conf map[string]map[string]any, balancer bool) {
	for key, val := range p.Set {
		section, name, _ := strings.Cut(key, ".")
		if section == "lb" && !balancer {
			continue
		}
		if conf[section] == nil {
			conf[section] = map[string]any{}
		}
		conf[section][name] = val
	}
}

// devReserveBytes is small: all nodes share one disk that is not theirs alone.
const devReserveBytes = 256 << 20

// writeFileAtomic writes path through a temporary file, fsync and rename.
func writeFileAtomic(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
