package integration

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
)

// kind is a kind of object: how to make one, what can be done with it, and its
// model.
type kind struct {
	name    string
	prepare func(base string, i int) []probe.Op
	choose  func(rng *rand.Rand, path, value string) (probe.Op, input)
	step    func(state string, in input, out output) (bool, string)
	init    string
}

// input and output are what the models get to see.
type input struct {
	what  string
	value string
}

type output struct {
	unknown bool
	errno   unix.Errno
	value   string
}

func (k kind) model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return k.init },
		Step: func(state, in, out any) (bool, any) {
			return k.step(state.(string), in.(input), out.(output))
		},
		DescribeOperation: func(in, out any) string {
			i, o := in.(input), out.(output)
			if o.unknown {
				return fmt.Sprintf("%s(%s) ?", i.what, i.value)
			}
			return fmt.Sprintf("%s(%s) = %s %q", i.what, i.value, probe.ErrnoName(o.errno), o.value)
		},
	}
}

// kinds of objects. Their names must not begin with one another.
var kinds = []kind{register, exclusive, pair}

const firstValue = "0000-000000000000" // as long as every other value: a read must not run into a longer one

// register is a file that is replaced by rename, rewritten in place, and read.
var register = kind{
	name: "register",
	init: firstValue,
	prepare: func(base string, i int) []probe.Op {
		return []probe.Op{probe.WriteFile(filepath.Join(base, fmt.Sprint("register", i)), []byte(firstValue))}
	},
	choose: func(rng *rand.Rand, path, value string) (probe.Op, input) {
		switch rng.IntN(4) {
		case 0:
			return probe.WriteFile(path, []byte(value)), input{"write", value}
		case 1:
			return probe.Rename(path+"."+value[:4], path, 0), input{"replace", value}
		}
		return probe.ReadFile(path), input{what: "read"}
	},
	step: func(state string, in input, out output) (bool, string) {
		if out.unknown {
			return true, in.value
		}
		if in.what == "read" {
			return out.errno == 0 && out.value == state, state
		}
		return out.errno == 0, in.value
	},
}

// exclusive is a name that is made, removed and looked at. A symbolic link
// carries a value and is made by one call.
var exclusive = kind{
	name:    "exclusive",
	prepare: func(string, int) []probe.Op { return nil },
	choose: func(rng *rand.Rand, path, value string) (probe.Op, input) {
		switch rng.IntN(4) {
		case 0:
			return probe.Symlink(value, path), input{"make", value}
		case 1:
			return probe.Unlink(path), input{what: "remove"}
		}
		return probe.Readlink(path), input{what: "read"}
	},
	step: func(state string, in input, out output) (bool, string) {
		return stepName(state, in, out)
	},
}

func stepName(state string, in input, out output) (bool, string) {
	next, errno := state, unix.Errno(0)
	switch in.what {
	case "make":
		next = in.value
		if state != "" {
			next, errno = state, unix.EEXIST
		}
	case "remove":
		next = ""
		if state == "" {
			errno = unix.ENOENT
		}
	case "read":
		if state == "" {
			return out.errno == unix.ENOENT, state
		}
		return out.errno == 0 && out.value == state, state
	}
	return out.unknown || out.errno == errno, next
}

// pair is two names between which things are renamed. The state is both values
// with a bar between them.
//
// RENAME_EXCHANGE is not among the changes. The kernel looks the two names up one
// after the other; if another node exchanges them in between, both lead to the
// same inode, and rename(2) does nothing and succeeds without asking any file
// system, although both names are there. No sequence of renames explains that.
var pair = kind{
	name: "pair",
	init: "|",
	prepare: func(base string, i int) []probe.Op {
		return []probe.Op{probe.Mkdir(filepath.Join(base, fmt.Sprint("pair", i)))}
	},
	choose: func(rng *rand.Rand, path, value string) (probe.Op, input) {
		names := []string{"a", "b"}
		x := rng.IntN(2)
		one, other := filepath.Join(path, names[x]), filepath.Join(path, names[1-x])
		side := names[x]
		switch rng.IntN(10) {
		case 0, 1:
			return probe.Symlink(value, one), input{"make " + side, value}
		case 2:
			return probe.Unlink(one), input{what: "remove " + side}
		case 3:
			return probe.Rename(one, other, 0), input{what: "move " + side}
		case 4:
			return probe.Rename(one, other, unix.RENAME_NOREPLACE), input{what: "shift " + side}
		}
		op, in := probe.Readlink(one), input{what: "read", value: side}
		return op, in
	},
	step: stepPair,
}

func stepPair(state string, in input, out output) (bool, string) {
	bar := slices.Index([]byte(state), '|')
	v := map[string]string{"a": state[:bar], "b": state[bar+1:]}
	what, side := in.what, in.value
	if in.what != "read" {
		what, side = in.what[:len(in.what)-2], in.what[len(in.what)-1:]
	}
	other := map[string]string{"a": "b", "b": "a"}[side]
	errno := unix.Errno(0)
	switch what {
	case "make", "remove", "read":
		ok, next := stepName(v[side], input{what, in.value}, out)
		v[side] = next
		return ok, v["a"] + "|" + v["b"]
	case "move":
		switch {
		case v[side] != "":
			v[side], v[other] = "", v[side]
		case !twoLookups(out, v[other]):
			errno = unix.ENOENT
		}
	case "shift":
		// The kernel looks up the old name, then the new one, and says EEXIST by
		// itself. The old name may be gone by then, so EEXIST claims nothing of it.
		if !out.unknown && out.errno == unix.EEXIST {
			return v[other] != "", state
		}
		switch {
		case v[side] == "":
			errno = unix.ENOENT
		case v[other] != "":
			errno = unix.EEXIST
		default:
			v[side], v[other] = "", v[side]
		}
	}
	return out.unknown || out.errno == errno, v["a"] + "|" + v["b"]
}

// twoLookups tells that a rename did nothing and still succeeded. The kernel
// looks up the old name, then the new one. If another node moves the file from
// one to the other in between, both lead to the same inode, and rename(2) says
// that then there is nothing to do; no file system is asked. What it found last
// is what there still is: one of the names.
func twoLookups(out output, there string) bool {
	return !out.unknown && out.errno == 0 && there != ""
}
