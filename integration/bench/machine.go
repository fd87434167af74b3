package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/testcluster"
)

// machine says where figures come from. Figures of two machines, or of two
// hours on a shared one, cannot be compared; ratios within one run can.
type machine struct {
	Time      string    `json:"time"`
	CPU       string    `json:"cpu"`
	CPUs      int       `json:"cpus"`
	MemoryMiB uint64    `json:"memory_mib"`
	Kernel    string    `json:"kernel"`
	Disk      string    `json:"disk"`
	LoadStart string    `json:"load_start"`
	LoadEnd   string    `json:"load_end"`
	Tree      string    `json:"tree,omitempty"`
	Agents    []string  `json:"agents"`
	FixedUS   []float64 `json:"fixed_us"`          // the same computation, once each round
	CallNS    float64   `json:"call_ns,omitempty"` // what a system call costs this program more than one in C
}

// fileSystems names the magic numbers of statfs(2).
var fileSystems = map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.TMPFS_MAGIC: "tmpfs (memory: fsync costs nothing here, so the latencies are not those of a disk)", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs"}

func describe(dir string) (machine, error) {
	var u unix.Utsname
	var si unix.Sysinfo_t
	var fs unix.Statfs_t
	if err := unix.Uname(&u); err != nil {
		return machine{}, fmt.Errorf("uname: %w", err)
	}
	if err := unix.Sysinfo(&si); err != nil {
		return machine{}, fmt.Errorf("sysinfo: %w", err)
	}
	if err := unix.Statfs(dir, &fs); err != nil {
		return machine{}, fmt.Errorf("statfs %s: %w", dir, err)
	}
	name := fileSystems[int64(fs.Type)]
	if name == "" {
		name = fmt.Sprintf("file system %#x", fs.Type)
	}
	return machine{Time: time.Now().UTC().Format(time.RFC3339), CPU: cpuModel(), CPUs: runtime.NumCPU(),
		MemoryMiB: uint64(si.Totalram) * uint64(si.Unit) >> 20, Kernel: unix.ByteSliceToString(u.Release[:]), Disk: name, LoadStart: load()}, nil
}

// finish books what the run did to the machine.
func (m *machine) finish(c *testcluster.Cluster) {
	m.LoadEnd = load()
	for _, n := range c.Nodes {
		rss, err := n.PeakRSS()
		if err != nil {
			m.Agents = append(m.Agents, n.ID+": "+err.Error())
			continue
		}
		m.Agents = append(m.Agents, fmt.Sprintf("%s: at most %d MiB resident", n.ID, rss>>20))
	}
}

// calibrate times a computation that is always the same: where it takes longer,
// somebody else had the processors.
func (m *machine) calibrate() {
	b := make([]byte, 1<<20)
	began := time.Now()
	sha256.Sum256(b)
	m.FixedUS = append(m.FixedUS, float64(time.Since(began))/float64(time.Microsecond))
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if k, v, ok := strings.Cut(sc.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

// progress tells the person who waits. It is no part of the report.
func progress(what string, round, of int) {
	fmt.Fprintf(os.Stderr, "bench: %s %s, round %d of %d\n", time.Now().Format(time.TimeOnly), what, round, of)
}
