package mem_test

import (
	"testing"

	"github.com/wpfs/wpfs/fs/object"
	"github.com/wpfs/wpfs/fs/object/mem"
	"github.com/wpfs/wpfs/fs/object/objecttest"
)

func TestStore(t *testing.T) {
	objecttest.Run(t, func(*testing.T) object.Store { return mem.New() })
}
