package etcdqueue

import (
	"sync"
	"testing"
	"time"
)

func TestNumbersOfACommitNeverWrap(t *testing.T) {
	c := nameCounter{next: maxNameCounter - 10}
	for _, n := range []int{4096, 5, 4096} {
		if first := c.reserve(n); first+n > maxNameCounter {
			t.Errorf("%d numbers from %d", n, first)
		}
	}
	a, b := nameSuffix(7, time.UnixMilli(8), "00000000", maxNameCounter-2), nameSuffix(7, time.UnixMilli(8), "00000000", maxNameCounter-1)
	if a >= b || len(a) != len(nameSuffix(1<<62, time.Now(), "ffffffff", 0)) {
		t.Errorf("%s and %s", a, b)
	}
}

func TestNumbersDiffer(t *testing.T) {
	var c nameCounter
	var mu sync.Mutex
	seen := make(map[int]bool)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				first := c.reserve(3)
				mu.Lock()
				for i := first; i < first+3; i++ {
					if seen[i] {
						t.Errorf("%d twice", i)
					}
					seen[i] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestQueueOf(t *testing.T) {
	for prefix, want := range map[string]string{
		"/q/entries/entry-100-": "/q", "/q/entry-100-": "/q", "/a/b/entries/x-": "/a/b",
		"/entries/x-": "/", "/x-": "/", "/entries-x": "/", "/a/entriesx/y": "/a/entriesx", "/q/entries/": "/q",
	} {
		if got := queueOf(prefix); got != want {
			t.Errorf("%s: %s, want %s", prefix, got, want)
		}
	}
}
