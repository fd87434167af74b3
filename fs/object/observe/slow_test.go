package observe_test

import (
	"context"
	"time"

	"github.com/wpfs/wpfs/fs/object"
)

// slow takes a second for each Delete.
type slow struct{ object.Store }

func (s slow) Delete(ctx context.Context, key string) error {
	time.Sleep(time.Second)
	return s.Store.Delete(ctx, key)
}
