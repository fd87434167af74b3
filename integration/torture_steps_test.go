package integration

import (
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wpfs/wpfs/integration/probe"
)

// own changes one of the worker's own names in a way that fits what is there.
func (w *torturer) own() {
	node, rel := w.home, w.name()
	if w.rng.IntN(4) == 0 {
		node = w.rng.IntN(len(w.mounts))
	}
	if w.again != "" {
		node, rel = w.againFrom, w.again
	}
	switch th := w.has[rel]; {
	case th == nil:
		w.make(node, rel)
	case th.kind == unix.S_IFDIR:
		w.changeDir(node, rel, th)
	case th.kind == unix.S_IFREG && w.rng.IntN(2) == 0:
		w.changeFile(node, rel, th)
	default:
		w.changeName(node, rel, th)
	}
}

// text is new content, of a length that differs from one to the next.
func (w *torturer) text() string {
	w.made++
	return fmt.Sprintf("%s%d%s", w.prefix, w.made, strings.Repeat(".", w.made%40))
}

func (w *torturer) make(node int, rel string) {
	path, text := w.at(node, rel), w.text()
	becomes := func(op probe.Op, th *thing) {
		w.change(node, op, []string{rel}, func() { w.has[rel] = th })
	}
	file := &thing{kind: unix.S_IFREG, data: text, mode: 0o644, links: 1}
	switch w.rng.IntN(7) {
	case 0, 1:
		becomes(probe.CreateExcl(path, []byte(text)), file)
	case 2: // O_CREAT without O_EXCL, by a kernel that takes the name for absent
		becomes(probe.WriteFile(path, []byte(text)), file)
	case 3:
		becomes(probe.Mkdir(path), &thing{kind: unix.S_IFDIR, mode: 0o755})
	case 4:
		becomes(probe.Symlink(text, path), &thing{kind: unix.S_IFLNK, data: text, mode: 0o777, links: 1})
	case 5:
		from, ok := w.pick(func(th *thing) bool { return th != nil && th.kind == unix.S_IFREG })
		if !ok {
			becomes(probe.CreateExcl(path, []byte(text)), file)
			return
		}
		th := w.has[from]
		w.change(node, probe.Link(w.at(node, from), path), append(w.names(th), rel), func() { w.has[rel] = th; th.links++ })
	default:
		w.refused(node, probe.Unlink(path), rel, unix.ENOENT)
	}
}

// changeFile changes what is under the name.
func (w *torturer) changeFile(node int, rel string, th *thing) {
	path, text, rels := w.at(node, rel), w.text(), w.names(th)
	switch w.rng.IntN(5) {
	case 0:
		w.change(node, probe.WriteFile(path, []byte(text)), rels, func() { th.data = text })
	case 1:
		w.change(node, probe.AppendFile(path, []byte(text)), rels, func() { th.data += text })
	case 2:
		n := w.rng.IntN(len(th.data) + 1)
		w.change(node, probe.Truncate(path, int64(n)), rels, func() { th.data = th.data[:n] })
	case 3:
		mode := uint32(0o600 + w.rng.IntN(0o100))
		w.change(node, probe.Chmod(path, mode), rels, func() { th.mode = mode })
	default:
		w.refused(node, probe.CreateExcl(path, []byte(text)), rel, unix.EEXIST)
	}
}

// changeDir changes what is in a directory, or its name.
func (w *torturer) changeDir(node int, rel string, th *thing) {
	path := w.at(node, rel)
	switch k := w.rng.IntN(6); {
	case k == 0 && th.data == "":
		w.change(node, probe.CreateExcl(filepath.Join(path, "in"), nil), []string{rel}, func() { th.data = "in" })
	case k == 0:
		w.change(node, probe.Unlink(filepath.Join(path, "in")), []string{rel}, func() { th.data = "" })
	case k == 1:
		w.refused(node, probe.Mkdir(path), rel, unix.EEXIST)
	case k == 2 && th.data != "":
		w.refused(node, probe.Rmdir(path), rel, unix.ENOTEMPTY)
	case k <= 3 && th.data == "":
		w.change(node, probe.Rmdir(path), []string{rel}, func() { delete(w.has, rel) })
	default:
		w.changeName(node, rel, th)
	}
}

// changeName removes, moves or swaps the name.
func (w *torturer) changeName(node int, rel string, th *thing) {
	path, rels := w.at(node, rel), w.names(th)
	isDir := th.kind == unix.S_IFDIR
	to, ok := w.pick(func(o *thing) bool { return o != th && (o == nil || !isDir && o.kind != unix.S_IFDIR) })
	with, both := w.pick(func(o *thing) bool { return o != nil && o != th })
	switch k := w.rng.IntN(5); {
	case k == 0 && both:
		w.change(node, probe.Rename(path, w.at(node, with), unix.RENAME_EXCHANGE), []string{rel, with},
			func() {
				for _, th := range []*thing{th, w.has[with]} {
					th.crossed = th.crossed || th.kind == unix.S_IFDIR && filepath.Dir(with) != filepath.Dir(rel)
				}
				w.has[rel], w.has[with] = w.has[with], th
			})
	case k < 4 && ok:
		old := w.has[to]
		if old != nil {
			rels = append(rels, w.names(old)...)
		} else {
			rels = append(rels, to)
		}
		w.change(node, probe.Rename(path, w.at(node, to), 0), rels, func() {
			if old != nil {
				old.links--
			}
			th.crossed = th.crossed || isDir && filepath.Dir(to) != filepath.Dir(rel)
			w.has[to] = th
			delete(w.has, rel)
		})
	case isDir:
		w.refused(node, probe.Unlink(path), rel, unix.EISDIR)
	default:
		w.change(node, probe.Unlink(path), rels, func() { th.links--; delete(w.has, rel) })
	}
}
