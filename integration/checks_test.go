package integration

import (
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
)

// The checkers are checked here: each must be silent about what is right and
// find what is wrong.

func TestBackwards(t *testing.T) {
	at := func(who, value string, firstStart, firstEnd, lastStart, lastEnd int64) sighting {
		return sighting{who: who, Span: probe.Span{Value: value, FirstStart: firstStart, FirstEnd: firstEnd, LastStart: lastStart, LastEnd: lastEnd}}
	}
	const returned = 100
	cases := []struct {
		name string
		ss   []sighting
		want string // "" is silence
	}{
		{"each sees old, then new", []sighting{at("b", "old", 0, 5, 80, 85), at("b", "new", 86, 90, 200, 205), at("c", "old", 0, 5, 84, 95), at("c", "new", 96, 99, 200, 205)}, ""},
		{"old after the return", []sighting{at("b", "old", 0, 5, 101, 105)}, "after the change returned"},
		{"old although it began before the return", []sighting{at("b", "old", 0, 5, 99, 105)}, ""},
		{"old elsewhere after new", []sighting{at("b", "new", 50, 60, 70, 75), at("c", "old", 0, 5, 61, 65)}, "c sees old"},
		{"old elsewhere at the time of new", []sighting{at("b", "new", 50, 60, 70, 75), at("c", "old", 0, 5, 59, 65)}, ""},
		{"back to old on one node", []sighting{at("b", "new", 50, 60, 60, 65), at("b", "old", 66, 70, 70, 75)}, "b sees old"},
		{"a mixture in the middle", []sighting{at("b", "old", 0, 5, 50, 55), at("b", "mixed", 56, 60, 56, 60), at("b", "new", 61, 65, 200, 205)}, ""},
		{"a mixture after new", []sighting{at("b", "new", 50, 60, 70, 75), at("c", "mixed", 61, 65, 61, 65)}, "c sees mixed"},
		{"old after a mixture", []sighting{at("b", "mixed", 50, 60, 50, 60), at("c", "old", 0, 5, 61, 65)}, "c sees old"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(backwards(c.ss, "old", "new", returned), "; ")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("it says %q, want %q", got, c.want)
			}
		})
	}
}

func TestModelsOfHistories(t *testing.T) {
	type op struct {
		in        input
		out       output
		call, end int64
	}
	ok, enoent, eexist := output{}, output{errno: unix.ENOENT}, output{errno: unix.EEXIST}
	val := func(v string) output { return output{value: v} }
	cases := []struct {
		name string
		kind kind
		ops  []op
		want porcupine.CheckResult
	}{
		{"a register that is read as written", register, []op{{input{what: "write", value: "1"}, ok, 0, 9}, {input{what: "read"}, val("1"), 10, 11}}, porcupine.Ok},
		{"a register that is read old", register, []op{{input{what: "write", value: "1"}, ok, 0, 9}, {input{what: "read"}, val(firstValue), 10, 11}}, porcupine.Illegal},
		{"a torn register", register, []op{{input{what: "write", value: "12"}, ok, 0, 9}, {input{what: "read"}, val("1"), 10, 11}}, porcupine.Illegal},
		{"a write that may have happened", register, []op{{input{what: "write", value: "1"}, output{unknown: true}, 0, never}, {input{what: "read"}, val(firstValue), 10, 11}, {input{what: "read"}, val("1"), 12, 13}}, porcupine.Ok},
		{"a write that happened and was taken back", register, []op{{input{what: "write", value: "1"}, output{unknown: true}, 0, never}, {input{what: "read"}, val("1"), 10, 11}, {input{what: "read"}, val(firstValue), 12, 13}}, porcupine.Illegal},
		{"two winners", exclusive, []op{{input{what: "make", value: "1"}, ok, 0, 9}, {input{what: "make", value: "2"}, ok, 0, 9}}, porcupine.Illegal},
		{"one winner", exclusive, []op{{input{what: "make", value: "1"}, ok, 0, 9}, {input{what: "make", value: "2"}, eexist, 0, 9}}, porcupine.Ok},
		{"nobody wins", exclusive, []op{{input{what: "make", value: "1"}, eexist, 0, 9}}, porcupine.Illegal},
		{"removed twice", exclusive, []op{{input{what: "make", value: "1"}, ok, 0, 1}, {input{what: "remove"}, ok, 2, 9}, {input{what: "remove"}, ok, 2, 9}}, porcupine.Illegal},
		{"moved", pair, []op{{input{what: "make a", value: "1"}, ok, 0, 1}, {input{what: "move a"}, ok, 2, 3}, {input{what: "read", value: "b"}, val("1"), 4, 5}, {input{what: "read", value: "a"}, enoent, 4, 5}}, porcupine.Ok},
		{"moved and still there", pair, []op{{input{what: "make a", value: "1"}, ok, 0, 1}, {input{what: "move a"}, ok, 2, 3}, {input{what: "read", value: "a"}, val("1"), 4, 5}}, porcupine.Illegal},
		{"swapped", pair, []op{{input{what: "make a", value: "1"}, ok, 0, 1}, {input{what: "make b", value: "2"}, ok, 0, 1}, {input{what: "swap a"}, ok, 2, 3}, {input{what: "read", value: "a"}, val("2"), 4, 5}}, porcupine.Ok},
		{"swapped by half", pair, []op{{input{what: "make a", value: "1"}, ok, 0, 1}, {input{what: "make b", value: "2"}, ok, 0, 1}, {input{what: "swap a"}, ok, 2, 3}, {input{what: "read", value: "a"}, val("2"), 4, 5}, {input{what: "read", value: "b"}, val("2"), 6, 7}}, porcupine.Illegal},
		{"a move that does nothing", pair, []op{{input{what: "make a", value: "1"}, ok, 0, 1}, {input{what: "make b", value: "2"}, ok, 0, 1}, {input{what: "move a"}, ok, 2, 3}, {input{what: "read", value: "a"}, val("1"), 4, 5}}, porcupine.Illegal},
		{"a move that finds one inode under both names, beside a swap", pair, []op{{input{what: "make a", value: "1"}, ok, 0, 1}, {input{what: "make b", value: "2"}, ok, 0, 1}, {input{what: "swap a"}, ok, 2, 3}, {input{what: "move a"}, ok, 2, 3}, {input{what: "read", value: "a"}, val("2"), 4, 5}, {input{what: "read", value: "b"}, val("1"), 4, 5}}, porcupine.Ok},
		{"EEXIST of a name that is not there", pair, []op{{input{what: "make a", value: "1"}, ok, 0, 1}, {input{what: "shift a"}, eexist, 2, 3}}, porcupine.Illegal},
		{"replaced what it must not", pair, []op{{input{what: "make a", value: "1"}, ok, 0, 1}, {input{what: "make b", value: "2"}, ok, 0, 1}, {input{what: "shift a"}, ok, 2, 3}}, porcupine.Illegal},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var ops []porcupine.Operation
			for i, o := range c.ops {
				ops = append(ops, porcupine.Operation{ClientId: i, Input: o.in, Call: o.call, Output: o.out, Return: o.end})
			}
			markRaced(ops)
			if got := porcupine.CheckOperationsTimeout(c.kind.model(), ops, checkMax); got != c.want {
				t.Errorf("the checker says %v, want %v", got, c.want)
			}
		})
	}
}
