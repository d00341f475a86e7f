package integration_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/internal/testcoord"
	"github.com/zkq/zkq/internal/testzk"
)

// backlog is how many entries the directory of the test has: each of its listings is
// 2.4 MB.
const backlog = 100_000

func TestBacklogOf100000AndWhatDoesNotBelongThere(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex
	warned := make(map[string]int)
	q := b.locking(zkq.Warn(func(m string) {
		mu.Lock()
		defer mu.Unlock()
		warned[m]++
	}))
	for n := 0; n < backlog; n += 4000 {
		batch := make([][]byte, 4000)
		for i := range batch {
			batch[i] = []byte(strconv.Itoa(n + i))
		}
		if _, err := q.PutAll(b.ctx, batch); err != nil {
			t.Fatal(err)
		}
	}
	b.release(b.take(q)) // makes the directory of locks

	z := b.zookeeper()
	foreign := []string{"garbage", "entry-abc", "entry-100-", "entry-100--2147483648", "aaa"}
	for _, name := range foreign {
		z.create("/jobs/entries/"+name, "not an entry")
	}
	z.create("/jobs/taken/entry-100-0999999999", "no entry")         // a lock without an entry
	z.create("/jobs/taken/garbage2", "no entry, and no name of one") // the same
	z.create("/jobs/taken/entry-100-0000000003", "a stranger's")     // a persistent lock that puts nothing aside

	// cost runs f and demands that it needs at most so many requests, whatever their size.
	cost := func(what string, most int, f func()) {
		t.Helper()
		before, begun := b.requests(), time.Now()
		f()
		took, n := time.Since(begun), b.requests()-before
		t.Logf("%s: %d requests, %v", what, n, took.Round(time.Millisecond))
		if before >= 0 && n > most {
			t.Errorf("%s needed %d requests, want at most %d", what, n, most)
		}
		if took > time.Minute {
			t.Errorf("%s took %v", what, took)
		}
	}

	cost("Len", 10, func() {
		if n, err := q.Len(b.ctx); err != nil || n != backlog+len(foreign) { // as kazoo counts
			t.Errorf("Len = %d, %v", n, err)
		}
	})
	cost("Stat", 20, func() {
		st, err := q.Stat(b.ctx)
		if err != nil || st.Ready != backlog-1 || st.Held != 1 || st.Total() != backlog || st.Oldest.IsZero() {
			t.Errorf("Stat = %+v, %v", st, err)
		}
	})
	cost("the first 10 of Entries", 100, func() {
		n := 0
		for e, err := range q.Entries(b.ctx) {
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("entry-100-%010d", n); e.Name != want || (e.State == zkq.StateReady) != (n != 3) {
				t.Errorf("%d is %s, %s", n, e.Name, e.State)
			}
			if n++; n == 10 {
				break
			}
		}
	})
	cost("Peek", 20, func() {
		if e, err := q.Peek(b.ctx, ""); err != nil || string(e.Value) != "0" {
			t.Errorf("Peek = %+v, %v", e, err)
		}
	})
	cost("TryTake and Release", 25, func() {
		h, err := q.TryTake(b.ctx)
		if err != nil || string(h.Value) != "0" {
			t.Fatalf("TryTake = %+v, %v", h, err)
		}
		b.release(h)
	})
	cost("taking and consuming 10", 120, func() {
		for i := range 10 {
			h := b.take(q)
			want := i
			if i >= 3 {
				want++ // the stranger has that one
			}
			if string(h.Value) != strconv.Itoa(want) {
				t.Errorf("took %q, want %d", h.Value, want)
			}
			b.consume(h)
		}
	})
	cost("TryTakeN(100)", 500, func() {
		held, err := q.TryTakeN(b.ctx, 100)
		if err != nil || len(held) != 100 || string(held[0].Value) != "11" || string(held[99].Value) != "110" {
			t.Fatalf("TryTakeN(100) = %d entries, %v", len(held), err)
		}
		b.release(held[50])
	})
	cost("another process' first take", 40, func() {
		if h := b.take(b.locking()); string(h.Value) != "61" {
			t.Errorf("took %q", h.Value)
		}
	})
	command := buildCommand(t)
	zkq := func(want string, args ...string) {
		t.Helper()
		cost("zkq "+strings.Join(args, " "), 400, func() {
			out, err := b.run(command, args...)
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("zkq %s: %v, %.300q, want %q", args, err, out, want)
			}
		})
	}
	zkq("99990", "stat", "jobs")
	zkq("entry-100-0000000003", "ls", "-n", "10", "jobs")
	zkq("111", "get", "jobs")
	zkq("112", "consume", "-n", "10", "jobs", "--", "cat")

	// What does not belong there stands as it stood, and was named once.
	for _, name := range foreign {
		if value, stat, ok := z.read("/jobs/entries/" + name); !ok || value != "not an entry" || stat.Version != 0 {
			t.Errorf("%s: there %v, %q, version %d", name, ok, value, stat.Version)
		}
	}
	for _, name := range []string{"entry-100-0999999999", "garbage2", "entry-100-0000000003"} {
		if _, stat, ok := z.read("/jobs/taken/" + name); !ok || stat.Version != 0 {
			t.Errorf("lock %s: there %v, version %d", name, ok, stat.Version)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, name := range []string{"entry-100-0999999999", "garbage2", "entry-100-0000000003"} {
		foreign = append(foreign, "../taken/"+name)
	}
	for _, name := range foreign {
		node := path.Join("/jobs/entries", name)
		named := 0
		for message, times := range warned {
			if strings.HasPrefix(message, node+" ") {
				named += times
			}
		}
		if named != 1 {
			t.Errorf("%s was reported %d times: %v", node, named, warned)
		}
	}
	if h := z.children("/jobs/entries"); !slices.Contains(h, "entry-100-0000000003") {
		t.Error("the stranger's entry is gone")
	}
}

// TestForeignNodesBesideASimpleQueueAreInNobodysWay: kazoo would hand them out.
func TestForeignNodesBesideASimpleQueueAreInNobodysWay(t *testing.T) {
	b := newBench(t)
	warned := make(map[string]int)
	q := b.simple(zkq.Warn(func(m string) { warned[m]++ }))
	b.put(q, []byte("good"))
	z := b.zookeeper()
	foreign := []string{"aaa", "entry-abc", "entry-100-", "entry-000--2147483648"}
	for _, name := range foreign {
		z.create("/jobs/"+name, "not an entry")
	}
	if n, err := q.Len(b.ctx); n != 1 || err != nil {
		t.Errorf("Len = %d, %v", n, err)
	}
	if got := b.get(q); string(got) != "good" {
		t.Errorf("got %q", got)
	}
	for range 3 {
		if e, err := q.TryGet(b.ctx); !errors.Is(err, zkq.ErrEmpty) {
			t.Errorf("TryGet = %+v, %v", e, err)
		}
	}
	if got := z.children("/jobs"); len(got) != len(foreign) {
		t.Errorf("left are %q", got)
	}
	// Beside its entries other queues may lie: only what looks like an entry is reported.
	if len(warned) != 3 {
		t.Errorf("reported: %v", warned)
	}
	for m, times := range warned {
		if times != 1 {
			t.Errorf("%q was reported %d times", m, times)
		}
	}
}

// buildCommand is the command zkq.
func buildCommand(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "zkq")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/zkq/zkq/cmd/zkq").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	return path
}

// run is the command's stdout.
func (b *bench) run(command string, args ...string) (string, error) {
	cmd := exec.CommandContext(b.ctx, command, args...)
	cmd.Env = append(os.Environ(), "ZKQ_COORDINATOR=zk://"+strings.Join(b.servers, ",")+b.chroot)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

// requests is how many the server has had, -1 where it does not say.
func (b *bench) requests() int {
	b.Helper()
	answer, err := testzk.Ask(b.servers[0], "srvr")
	if err != nil {
		b.Fatal(err)
	}
	m := regexp.MustCompile(`Received: (\d+)`).FindStringSubmatch(answer)
	if m == nil {
		return -1
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// TestTimedOutGetsLeaveNothing counts what all sessions have at the server, and so has one
// of its own.
func TestTimedOutGetsLeaveNothing(t *testing.T) {
	needs := servers.Single(t) // says what is missing
	c, err := testzk.Start(1)
	if err != nil {
		t.Fatalf("beside %v: %v", needs.Addresses(), err)
	}
	defer c.Stop()
	for _, kind := range []string{"locking", "simple"} {
		t.Run(kind, func(t *testing.T) {
			b := benchOn(t, c)
			z := b.zookeeper()
			dirs := []string{"/jobs"}
			var get func(context.Context) error
			if kind == "locking" {
				q := b.locking()
				b.put(q, nil)
				b.consume(b.take(q))
				dirs = []string{"/jobs", "/jobs/entries", "/jobs/taken"} // the first was looked at once
				get = func(ctx context.Context) error { _, err := q.Take(ctx); return err }
			} else {
				q := b.simple()
				b.put(q, nil)
				b.get(q)
				get = func(ctx context.Context) error { _, err := q.Get(ctx); return err }
			}
			// Now and then something comes and goes, so that the watches fire and are set again, and
			// contexts end at every point of a get.
			timeouts := func(n int) {
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						for i := range n / 20 {
							ctx, cancel := context.WithTimeout(b.ctx, time.Duration(i%20)*100*time.Microsecond)
							err := get(ctx)
							cancel()
							if !errors.Is(err, context.DeadlineExceeded) {
								t.Errorf("get %d: %v", i, err)
								return
							}
						}
					})
				}
				ended := make(chan struct{})
				go func() {
					wg.Wait()
					close(ended)
				}()
				for {
					for _, dir := range dirs {
						z.create(dir+"/foreign", "")
						z.remove(dir + "/foreign")
					}
					select {
					case <-ended:
						return
					case <-time.After(5 * time.Millisecond):
					}
				}
			}
			timeouts(1000)
			heap, goroutines := heapInUse(), runtime.NumGoroutine()
			timeouts(20_000)
			// Two for each directory, one that lasts and one that its listing set, as soon as those
			// that fired last are set again. A locking queue also watches what is delayed, and
			// the workers.
			n, most := 0, 2*len(dirs)
			if len(dirs) > 1 {
				most += 2 * 2
			}
			for end := time.Now().Add(2 * time.Minute); n < 1 || n > most; time.Sleep(5 * time.Millisecond) {
				var err error
				if n, err = testzk.Watches(b.servers[0]); err != nil {
					t.Fatal(err)
				}
				if time.Now().After(end) {
					t.Fatalf("the server has %d watches", n)
				}
			}
			testcoord.Eventually(t, testcoord.Patience, "goroutines are as many as before", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
			after := heapInUse()
			t.Logf("%d watches, %d goroutines before and %d after, heap %d KiB before and %d KiB after",
				n, goroutines, runtime.NumGoroutine(), heap>>10, after>>10)
			if after > heap+1<<20 {
				t.Errorf("the heap grew from %d to %d bytes", heap, after)
			}
		})
	}
}

// TestClosedQueuesLeaveNothing opens and closes handles on one session.
func TestClosedQueuesLeaveNothing(t *testing.T) {
	b := newBench(t)
	c := b.client()
	round := func() {
		q := zkq.NewLockingQueue(c, queueName)
		ctx, cancel := context.WithTimeout(b.ctx, time.Millisecond)
		defer cancel()
		if _, err := q.Take(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Take: %v", err)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		round()
	}
	heap, goroutines := heapInUse(), runtime.NumGoroutine()
	for range 500 {
		round()
	}
	// What a handle leaves behind ends when the service has answered it.
	for deadline := time.Now().Add(2 * time.Minute); runtime.NumGoroutine() > goroutines+2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
	}
	if after := heapInUse(); after > heap+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes", heap, after)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
