package zkq_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord/coordtest"
)

// The collector knows nothing of virtual time, and works when it is asked.
func TestHeldThatIsDroppedIsWarnedOfOnce(t *testing.T) {
	ctx := context.Background()
	c := coordtest.NewStore().Open(coordtest.Options{})
	defer c.Close()
	var mu sync.Mutex
	var warnings []string
	q := zkq.NewLockingQueue(c, "jobs", zkq.Warn(func(message string) {
		mu.Lock()
		defer mu.Unlock()
		warnings = append(warnings, message)
	}))
	defer q.Close()
	var names []string
	for range 4 {
		name, err := q.Put(ctx, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	take := func() *zkq.Held {
		h, err := q.Take(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	func() {
		take() // and forgotten
		if err := take().Consume(ctx); err != nil {
			t.Error(err)
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if err := take().Release(ended); err == nil { // it was tried
			t.Error("a release that nobody waits for was made")
		}
	}()
	kept := take()
	deadline := time.Now().Add(time.Minute)
	for said := 0; said == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		runtime.GC()
		mu.Lock()
		said = len(warnings)
		mu.Unlock()
	}
	for range 5 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(warnings) != 1 || !strings.Contains(warnings[0], "/jobs/entries/"+names[0]) {
		t.Errorf("warnings %q, want one of %s", warnings, names[0])
	}
	if err := kept.Consume(ctx); err != nil {
		t.Error(err)
	}
}
