package zkqueue_test

import (
	"testing"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/internal/testzk"
	"github.com/zkq/zkq/zkqueue"
)

// TestWhatIsMergedFitsASmallerServer has sixteen producers put entries to a server that
// accepts 64 KiB. Each entry fits alone, but not merged with the others.
func TestWhatIsMergedFitsASmallerServer(t *testing.T) {
	t.Parallel()
	cluster := testzk.StartFor(t, 1, testzk.Options{MaxBuffer: 64 << 10})
	link := testzk.NewLink(t, cluster.Addresses()...)
	q := zkq.NewLockingQueue(open(t, zkqueue.Config{Servers: link.Addresses()}), "jobs")
	defer q.Close()
	ctx := within(t, patience)
	inParallel(16, func(int) {
		for range 20 {
			if _, err := q.Put(ctx, make([]byte, 10_000)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	if n, err := q.Len(ctx); n != 320 || err != nil {
		t.Errorf("%d entries, %v; want 320", n, err)
	}
	// Each request that is too large costs a connection and halves the limit: from 16 puts to 3.
	if n := link.Dials(); n > 8 {
		t.Errorf("%d connections; want at most 8", n)
	}
}
