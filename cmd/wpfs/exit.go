package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// Code is what the process exits with. The numbers are part of the interface:
// they are printed by --help, listed in docs/EXIT-CODES.md and never change.
type Code int

// The codes.
const (
	CodeOK          Code = 0
	CodeOther       Code = 1
	CodeUsage       Code = 2
	CodeConfig      Code = 3
	CodePort        Code = 4
	CodeMountPoint  Code = 5
	CodeFuse        Code = 6
	CodeObjectStore Code = 7
	CodeCredentials Code = 8
	CodeDataDir     Code = 9
	CodeCorrupt     Code = 10
	CodeDiskFull    Code = 11
	CodeNotRunning  Code = 12
	CodeBusy        Code = 13
	CodeUnhealthy   Code = 14
	CodeForeign     Code = 15
	CodeIncomplete  Code = 16
	CodeAlive       Code = 17
	CodePartial     Code = 18
	CodeDiffers     Code = 19
)

// codeTable is the one list of codes: the help text and docs/EXIT-CODES.md are
// made from it.
var codeTable = [...]struct {
	Code  Code
	Means string
	Do    string
}{
	{CodeOK, "done", ""},
	{CodeOther, "another error", "read the message; it names the operation and the object"},
	{CodeUsage, "the command line is wrong", "see wpfs COMMAND --help"},
	{CodeConfig, "the configuration is wrong: an unknown key, a value against its rule, a file that cannot be read", "correct the key that the message names (docs/CONFIGURATION.md lists all)"},
	{CodePort, "an address cannot be listened on: in use, or not of this machine", "stop the program that has it (ss -ltnp), or set the key that the message names"},
	{CodeMountPoint, "the mount point is absent, no directory, or busy", "create it, unmount what is on it, or choose another"},
	{CodeFuse, "no /dev/fuse, or no permission to mount", "modprobe fuse; run as root"},
	{CodeObjectStore, "the object store cannot be reached, or the bucket is not there", "check object.url and the network; the message names the address"},
	{CodeCredentials, "the object store refuses the credentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile that may use the bucket"},
	{CodeDataDir, "the data directory is absent, in use, of another node or cluster, or of a newer wpfs", "the message says which; nothing in the directory was changed"},
	{CodeCorrupt, "stored data fails its checksum", "keep a copy of the data directory, remove the node from the cluster, add it again with an empty one"},
	{CodeDiskFull, "the disk is full", "free space on the file system of node.data_dir (import, export: of the destination) and start again; nothing was lost"},
	{CodeNotRunning, "no agent answers on the socket", "start wpfs agent, or name its socket with --socket"},
	{CodeBusy, "another wpfs dev, import or export runs on the directory", "use that one, stop it, wait for it, or choose another directory"},
	{CodeUnhealthy, "the agent stopped because of a fault while it ran", "read its log; start it again"},
	{CodeForeign, "the bucket, or the part of it below the prefix, belongs to another cluster", "give this cluster an object.url of its own; if the other's nodes are gone for good, make a new cluster from it: wpfs restore --from-bucket"},
	{CodeIncomplete, "wpfs restore has restored, but the content of some files is not in the bucket", "the files are listed; reading them fails: replace or delete them"},
	{CodeAlive, "wpfs restore did nothing, because the cluster that has the bucket seems to be running", "stop all its nodes and wait 3 minutes, or insist with --take-over"},
	{CodePartial, "import or export: some entries could not be copied; all others were", "each is listed with its reason; set that right and run the same command again, it copies only what is missing"},
	{CodeDiffers, "import or export: everything was copied, but the destination is not what the source is", "each difference is listed; something else writes to one of the two, or the storage is faulty: run the same command again with --checksum"},
}

// Problem is an error for the operator: what is wrong, as a sentence, and what
// to do next, as another. Code is what the process exits with.
type Problem struct {
	Code Code
	What string
	Next string
	Err  error // the cause; may be nil
}

func (p *Problem) Error() string {
	s := p.What
	if p.Err != nil {
		s += ": " + p.Err.Error()
	}
	if p.Next != "" {
		s += ". " + p.Next
	}
	return s
}

func (p *Problem) Unwrap() error { return p.Err }

// problem makes a Problem; cause may be nil.
func problem(c Code, cause error, what, next string) error {
	return &Problem{Code: c, What: what, Next: next, Err: cause}
}

// usagef is a wrong command line.
func usagef(format string, a ...any) error {
	return &Problem{Code: CodeUsage, What: fmt.Sprintf(format, a...)}
}

// exitStatus is an error that only carries a code: everything has been said
// already (by a child process).
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// codeOf decides the exit code of err by what it wraps, never by its text.
func codeOf(err error) Code {
	var p *Problem
	var status exitStatus
	switch {
	case err == nil:
		return CodeOK
	case errors.As(err, &status):
		return Code(status)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return CodeDiskFull
	case errors.As(err, &p):
		return p.Code
	case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EADDRNOTAVAIL):
		return CodePort
	case errors.Is(err, fs.ErrPermission):
		return CodeOther
	}
	return CodeOther
}

// codeHelp is the table as it stands in --help.
func codeHelp() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, c := range codeTable {
		fmt.Fprintf(&b, "  %2d  %s\n", c.Code, c.Means)
	}
	return b.String()
}
