package main

import (
	"os"
	"strings"
)

// mountedOn is the type of the file system that is mounted exactly on path, or
// "". It does not touch the mount, which may be dead or hang.
func mountedOn(path string) string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	want := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(path)
	kind := ""
	for line := range strings.SplitSeq(string(b), "\n") { // the last one is on top
		left, right, _ := strings.Cut(line, " - ") // proc_pid_mountinfo(5)
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) > 4 && len(r) > 0 && l[4] == want {
			kind = r[0]
		}
	}
	return kind
}
