package conformance

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
)

// env is what one case runs in.
type env struct {
	*testing.T
	service Service
	timeout time.Duration
	late    bool // Factory.LateSignals
	ctx     context.Context
}

// patience bounds a case: nothing of the suite comes near it.
const patience = 60 * time.Second

func newEnv(t *testing.T, f Factory) *env {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return &env{T: t, service: f.New(t), timeout: f.Timeout, late: f.LateSignals, ctx: ctx}
}

// peer is a client with its session.
type peer struct {
	*env
	coord.Session
	c coord.Coordinator
}

// open returns a new client that has a session.
func (e *env) open() *peer {
	e.Helper()
	c := e.service.Open(e.T)
	e.Cleanup(func() {
		if err := c.Close(); err != nil {
			e.Errorf("close: %v", err)
		}
	})
	p := &peer{env: e, c: c}
	p.reopen()
	return p
}

// reopen gives p the session that its client has now.
func (p *peer) reopen() {
	p.Helper()
	s, err := p.c.Session(p.ctx)
	if err != nil {
		p.Fatalf("session: %v", err)
	}
	p.Session = s
}

func (p *peer) commit(ops ...coord.Op) []coord.Result {
	p.Helper()
	r, err := p.Commit(p.ctx, ops...)
	if err != nil {
		p.Fatalf("commit %v: %v", ops, err)
	}
	if len(r) != len(ops) {
		p.Fatalf("%d results for %d ops", len(r), len(ops))
	}
	return r
}

// made sees to it that dir is there: a service may need more than one round trip to
// make it, and may signal it.
func (p *peer) made(dir string) {
	p.Helper()
	r := p.do(coord.Create(dir+"/made", nil))
	p.do(coord.Delete(dir+"/made", r.Fence))
}

// do is commit for a single op.
func (p *peer) do(op coord.Op) coord.Result {
	p.Helper()
	return p.commit(op)[0]
}

func (p *peer) get(path string) coord.Node {
	p.Helper()
	n, err := p.Get(p.ctx, path)
	if err != nil {
		p.Fatalf("get %s: %v", path, err)
	}
	return n
}

// there says whether there is a node at path.
func (p *peer) there(path string) bool {
	p.Helper()
	_, err := p.Get(p.ctx, path)
	if err != nil && !errors.Is(err, coord.ErrNotExist) {
		p.Fatalf("get %s: %v", path, err)
	}
	return err == nil
}

func (p *peer) list(dir string, o coord.ListOptions) coord.List {
	p.Helper()
	l, err := p.List(p.ctx, dir, o)
	if err != nil {
		p.Fatalf("list %s: %v", dir, err)
	}
	return l
}

// fresh lists the names in dir as they are now.
func (p *peer) fresh(dir string) string {
	p.Helper()
	return names(p.list(dir, coord.ListOptions{Fresh: true}))
}

func (p *peer) watch(dirs ...string) <-chan struct{} {
	p.Helper()
	ch, err := p.Watch(p.ctx, dirs...)
	if err != nil {
		p.Fatalf("watch %v: %v", dirs, err)
	}
	return ch
}

func (p *peer) cut()          { p.c.(Cutter).Cut() }
func (p *peer) heal()         { p.c.(interface{ Heal() }).Heal() }
func (p *peer) holdRequests() { p.c.(RequestHolder).HoldRequests() }
func (p *peer) holdReplies()  { p.c.(ReplyHolder).HoldReplies() }

func (p *peer) expire() {
	p.Helper()
	if !p.c.(Expirer).Expire() {
		p.Fatal("there was no session to expire")
	}
}

// noticed gives a driver the time to notice that its connection is gone.
func (e *env) noticed() { time.Sleep(300 * time.Millisecond) }

// overdue is when a session that began to be missed now must be gone, for all to
// see: services look at their clocks now and then.
func (p *peer) overdue() time.Duration { return 2*p.Timeout() + 3*time.Second }

// signalled waits for a signal.
func (e *env) signalled(ch <-chan struct{}, why string) {
	e.Helper()
	select {
	case _, ok := <-ch:
		if !ok {
			e.Fatalf("the channel was closed: %s", why)
		}
	case <-time.After(10 * time.Second):
		e.Fatalf("no signal: %s", why)
	}
}

// drain forgets a signal that is there already.
func drain(ch <-chan struct{}) {
	select {
	case <-ch:
	default:
	}
}

// until polls cond, with a deadline.
func (e *env) until(limit time.Duration, what string, cond func() bool) {
	e.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			e.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// is asserts what an error is.
func (e *env) is(err, want error, what string) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("%s: %v, want %v", what, err, want)
	}
}

func (e *env) equal(got, want any, what string) {
	e.Helper()
	if got != want {
		e.Errorf("%s: %v, want %v", what, got, want)
	}
}

// outcome is how a call in another goroutine ended.
type outcome struct {
	err  error
	took time.Duration
}

// async calls f in a goroutine of its own.
func async(f func() error) <-chan outcome {
	ch := make(chan outcome, 1)
	go func() {
		start := time.Now()
		err := f()
		ch <- outcome{err, time.Since(start)}
	}()
	return ch
}

// within waits for an outcome.
func (e *env) within(limit time.Duration, ch <-chan outcome, what string) error {
	e.Helper()
	select {
	case o := <-ch:
		return o.err
	case <-time.After(limit):
		e.Fatalf("not answered within %v: %s", limit, what)
		return nil
	}
}

// names joins the last segments of the listed paths.
func names(l coord.List) string {
	s := make([]string, len(l.Nodes))
	for i, n := range l.Nodes {
		s[i] = n.Path[strings.LastIndexByte(n.Path, '/')+1:]
	}
	return strings.Join(s, " ")
}
