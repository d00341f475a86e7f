package conformance

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
)

// env is what one case runs in. Its methods fail the test they belong to.
type env struct {
	*testing.T
	service        Service
	timeout        time.Duration
	hasLateSignals bool // see Factory.LateSignals
	ctx            context.Context
}

// caseTimeout bounds a case. No case comes near it unless it hangs.
const caseTimeout = 5 * time.Minute

// busyFactor is how many times longer than an idle machine one that does other work may need for
// what a case limits.
const busyFactor = 5

func newEnv(t *testing.T, f Factory) *env {
	ctx, cancel := context.WithTimeout(t.Context(), caseTimeout)
	t.Cleanup(cancel)
	return &env{T: t, service: f.New(t), timeout: f.Timeout, hasLateSignals: f.LateSignals, ctx: ctx}
}

// peer is a client with its session. Methods that are named as those of the session but
// begin with a lower-case letter fail the test on an error.
type peer struct {
	*env
	coord.Session
	client coord.Coordinator
}

// openPeer returns a new client that has a session.
func (e *env) openPeer() *peer {
	e.Helper()
	c := e.service.Open(e.T)
	e.Cleanup(func() {
		if err := c.Close(); err != nil {
			e.Errorf("close: %v", err)
		}
	})
	p := &peer{env: e, client: c}
	p.reopenSession()
	return p
}

// reopenSession gives p the session that its client has now.
func (p *peer) reopenSession() {
	p.Helper()
	s, err := p.client.Session(p.ctx)
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

// makeDir makes sure that dir exists. To make a directory a driver may need several round
// trips, and the service may signal it.
func (p *peer) makeDir(dir string) {
	p.Helper()
	r := p.commitOne(coord.Create(dir+"/made", nil))
	p.commitOne(coord.Delete(dir+"/made", r.Fence))
}

// commitOne commits a single op.
func (p *peer) commitOne(op coord.Op) coord.Result {
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

// exists reports whether there is a node at path.
func (p *peer) exists(path string) bool {
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

// freshNames lists the names in dir as they are now.
func (p *peer) freshNames(dir string) string {
	p.Helper()
	return joinNames(p.list(dir, coord.ListOptions{Fresh: true}))
}

func (p *peer) watch(dirs ...string) <-chan struct{} {
	p.Helper()
	ch, err := p.Watch(p.ctx, dirs...)
	if err != nil {
		p.Fatalf("watch %v: %v", dirs, err)
	}
	return ch
}

func (p *peer) cut()          { p.client.(Cutter).Cut() }
func (p *peer) heal()         { p.client.(interface{ Heal() }).Heal() }
func (p *peer) holdRequests() { p.client.(RequestHolder).HoldRequests() }
func (p *peer) holdReplies()  { p.client.(ReplyHolder).HoldReplies() }

func (p *peer) expire() {
	p.Helper()
	if !p.client.(Expirer).Expire() {
		p.Fatal("there was no session to expire")
	}
}

// waitForDisconnect gives a driver the time to notice that its connection is gone.
func (e *env) waitForDisconnect() { time.Sleep(300 * time.Millisecond) }

// expiryLimit returns the time within which a session whose client is cut off now must
// end, as every other client sees it. Services check for expired sessions now and then.
func (p *peer) expiryLimit() time.Duration { return 2*p.Timeout() + 3*time.Second }

// awaitSignal waits for a signal.
func (e *env) awaitSignal(ch <-chan struct{}, why string) {
	e.Helper()
	select {
	case _, ok := <-ch:
		if !ok {
			e.Fatalf("the channel was closed: %s", why)
		}
	case <-time.After(time.Minute):
		e.Fatalf("no signal: %s", why)
	}
}

// discardSignal discards a signal that is there already.
func discardSignal(ch <-chan struct{}) {
	select {
	case <-ch:
	default:
	}
}

// pollUntil polls cond until it holds or the limit has passed. The limit is an idle machine's.
func (e *env) pollUntil(limit time.Duration, what string, cond func() bool) {
	e.Helper()
	for end := time.Now().Add(busyFactor * limit); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			e.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// wantError asserts that err is want.
func (e *env) wantError(err, want error, what string) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Errorf("%s: %v, want %v", what, err, want)
	}
}

func (e *env) wantEqual(got, want any, what string) {
	e.Helper()
	if got != want {
		e.Errorf("%s: %v, want %v", what, got, want)
	}
}

// outcome is how a call in another goroutine ended, and how long it took.
type outcome struct {
	err  error
	took time.Duration
}

// runAsync calls f in a goroutine of its own.
func runAsync(f func() error) <-chan outcome {
	ch := make(chan outcome, 1)
	go func() {
		start := time.Now()
		err := f()
		ch <- outcome{err, time.Since(start)}
	}()
	return ch
}

// awaitOutcome waits for an outcome and returns its error. The limit is an idle machine's.
func (e *env) awaitOutcome(limit time.Duration, ch <-chan outcome, what string) error {
	e.Helper()
	select {
	case o := <-ch:
		return o.err
	case <-time.After(busyFactor * limit):
		e.Fatalf("not answered within %v: %s", limit, what)
		return nil
	}
}

// joinNames joins the last segments of the listed paths.
func joinNames(l coord.List) string {
	s := make([]string, len(l.Nodes))
	for i, n := range l.Nodes {
		s[i] = n.Path[strings.LastIndexByte(n.Path, '/')+1:]
	}
	return strings.Join(s, " ")
}
