package etcdqueue_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

// BenchmarkTake is the work of the driver for each entry that the workers of one process
// take: one commit that finishes the last entry and claims the next, while a view lists
// after each signal. It also reports the requests per entry.
func BenchmarkTake(b *testing.B) {
	for _, workers := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) { benchmarkTake(b, workers) })
	}
}

func benchmarkTake(b *testing.B, workers int) {
	cluster := testetcd.StartFor(b, 1, testetcd.Options{})
	s := session(b, open(b, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix()}))
	entries := make([]coord.Result, 0, b.N)
	for len(entries) < b.N {
		ops := make([]coord.Op, min(1000, b.N-len(entries)))
		for i := range ops {
			ops[i] = coord.CreateSequential("/q/entries/entry-100-", make([]byte, 100))
		}
		entries = append(entries, commit(b, s, ops...)...)
	}
	changed, err := s.Watch(b.Context(), "/q/entries", "/q/taken", "/q/workers")
	if err != nil {
		b.Fatal(err)
	}
	count := requests(b, cluster)
	stop, viewed := make(chan struct{}), make(chan struct{})
	looks := 0
	go func() {
		defer close(viewed)
		for {
			select {
			case <-changed:
			case <-stop:
				return
			}
			looks++
			for dir, limit := range map[string]int{"/q/taken": 0, "/q/entries": 64} {
				if _, err := s.List(b.Context(), dir, coord.ListOptions{Seen: true, Limit: limit}); err != nil {
					b.Error(err)
				}
			}
		}
	}()
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	inParallel(workers, func(int) {
		var finish []coord.Op
		for {
			i := next.Add(1) - 1
			ops := finish
			if i < int64(b.N) {
				lock := "/q/taken" + entries[i].Path[len("/q/entries"):]
				ops = append(ops, coord.Touch(entries[i].Path, nil, entries[i].Fence), coord.CreateEphemeral(lock, []byte(s.ID()+s.ID())))
			}
			if len(ops) == 0 {
				return
			}
			r, err := s.Commit(b.Context(), ops...)
			if err != nil {
				b.Error(err)
				return
			}
			if i >= int64(b.N) {
				return
			}
			r = r[len(finish):]
			finish = []coord.Op{coord.Delete(r[0].Path, r[0].Fence), coord.Delete(r[1].Path, r[1].Fence)}
		}
	})
	b.StopTimer()
	close(stop)
	<-viewed
	count()
	b.ReportMetric(float64(looks)/float64(b.N), "looks/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkPut is the work of the driver for each entry that is put: a sequential node and
// the producer's marker.
func BenchmarkPut(b *testing.B) {
	for _, producers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(producers), func(b *testing.B) { benchmarkPut(b, producers) })
	}
}

func benchmarkPut(b *testing.B, producers int) {
	cluster := testetcd.StartFor(b, 1, testetcd.Options{})
	s := session(b, open(b, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix()}))
	lanes := make([]coord.Result, producers)
	for i := range lanes {
		lanes[i] = commit(b, s, coord.Create(fmt.Sprintf("/zkq/producers/%d", i), nil))[0]
	}
	count := requests(b, cluster)
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	inParallel(producers, func(i int) {
		for next.Add(1) <= int64(b.N) {
			r, err := s.Commit(b.Context(), coord.Set(lanes[i].Path, []byte("1"), lanes[i].Fence), coord.CreateSequential("/q/entries/entry-100-", make([]byte, 100)))
			if err != nil {
				b.Error(err)
				return
			}
			lanes[i] = r[0]
		}
	})
	b.StopTimer()
	count()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// requests returns a function that returns how many requests the server has got since.
func requests(b *testing.B, cluster *testetcd.Cluster) func() {
	b.Helper()
	asked := func() int {
		r, err := testetcd.Requests(cluster.Endpoints()[0])
		if err != nil {
			b.Fatal(err)
		}
		return r["Txn"] + r["Range"] + r["Watch"]
	}
	before := asked()
	return func() { b.ReportMetric(float64(asked()-before)/float64(b.N), "requests/op") }
}
