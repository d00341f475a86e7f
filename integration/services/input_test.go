package services_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/etcdqueue/embedded"
	"github.com/zkq/zkq/internal/testcoord"
	"github.com/zkq/zkq/zkqueue"
)

// onAll is onEach and the service in memory.
func onAll(t *testing.T, test func(t *testing.T, p *place)) {
	t.Run("memory", func(t *testing.T) {
		p := newPlace(t, "memory")
		p.store = coordtest.NewStore()
		test(t, p)
	})
	onEach(t, test)
}

// asked counts how often a caller asked a coordinator for its session, without which nothing can be sent.
type asked struct {
	coord.Coordinator
	n atomic.Int64
}

func (a *asked) Session(ctx context.Context) (coord.Session, error) {
	a.n.Add(1)
	return a.Coordinator.Session(ctx)
}

// refusal is a call that must be refused, and how.
type refusal struct {
	what string
	call func() error
	is   error
	says []string // parts of the error
	asks bool     // only the service can tell, for instance its limits
}

// refuses demands each refusal, and that the service is after it as it was before.
func (p *place) refuses(t *testing.T, a *asked, refusals []refusal) {
	t.Helper()
	look := p.session(p.client())
	before := p.nodes(look)
	for _, r := range refusals {
		var err error
		for range 5 { // a goroutine of the queue's own may ask meanwhile: not every time
			a.n.Store(0)
			if err = r.call(); a.n.Load() == 0 || r.asks {
				break
			}
		}
		if !errors.Is(err, r.is) {
			t.Errorf("%s: %v, want %v", r.what, err, r.is)
			continue
		}
		for _, word := range r.says {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q does not say %q", r.what, err, word)
			}
		}
		if a.n.Load() > 0 && !r.asks {
			t.Errorf("%s: the service was asked", r.what)
		}
		if after := p.nodes(look); !maps.Equal(before, after) {
			t.Fatalf("%s: changed the service from %v to %v", r.what, before, after)
		}
	}
}

// handle is either queue.
type handle interface {
	Put(context.Context, []byte, ...zkq.PutOption) (string, error)
	PutAll(context.Context, [][]byte, ...zkq.PutOption) ([]string, error)
	Len(context.Context) (int, error)
	Stat(context.Context) (zkq.Stat, error)
	Peek(context.Context, string) (zkq.Entry, error)
	Remove(context.Context, string, bool) error
	Purge(context.Context, zkq.State) (int, error)
	WaitEmpty(context.Context) error
}

const someEntry = "entry-100-0000000000"

// calls are all methods of a queue that reach for the service.
func calls(h handle) map[string]func(context.Context) error {
	all := map[string]func(context.Context) error{
		"Put":       func(ctx context.Context) error { return second(h.Put(ctx, nil)) },
		"PutAll":    func(ctx context.Context) error { return second(h.PutAll(ctx, [][]byte{nil})) },
		"Len":       func(ctx context.Context) error { return second(h.Len(ctx)) },
		"Stat":      func(ctx context.Context) error { return second(h.Stat(ctx)) },
		"Peek":      func(ctx context.Context) error { return second(h.Peek(ctx, "")) },
		"Peek name": func(ctx context.Context) error { return second(h.Peek(ctx, someEntry)) },
		"Remove":    func(ctx context.Context) error { return h.Remove(ctx, someEntry, true) },
		"Purge":     func(ctx context.Context) error { return second(h.Purge(ctx, zkq.StateHeld)) },
		"PurgeDead": func(ctx context.Context) error { return second(h.Purge(ctx, zkq.StateDead)) },
		"WaitEmpty": func(ctx context.Context) error { return h.WaitEmpty(ctx) },
	}
	switch q := h.(type) {
	case *zkq.LockingQueue:
		all["Take"] = func(ctx context.Context) error { return second(q.Take(ctx)) }
		all["TryTake"] = func(ctx context.Context) error { return second(q.TryTake(ctx)) }
		all["TakeN"] = func(ctx context.Context) error { return second(q.TakeN(ctx, 2)) }
		all["TryTakeN"] = func(ctx context.Context) error { return second(q.TryTakeN(ctx, 2)) }
		all["Get"] = func(ctx context.Context) error { return second(q.Get(ctx)) }
		all["Consume"] = q.Consume
		all["Release"] = q.Release
		all["HoldsLock"] = func(ctx context.Context) error { return second(q.HoldsLock(ctx)) }
		all["Requeue"] = func(ctx context.Context) error { return second(q.Requeue(ctx, someEntry)) }
		all["BreakLock"] = func(ctx context.Context) error { return q.BreakLock(ctx, someEntry) }
		all["Entries"] = func(ctx context.Context) error { return firstError(q.Entries(ctx)) }
	case *zkq.Queue:
		all["Get"] = func(ctx context.Context) error { return second(q.Get(ctx)) }
		all["TryGet"] = func(ctx context.Context) error { return second(q.TryGet(ctx)) }
		all["Entries"] = func(ctx context.Context) error { return firstError(q.Entries(ctx)) }
	}
	return all
}

func second[T any](_ T, err error) error { return err }

func firstError[T any](all func(func(T, error) bool)) (err error) {
	all(func(_ T, e error) bool { err = e; return false })
	return err
}

func TestBadNamesAreRefusedByEveryCall(t *testing.T) {
	names := []struct{ name, says string }{
		{"", "empty"},
		{"/", "empty"},
		{"jobs/", "empty segment at byte 5"},
		{"//jobs", "empty segment at byte 1"},
		{"a//b", "empty segment at byte 2"},
		{".", `"." at byte 0`},
		{"..", `".." at byte 0`},
		{"a/../b", `".." at byte 2`},
		{"/a/./b", `"." at byte 3`},
		{"a\x00b", "byte 1"},
		{"a\nb", "byte 1"},
		{"ab\x7f", "byte 2"},
		{"a\u0085", "byte 1"},
		{"ab\ue000", "byte 2"},
		{"ab\uf8ff", "byte 2"},
		{"\ufffe", "byte 0"},
		{"ab\xff", "byte 2 is not UTF-8"},
		{"\xed\xa0\x80", "byte 0 is not UTF-8"}, // half a surrogate pair
		{strings.Repeat("x", 256), "256 bytes, the limit is 255"},
		{strings.Repeat("x/", 600) + "x", "the limit is 1024"},
		{"entry-1", "entry-"},
		{"zookeeper/a", "reserved"},
		{"zkq", "reserved"},
	}
	for _, own := range []string{"entries", "taken", "delayed", "dead", "broken", "workers", "watchers", "attempts", "unique", "config", "count"} {
		names = append(names, struct{ name, says string }{"a/" + own, "byte 2 is reserved"})
	}
	onAll(t, func(t *testing.T, p *place) {
		a := &asked{Coordinator: p.client()}
		var all []refusal
		for _, n := range names {
			for _, h := range []interface {
				handle
				Close() error
			}{zkq.NewLockingQueue(a, n.name), zkq.NewQueue(a, n.name)} {
				t.Cleanup(func() { h.Close() })
				calls := calls(h)
				if n.name != "a//b" { // one name by every call, the others by one
					calls = map[string]func(context.Context) error{"Put": calls["Put"]}
				}
				for call, do := range calls {
					all = append(all, refusal{fmt.Sprintf("%T(%q).%s", h, n.name, call), func() error { return do(p.ctx) }, zkq.ErrInvalidName, []string{n.says}, false})
				}
			}
		}
		p.refuses(t, a, all)
	})
}

func TestBadArgumentsAreRefusedAndNothingIsSent(t *testing.T) {
	onAll(t, func(t *testing.T, p *place) {
		a := &asked{Coordinator: p.client()}
		q := p.locking(a, "jobs")
		plain := zkq.NewQueue(a, "plain")
		defer plain.Close()
		limits := p.session(p.client()).Limits()
		p.put(q, "stands")
		var all []refusal
		add := func(what string, is error, asks bool, call func() error, says ...string) {
			all = append(all, refusal{what, call, is, says, asks})
		}
		for _, h := range []handle{q, plain} {
			of := fmt.Sprintf("%T", h)
			for _, n := range []int{-1, 1000, 1e9, math.MinInt, math.MaxInt} {
				add(fmt.Sprintf("%s priority %d", of, n), zkq.ErrInvalidPriority, false,
					func() error { return second(h.Put(p.ctx, nil, zkq.WithPriority(n))) }, fmt.Sprint(n), "to 999")
				add(fmt.Sprintf("%s priority %d of a batch", of, n), zkq.ErrInvalidPriority, false,
					func() error { return second(h.PutAll(p.ctx, [][]byte{nil, nil}, zkq.WithPriority(n))) }, fmt.Sprint(n))
			}
			large := make([]byte, zkq.MaxValue+1)
			add(of+" value over the limit", zkq.ErrTooLarge, false, func() error { return second(h.Put(p.ctx, large)) }, "1044481", "1044480")
			add(of+" bad element", zkq.ErrTooLarge, false,
				func() error { return second(h.PutAll(p.ctx, [][]byte{nil, large, nil})) }, "value 2 of 3", "1044481", "1044480")
			add(of+" too many elements", zkq.ErrTooLarge, true, func() error {
				return second(h.PutAll(p.ctx, make([][]byte, limits.Creates+1)))
			}, fmt.Sprint(limits.Creates+1))
			add(of+" too many bytes", zkq.ErrTooLarge, true, func() error {
				return second(h.PutAll(p.ctx, slices.Repeat([][]byte{large[1:]}, limits.CommitBytes/zkq.MaxValue+1)))
			})
			for _, name := range []string{"x", "../x", "entry-", "entry-100", "entry-1000-0000000001", "entry-100-0000000001/x", "entry-100--000000001"} {
				add(of+" Remove "+name, zkq.ErrInvalidName, false, func() error { return h.Remove(p.ctx, name, true) }, name)
				add(of+" Peek "+name, zkq.ErrInvalidName, false, func() error { return second(h.Peek(p.ctx, name)) }, name)
			}
			add(of+" Remove without a name", zkq.ErrInvalidName, false, func() error { return h.Remove(p.ctx, "", true) })
			add(of+" Purge of no state", zkq.ErrInvalid, false, func() error { return second(h.Purge(p.ctx, "gone")) }, "gone")
		}
		for _, n := range []int{0, -1, math.MinInt} {
			add(fmt.Sprintf("TakeN(%d)", n), zkq.ErrInvalid, false, func() error { return second(q.TakeN(p.ctx, n)) }, fmt.Sprint(n))
			add(fmt.Sprintf("TryTakeN(%d)", n), zkq.ErrInvalid, false, func() error { return second(q.TryTakeN(p.ctx, n)) }, fmt.Sprint(n))
		}
		add("Requeue of no entry's name", zkq.ErrInvalidName, false, func() error { return second(q.Requeue(p.ctx, "x")) }, "x")
		add("BreakLock without a name", zkq.ErrInvalidName, false, func() error { return q.BreakLock(p.ctx, "") })
		add("Entries of no state", zkq.ErrInvalid, false, func() error { return firstError(q.Entries(p.ctx, "gone")) }, "gone")
		p.refuses(t, a, all)

		if names, err := q.PutAll(p.ctx, nil); len(names) != 0 || err != nil {
			t.Errorf("PutAll of nothing = %q, %v", names, err)
		}
		if _, err := plain.Put(p.ctx, nil); err != nil {
			t.Error(err)
		}
		if e, err := plain.TryGet(p.ctx); err != nil || e.Value == nil || len(e.Value) > 0 {
			t.Errorf("put without a value: %v, %v", e.Value, err)
		}
	})
}

func TestEndedAndMissingContextsSendNothing(t *testing.T) {
	onAll(t, func(t *testing.T, p *place) {
		a := &asked{Coordinator: p.client()}
		q := p.locking(a, "jobs")
		plain := zkq.NewQueue(a, "plain")
		defer plain.Close()
		for range 3 {
			p.put(q, "stands")
		}
		if _, err := plain.Put(p.ctx, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := q.Get(p.ctx); err != nil { // for Consume, Release and HoldsLock
			t.Fatal(err)
		}
		h, err := q.Take(p.ctx)
		if err != nil {
			t.Fatal(err)
		}
		methods := make(map[string]func(context.Context) error)
		for name, call := range calls(q) {
			methods["LockingQueue."+name] = call
		}
		delete(methods, "LockingQueue.Get") // has its entry
		for name, call := range calls(plain) {
			methods["Queue."+name] = call
		}
		methods["Queues"] = func(ctx context.Context) error { return second(zkq.Queues(ctx, a)) }
		methods["Held.Consume"] = h.Consume
		methods["Held.Release"] = func(ctx context.Context) error { return h.Release(ctx) }
		methods["Held.Fail"] = func(ctx context.Context) error { return h.Fail(ctx, "why") }
		methods["Held.Bury"] = func(ctx context.Context) error { return h.Bury(ctx, "why") }
		methods["Held.HoldsLock"] = func(ctx context.Context) error { return second(h.HoldsLock(ctx)) }
		methods["Session"] = func(ctx context.Context) error { return second(a.Session(ctx)) }

		cancelled, cancel := context.WithCancel(p.ctx)
		cancel()
		expired, cancel := context.WithDeadline(p.ctx, time.Now().Add(-time.Second))
		defer cancel()
		var all []refusal
		for name, call := range methods {
			asks := name == "Session" || name == "Queues" // the coordinator says no
			all = append(all,
				refusal{name + ", no context", func() error { return call(nil) }, zkq.ErrInvalid, nil, asks},
				refusal{name + ", cancelled", func() error { return call(cancelled) }, context.Canceled, nil, asks})
			if name != "Queue.Get" { // as kazoo's get(timeout=0), which looks once
				all = append(all, refusal{name + ", expired", func() error { return call(expired) }, context.DeadlineExceeded, nil, asks})
			}
		}
		p.refuses(t, a, all)

		for name, ctx := range map[string]context.Context{"no context": nil, "cancelled": cancelled} {
			working, done := h.Context(ctx)
			if working.Err() == nil {
				t.Errorf("%s: the context for the work has not ended", name)
			}
			done()
		}
		for _, err := range q.All(cancelled) {
			t.Errorf("All yields %v", err)
		}
		// What was held is held, and can be finished.
		if err := errors.Join(h.Consume(p.ctx), q.Consume(p.ctx)); err != nil {
			t.Error(err)
		}
	})
}

func TestHandlesThatHoldNothingChangeNothing(t *testing.T) {
	onAll(t, func(t *testing.T, p *place) {
		a := &asked{Coordinator: p.client()}
		q, other := p.locking(a, "jobs"), p.locking(p.client(), "jobs")
		take := func() *zkq.Held {
			p.put(q, "x")
			h, err := q.Take(p.ctx)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		consumed, released, stale, copied := take(), take(), take(), take()
		must(consumed.Consume(p.ctx))
		must(released.Release(p.ctx))
		again, err := q.Take(p.ctx) // the one released: the first of all
		must(err)
		must(other.BreakLock(p.ctx, stale.Name))
		theirs, err := other.Take(p.ctx)
		must(err)
		twin := reflect.New(reflect.TypeOf(zkq.Held{})).Interface().(*zkq.Held)
		reflect.ValueOf(twin).Elem().Set(reflect.ValueOf(copied).Elem())
		must(copied.Consume(p.ctx))
		if again.Name != released.Name || theirs.Name != stale.Name {
			t.Fatalf("took %s and %s", again.Name, theirs.Name)
		}

		zero := &zkq.Held{}
		var all []refusal
		for _, h := range []struct {
			what string
			held *zkq.Held
			is   error
		}{
			{"consumed", consumed, zkq.ErrAlreadyDone},
			{"released", released, zkq.ErrAlreadyDone},
			{"stale", stale, zkq.ErrLockLost},
			{"a copy of one consumed", twin, zkq.ErrAlreadyDone},
			{"zero", zero, zkq.ErrNotHeld},
		} {
			all = append(all,
				refusal{"consume of " + h.what, func() error { return h.held.Consume(p.ctx) }, h.is, nil, false},
				refusal{"release of " + h.what, func() error { return h.held.Release(p.ctx) }, h.is, nil, false},
				refusal{"failure of " + h.what, func() error { return h.held.Fail(p.ctx, "why") }, h.is, nil, false},
				refusal{"burial of " + h.what, func() error { return h.held.Bury(p.ctx, "why") }, h.is, nil, false})
			if holds, err := h.held.HoldsLock(p.ctx); holds || err != nil {
				t.Errorf("%s holds its lock: %v, %v", h.what, holds, err)
			}
		}
		all = append(all,
			refusal{"consume without a get", func() error { return q.Consume(p.ctx) }, zkq.ErrNotHeld, nil, false},
			refusal{"release without a get", func() error { return q.Release(p.ctx) }, zkq.ErrNotHeld, nil, false})
		p.refuses(t, a, all)
		if ctx, done := zero.Context(p.ctx); !errors.Is(context.Cause(ctx), zkq.ErrLockLost) {
			t.Errorf("the context of a zero handle: %v", context.Cause(ctx))
		} else {
			done()
		}
		must(again.Consume(p.ctx))
		must(theirs.Consume(p.ctx))
	})
}

func TestClosedHandlesSendNothing(t *testing.T) {
	onAll(t, func(t *testing.T, p *place) {
		a := &asked{Coordinator: p.client()}
		q := zkq.NewLockingQueue(a, "jobs")
		plain := zkq.NewQueue(a, "plain")
		p.put(q, "stands")
		for range 2 {
			if err := errors.Join(q.Close(), plain.Close()); err != nil {
				t.Fatal(err)
			}
		}
		var all []refusal
		for _, h := range []handle{q, plain} {
			for name, call := range calls(h) {
				all = append(all, refusal{fmt.Sprintf("%T.%s", h, name), func() error { return call(p.ctx) }, zkq.ErrClosed, nil, false})
			}
		}
		p.refuses(t, a, all)

		c, err := p.open(p.servers, 0)
		if err != nil {
			t.Fatal(err)
		}
		s := p.session(c)
		orphan := zkq.NewLockingQueue(c, "jobs")
		h, err := orphan.Take(p.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		a.n.Store(0)
		all = nil
		for name, call := range calls(orphan) {
			if name != "Consume" && name != "Release" && name != "HoldsLock" { // of nothing
				all = append(all, refusal{"coordinator closed: " + name, func() error { return call(p.ctx) }, coord.ErrClosed, nil, false})
			}
		}
		all = append(all,
			refusal{"coordinator closed: Session", func() error { return second(c.Session(p.ctx)) }, coord.ErrClosed, nil, false},
			refusal{"coordinator closed: List", func() error { return second(s.List(p.ctx, "/", coord.ListOptions{})) }, coord.ErrClosed, nil, false},
			refusal{"coordinator closed: Consume of what it held", func() error { return h.Consume(p.ctx) }, coord.ErrClosed, nil, false})
		p.refuses(t, a, all)
		if err := orphan.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestBadServersAreRefusedOrNamed tells what can never be a server from one that is not there.
func TestBadServersAreRefusedOrNamed(t *testing.T) {
	open := map[string]func(ctx context.Context, servers []string, session, connect time.Duration) (coord.Coordinator, error){
		"etcd": func(ctx context.Context, servers []string, session, connect time.Duration) (coord.Coordinator, error) {
			return coordinator(etcdqueue.Open(ctx, etcdqueue.Config{Endpoints: servers, SessionTimeout: session, ConnectTimeout: connect}))
		},
		"ZooKeeper": func(ctx context.Context, servers []string, session, connect time.Duration) (coord.Coordinator, error) {
			return coordinator(zkqueue.Open(ctx, zkqueue.Config{Servers: servers, SessionTimeout: session, ConnectTimeout: connect}))
		},
		"embedded": func(ctx context.Context, _ []string, session, connect time.Duration) (coord.Coordinator, error) {
			return coordinator(embedded.Open(ctx, embedded.Config{Dir: t.TempDir() + "/store", SessionTimeout: session, ConnectTimeout: connect}))
		},
	}
	const connect = 700 * time.Millisecond
	first, other := testcoord.ClosedPort(t), testcoord.ClosedPort(t)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for service, open := range open {
		t.Run(service, func(t *testing.T) {
			for _, c := range []struct {
				what             string
				ctx              context.Context
				servers          []string
				session, connect time.Duration
				is               error
				says             []string
			}{
				{"no list", t.Context(), nil, 0, 0, coord.ErrInvalid, nil},
				{"an empty address", t.Context(), []string{""}, 0, 0, coord.ErrInvalid, nil},
				{"no host", t.Context(), []string{":2379"}, 0, 0, coord.ErrInvalid, []string{":2379"}},
				{"a port that is no number", t.Context(), []string{first, "host:http"}, 0, 0, coord.ErrInvalid, []string{"host:http"}},
				{"port 0", t.Context(), []string{"host:0"}, 0, 0, coord.ErrInvalid, []string{"host:0"}},
				{"port 65536", t.Context(), []string{"host:65536"}, 0, 0, coord.ErrInvalid, []string{"65536"}},
				{"IPv6 without brackets", t.Context(), []string{"::1:2379"}, 0, 0, coord.ErrInvalid, []string{"::1:2379"}},
				{"an unknown scheme", t.Context(), []string{"ftp://host:21"}, 0, 0, coord.ErrInvalid, []string{"ftp"}},
				{"a negative session timeout", t.Context(), []string{first}, -time.Second, 0, coord.ErrInvalid, []string{"timeout"}},
				{"a session timeout of more than a day", t.Context(), []string{first}, 25 * time.Hour, 0, coord.ErrInvalid, []string{"timeout"}},
				{"a negative connect timeout", t.Context(), []string{first}, 0, -1, coord.ErrInvalid, []string{"timeout"}},
				{"no context", nil, []string{first}, 0, 0, coord.ErrInvalid, []string{"context"}},
				{"a cancelled context", cancelled, []string{first}, 0, connect, context.Canceled, nil},
				{"nobody there", t.Context(), []string{first, other}, 0, connect, coord.ErrUnreachable, []string{first, other, "refused"}},
			} {
				if service == "embedded" && c.ctx == t.Context() && !slices.Contains(c.says, "timeout") {
					continue // it has no servers
				}
				begun := time.Now()
				client, err := open(c.ctx, c.servers, c.session, c.connect)
				if err == nil {
					client.Close()
				}
				if !errors.Is(err, c.is) {
					t.Errorf("%s: %v, want %v", c.what, err, c.is)
					continue
				}
				for _, word := range c.says {
					if !strings.Contains(err.Error(), word) {
						t.Errorf("%s: %q does not say %q", c.what, err, word)
					}
				}
				if d := time.Since(begun); d > time.Minute {
					t.Errorf("%s: took %v", c.what, d)
				}
			}
		})
	}
}
