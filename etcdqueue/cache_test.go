package etcdqueue_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

// listed returns the names of a listing.
func listed(t testing.TB, s coord.Session, dir string, o coord.ListOptions) []string {
	t.Helper()
	l, err := s.List(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range l.Nodes {
		names = append(names, path.Base(n.Path))
	}
	return names
}

// watchCached watches a directory and has its cache filled.
func watchCached(t testing.TB, s coord.Session, dir string) <-chan struct{} {
	t.Helper()
	ch, err := s.Watch(within(t, patience), dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		listed(t, s, dir, coord.ListOptions{Seen: true})
	}
	return ch
}

func TestWatchedDirectoriesAreListedWithoutRequests(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{})
	s := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix()}))
	ch := watchCached(t, s, "/q")
	asked := func() int {
		t.Helper()
		r, err := testetcd.Requests(cluster.Endpoints()[0])
		if err != nil {
			t.Fatal(err)
		}
		if r["Range"] == 0 || r["Txn"] == 0 {
			t.Fatalf("the server counts %v", r)
		}
		return r["Range"]
	}
	before := asked()
	for i := range 50 {
		quietly(ch)
		commit(t, s, coord.Create(fmt.Sprintf("/q/%02d", i), nil))
		if !signalled(ch) {
			t.Fatal("no signal")
		}
		if got := listed(t, s, "/q", coord.ListOptions{Seen: true}); len(got) != i+1 {
			t.Fatalf("after the signal of the %d. node: %q", i+1, got)
		}
		if got := listed(t, s, "/q", coord.ListOptions{Seen: true, After: "04", Limit: 2}); len(got) != min(2, max(0, i-4)) {
			t.Fatalf("a page of %d nodes: %q", i+1, got)
		}
	}
	if n := asked() - before; n != 0 {
		t.Errorf("%d listings were requests", n)
	}
	listed(t, s, "/q", coord.ListOptions{})
	listed(t, s, "/q", coord.ListOptions{Fresh: true})
	if n := asked() - before; n != 2 {
		t.Errorf("2 listings that had to ask were %d requests", n)
	}
}

// quietly receives a signal if there is one.
func quietly(ch <-chan struct{}) {
	select {
	case <-ch:
	default:
	}
}

// TestAListingShowsWhatASignalAnnounced compares listings from the cache with the
// service's, while another client makes changes of all kinds: nodes, directories, and names
// that are both.
func TestAListingShowsWhatASignalAnnounced(t *testing.T) {
	at := prefix()
	config := etcdqueue.Config{Endpoints: single.get(t).Endpoints(), Prefix: at}
	s, other := session(t, open(t, config)), session(t, open(t, config))
	r := rand.New(rand.NewPCG(3, 4))
	there := make(map[string]coord.Fence)
	change := func() {
		var ops []coord.Op
		var paths []string
		for range 1 + r.IntN(3) {
			p := fmt.Sprintf("/q/%d", r.IntN(6))
			for r.IntN(3) == 0 {
				p += fmt.Sprintf("/%d", r.IntN(2))
			}
			if slices.Contains(paths, p) {
				continue
			}
			paths = append(paths, p)
			switch f, ok := there[p]; {
			case !ok:
				ops = append(ops, coord.Create(p, nil))
			case r.IntN(3) == 0:
				ops = append(ops, coord.Touch(p, nil, f))
			default:
				ops = append(ops, coord.Delete(p, f))
			}
		}
		for i, res := range commit(t, other, ops...) {
			if there[paths[i]] = res.Fence; res.Fence == 0 {
				delete(there, paths[i])
			}
		}
	}
	for range 20 {
		change()
	}
	ch := watchCached(t, s, "/q")
	stamps := make(map[uint64]string)
	for round := range 300 {
		change()
		want := listed(t, other, "/q", coord.ListOptions{Fresh: true})
		for {
			l, err := s.List(t.Context(), "/q", coord.ListOptions{Seen: true})
			if err != nil {
				t.Fatal(err)
			}
			got := listed(t, s, "/q", coord.ListOptions{Seen: true})
			if was, ok := stamps[l.Stamp]; slices.Equal(got, want) && len(l.Nodes) == len(got) {
				if ok && was != fmt.Sprint(got) {
					t.Fatalf("round %d: %q has the stamp of %s", round, got, was)
				}
				stamps[l.Stamp] = fmt.Sprint(got)
				break
			}
			if !signalled(ch) {
				t.Fatalf("round %d: without a signal more, seen %q, there %q", round, got, want)
			}
		}
		for limit := 1; limit < 8; limit++ {
			after := fmt.Sprint(r.IntN(6))
			page := slices.DeleteFunc(slices.Clone(want), func(name string) bool { return name <= after })
			page = page[:min(limit, len(page))]
			if got := listed(t, s, "/q", coord.ListOptions{Seen: true, Limit: limit, After: after}); !slices.Equal(got, page) {
				t.Fatalf("round %d: %d after %s: seen %q, there %q", round, limit, after, got, page)
			}
		}
	}
}

// TestAListingNeverShowsLessThanAnEarlierOne lists a large directory while it grows: before
// the cache is filled, while it is being filled, and after the watch was replaced.
func TestAListingNeverShowsLessThanAnEarlierOne(t *testing.T) {
	at := prefix()
	config := etcdqueue.Config{Endpoints: single.get(t).Endpoints(), Prefix: at}
	s, other := session(t, open(t, config)), session(t, open(t, config))
	for range 3 {
		var ops []coord.Op
		for range 4000 {
			ops = append(ops, coord.CreateSequential("/q/b", nil))
		}
		commit(t, other, ops...)
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 99_999; ; i-- { // each the first
			select {
			case <-stop:
				return
			default:
			}
			if _, err := other.Commit(context.Background(), coord.Create(fmt.Sprintf("/q/a%05d", i), nil)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer writer.Wait()
	defer close(stop)
	first := "c"
	for range 20 {
		ctx, unwatch := context.WithCancel(t.Context())
		if _, err := s.Watch(ctx, "/q"); err != nil {
			t.Fatal(err)
		}
		var lists sync.WaitGroup
		for range 4 {
			lists.Go(func() {
				last := first
				for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
					l, err := s.List(t.Context(), "/q", coord.ListOptions{Seen: true, Limit: 1})
					if err != nil || len(l.Nodes) != 1 || !l.More {
						t.Errorf("%+v, %v", l, err)
						return
					}
					if got := path.Base(l.Nodes[0].Path); got > last {
						t.Errorf("%s after %s", got, last)
						return
					} else {
						last = got
					}
				}
			})
		}
		lists.Wait()
		first = listed(t, s, "/q", coord.ListOptions{Seen: true, Limit: 1})[0]
		unwatch()
	}
}

// TestCompactionHidesNothingFromTheCache compacts revisions whose events the cache has
// missed.
func TestCompactionHidesNothingFromTheCache(t *testing.T) {
	cluster, at := single.get(t), prefix()
	link := testetcd.NewLink(t, cluster.Endpoints()...)
	s := session(t, open(t, etcdqueue.Config{Endpoints: link.Addresses(), Prefix: at}))
	other := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: at}))
	f := commit(t, other, coord.Create("/q/before", nil), coord.Create("/q/x", nil))[1].Fence
	ch := watchCached(t, s, "/q")
	link.Cut()
	r := commit(t, other, coord.Create("/q/during", nil), coord.Delete("/q/x", f))
	commit(t, other, coord.Create("/elsewhere", nil))
	if _, err := cluster.Client(t).Compact(within(t, patience), int64(r[0].Fence)+1, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, s, "/q", coord.ListOptions{Seen: true}); !slices.Equal(got, []string{"before", "x"}) {
		t.Errorf("while it is cut off, %q is seen", got)
	}
	link.Heal()
	for {
		got := listed(t, s, "/q", coord.ListOptions{Seen: true})
		if slices.Equal(got, []string{"before", "during"}) {
			break
		}
		if !signalled(ch) {
			t.Fatalf("no signal, and seen is %q", got)
		}
	}
}

// TestValuesOfAWatchedDirectoryAreRead lists values, also when the last event was so long
// ago that its revision was compacted.
func TestValuesOfAWatchedDirectoryAreRead(t *testing.T) {
	cluster := single.get(t)
	s := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix()}))
	commit(t, s, coord.Create("/q/a", []byte("1")))
	watchCached(t, s, "/q")
	for range 2 {
		l, err := s.List(t.Context(), "/q", coord.ListOptions{Seen: true, Values: true})
		if err != nil || len(l.Nodes) != 1 || string(l.Nodes[0].Value) != "1" {
			t.Fatalf("%+v, %v", l, err)
		}
		r := commit(t, s, coord.Create("/elsewhere/"+s.ID()+fmt.Sprint(time.Now().UnixNano()), nil))
		if _, err := cluster.Client(t).Compact(within(t, patience), int64(r[0].Fence)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestACacheOfManyNamesIsSmall measures the memory of a cache with a hundred thousand
// names.
func TestACacheOfManyNamesIsSmall(t *testing.T) {
	endpoints := testetcd.StartFor(t, 1, testetcd.Options{}).Endpoints()
	s := session(t, open(t, etcdqueue.Config{Endpoints: endpoints, Prefix: prefix()}))
	const n, each = 100_000, 4000
	for range n / each {
		ops := make([]coord.Op, each)
		for i := range ops {
			ops[i] = coord.CreateSequential("/q/entries/entry-100-", make([]byte, 100))
		}
		commit(t, s, ops...)
	}
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	watchCached(t, s, "/q/entries")
	asked := func() int {
		r, err := testetcd.Requests(endpoints[0])
		if err != nil {
			t.Fatal(err)
		}
		return r["Range"]
	}
	eventually(t, patience, "the mirror stands", func() bool {
		before := asked()
		return len(listed(t, s, "/q/entries", coord.ListOptions{Seen: true})) == n && asked() == before
	})
	grown := heap() - before
	t.Logf("%d bytes for each name", grown/n)
	if most := 16 << 20; grown > most {
		t.Errorf("%d KiB for %d names, want no more than %d", grown>>10, n, most>>10)
	}
	if got := listed(t, s, "/q/entries", coord.ListOptions{Seen: true, Limit: 10}); len(got) != 10 {
		t.Errorf("%d names", len(got))
	}
}
