package meta

import (
	"reflect"
	"strings"

	"github.com/wpfs/wpfs/fs"
)

// ResultError is a result's refusal as an error of its kind that names operation
// and object; nil if the operation succeeded.
func ResultError(op fs.Op, r fs.Result) error {
	if r.Kind == fs.OK {
		return nil
	}
	e := &fs.Error{Op: OpName(op), Kind: r.Kind}
	switch o := op.(type) {
	case fs.Create:
		e.Ino, e.Name = o.Parent, o.Name
	case fs.Mkdir:
		e.Ino, e.Name = o.Parent, o.Name
	case fs.Mknod:
		e.Ino, e.Name = o.Parent, o.Name
	case fs.Symlink:
		e.Ino, e.Name = o.Parent, o.Name
	case fs.Tmpfile:
		e.Ino = o.Parent
	case fs.Link:
		e.Ino, e.Name = o.Parent, o.Name
	case fs.Unlink:
		e.Ino, e.Name = o.Parent, o.Name
	case fs.Rmdir:
		e.Ino, e.Name = o.Parent, o.Name
	case fs.Rename:
		e.Ino, e.Name = o.Parent, o.Name
	case fs.SetAttr:
		e.Ino = o.Ino
	case fs.SetXattr:
		e.Ino, e.Name = o.Ino, o.Name
	case fs.RemoveXattr:
		e.Ino, e.Name = o.Ino, o.Name
	case fs.Publish:
		e.Ino = o.Ino
	case fs.Append:
		e.Ino = o.Ino
	}
	return e
}

// OpName is the operation's name in messages and metrics: "create", "setattr".
func OpName(op fs.Op) string {
	if op == nil {
		return "nothing"
	}
	return strings.ToLower(reflect.TypeOf(op).Name())
}
