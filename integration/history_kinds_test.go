package integration

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"

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
	// step returns the states that may follow when in ends with out: none if it
	// cannot end so.
	step func(state string, in input, out output) []string
	init string
}

// input and output are what the models get to see.
type input struct {
	what  string
	value string
	raced bool // a rename beside which another rename of the same object was under way
}

type output struct {
	unknown bool
	errno   unix.Errno
	value   string
}

func (k kind) model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{k.init} },
		Step: func(state, in, out any) []any {
			var next []any
			for _, s := range k.step(state.(string), in.(input), out.(output)) {
				next = append(next, s)
			}
			return next
		},
		DescribeOperation: func(in, out any) string {
			i, o := in.(input), out.(output)
			if o.unknown {
				return fmt.Sprintf("%s(%s) ?", i.what, i.value)
			}
			return fmt.Sprintf("%s(%s) = %s %q", i.what, i.value, probe.ErrnoName(o.errno), o.value)
		},
	}
	return m.ToModel()
}

// only is the one state that follows if ok.
func only(ok bool, next string) []string {
	if !ok {
		return nil
	}
	return []string{next}
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
			return probe.WriteFile(path, []byte(value)), input{what: "write", value: value}
		case 1:
			return probe.Rename(path+"."+value[:4], path, 0), input{what: "replace", value: value}
		}
		return probe.ReadFile(path), input{what: "read"}
	},
	step: func(state string, in input, out output) []string {
		switch {
		case out.unknown:
			return []string{in.value}
		case in.what == "read":
			return only(out.errno == 0 && out.value == state, state)
		}
		return only(out.errno == 0, in.value)
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
			return probe.Symlink(value, path), input{what: "make", value: value}
		case 1:
			return probe.Unlink(path), input{what: "remove"}
		}
		return probe.Readlink(path), input{what: "read"}
	},
	step: func(state string, in input, out output) []string { return only(stepName(state, in, out)) },
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
			return probe.Symlink(value, one), input{what: "make " + side, value: value}
		case 2:
			return probe.Unlink(one), input{what: "remove " + side}
		case 3:
			return probe.Rename(one, other, 0), input{what: "move " + side}
		case 4:
			return probe.Rename(one, other, unix.RENAME_NOREPLACE), input{what: "shift " + side}
		case 5:
			return probe.Rename(one, other, unix.RENAME_EXCHANGE), input{what: "swap " + side}
		}
		op, in := probe.Readlink(one), input{what: "read", value: side}
		return op, in
	},
	step: stepPair,
}

func stepPair(state string, in input, out output) []string {
	bar := strings.IndexByte(state, '|')
	v := map[string]string{"a": state[:bar], "b": state[bar+1:]}
	what, side := in.what, in.value
	if in.what != "read" {
		what, side = in.what[:len(in.what)-2], in.what[len(in.what)-1:]
	}
	other := map[string]string{"a": "b", "b": "a"}[side]
	switch what {
	case "make", "remove", "read":
		ok, next := stepName(v[side], input{what: what, value: in.value}, out)
		v[side] = next
		return only(ok, v["a"]+"|"+v["b"])
	}
	var next []string
	ends := func(with unix.Errno, a, b string) {
		if out.unknown || out.errno == with {
			next = append(next, a+"|"+b)
		}
	}
	gone := v[side] == "" || what == "swap" && v[other] == ""
	switch {
	case gone:
		ends(unix.ENOENT, v["a"], v["b"])
	case what == "swap":
		ends(0, v["b"], v["a"])
	case what == "shift" && v[other] != "":
		ends(unix.EEXIST, v["a"], v["b"])
	case side == "a":
		ends(0, "", v["a"])
	default:
		ends(0, v["b"], "")
	}
	return append(next, twoLookups(what, v[other], in, out, state)...)
}

// twoLookups are the ends of a rename that no file system is asked about. The
// kernel looks up the old name and then the new one, and other nodes may rename
// between the two. Then it may find that both lead to the same inode, and
// rename(2) says that there is nothing to do in that case and succeeds. And with
// RENAME_NOREPLACE it says EEXIST when it finds the new name, although the old
// one may be gone by then.
func twoLookups(what, other string, in input, out output, state string) []string {
	if !in.raced || out.unknown || other == "" && what != "swap" {
		return nil
	}
	want := unix.Errno(0)
	if what == "shift" {
		want = unix.EEXIST
	}
	return only(out.errno == want && state != "|", state)
}

// markRaced finds the renames of one object that overlapped in time with another
// one that did something, or may have.
func markRaced(ops []porcupine.Operation) {
	renames := func(o porcupine.Operation) bool {
		what, _, _ := strings.Cut(o.Input.(input).what, " ")
		return what == "move" || what == "shift" || what == "swap"
	}
	for i := range ops {
		if !renames(ops[i]) {
			continue
		}
		in := ops[i].Input.(input)
		in.raced = slices.ContainsFunc(ops, func(o porcupine.Operation) bool {
			out := o.Output.(output)
			return renames(o) && (out.unknown || out.errno == 0) && o.ClientId != ops[i].ClientId &&
				o.Call <= ops[i].Return && ops[i].Call <= o.Return
		})
		ops[i].Input = in
	}
}
