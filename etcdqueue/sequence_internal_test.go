package etcdqueue

import (
	"sync"
	"testing"
	"time"
)

func TestNumbersOfACommitNeverWrap(t *testing.T) {
	c := numbers{next: maxNumber - 10}
	for _, n := range []int{4096, 5, 4096} {
		if first := c.take(n); first+n > maxNumber {
			t.Errorf("%d numbers from %d", n, first)
		}
	}
	a, b := suffix(7, time.UnixMilli(8), "00000000", maxNumber-2), suffix(7, time.UnixMilli(8), "00000000", maxNumber-1)
	if a >= b || len(a) != len(suffix(1<<62, time.Now(), "ffffffff", 0)) {
		t.Errorf("%s and %s", a, b)
	}
}

func TestNumbersDiffer(t *testing.T) {
	var c numbers
	var mu sync.Mutex
	seen := make(map[int]bool)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				first := c.take(3)
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

func TestOutdatedServersAreNamed(t *testing.T) {
	for version, old := range map[string]bool{
		"3.4.23": true, "3.5.30": true, "3.6.0": true, "3.6.8": true, "3.6.9": false, "3.6.16": false,
		"3.7.0": false, "3.7.3": false, "3.8.0-alpha.0": false, "4.0.0": false, "2.3.8": true, "3.7.0-rc.1": false, "": false, "next": false,
	} {
		if why := outdated(version); (why != "") != old {
			t.Errorf("%s: %q", version, why)
		}
	}
}
