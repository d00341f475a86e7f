package coordtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
)

// request is one call on its way. A commit is not on its way by itself: it is in a
// batch, which is.
type request struct {
	session *session // nil: opens one
	kind    string
	where   []string   // of a read
	ops     []coord.Op // of a commit, never nil there; of a batch, for reports
	new     bool       // a simulator has yet to give it its place

	commit  *group.Commit // of a commit: its place in the session's queue
	asked   int64         // of a commit: the revision when it was called
	shown   int64         // of a commit: the one that the client knew of then
	results []coord.Result
	applied int64 // the revision at which it was

	batch    *group.Batch // of a batch
	outcomes []group.Outcome

	// apply does the work at the service, on behalf of its end of the session.
	apply  func(*remote) error
	opened *session

	actor     string
	sent      bool // it left, and a connection that ends leaves its outcome open
	abandoned bool // nobody waits for the answer
	local     bool // the answer needs no connection
	answered  bool
	until     time.Time // a simulator lets it wait
	err       error
	done      chan struct{}
}

type actorKey struct{}

// As names the goroutine that makes requests with the context. A [Sim] orders
// requests that goroutines of one client send at the same time by it, so that two
// of them that send the same get their answers in the order of the seed.
func As(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// InTurn gives goroutines that one thing woke, say the end of their session,
// instants of their own by the names that [As] gave them: who comes first is then
// the same each time. It sleeps for less than two milliseconds; a [Sim] calls it where
// its clients wait.
func InTurn(ctx context.Context) {
	actor, _ := ctx.Value(actorKey{}).(string)
	n := 1
	for _, b := range []byte(actor) {
		n = (n*31 + int(b)) % 997
	}
	time.Sleep(time.Duration(1 + 1024*n)) // further apart than their callers began
}

// fault is what becomes of a client's next commit.
type fault struct {
	apply bool
	err   error
}

// do sends q and waits for its answer, ctx, or the end of the session.
func (c *Coordinator) do(ctx context.Context, q *request) error {
	over := c.gone
	if q.session != nil {
		over = q.session.done
	}
	if c.store.simulated {
		over = nil // its driver wakes those who wait, one by one
	}
	q.done = make(chan struct{})
	q.actor, _ = ctx.Value(actorKey{}).(string)
	c.store.mu.Lock()
	for !c.store.simulated && c.store.expireNext() {
		// What is over is over, though the timer for it is late.
	}
	if err := c.may(ctx, q); err != nil {
		c.store.mu.Unlock()
		return err
	}
	if q.commit != nil {
		c.commit(q)
	} else {
		c.submit(q)
	}
	c.store.arm()
	c.store.mu.Unlock()
	select {
	case <-q.done:
	case <-ctx.Done():
	case <-over:
	}
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	return c.settle(ctx, q)
}

// may says why q cannot be sent.
func (c *Coordinator) may(ctx context.Context, q *request) error {
	if c.closed {
		return coord.ErrClosed
	}
	if q.session != nil {
		if err := q.session.alive(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (c *Coordinator) submit(q *request) {
	q.sent = !c.cut && !c.store.down
	if !c.store.simulated && c.requestsReach() && len(c.queue) == 0 {
		c.arrive(q)
		return
	}
	q.new = true
	c.queue = append(c.queue, q)
	c.store.nudge()
}

// commit lets q wait for its batch. In a simulation that is a step away.
func (c *Coordinator) commit(q *request) {
	q.asked, q.shown = c.store.st.revision, c.view
	c.unsent = append(c.unsent, q)
	if c.store.simulated {
		q.new = true
		c.store.nudge()
		return
	}
	q.session.commits.Add(q.commit)
	c.pump()
}

// depart sends all commits that wait.
func (c *Coordinator) depart() {
	for _, q := range slices.Clone(c.unsent) {
		for b := q.session.commits.Next(); b != nil; b = q.session.commits.Next() {
			c.send(q.session, b)
		}
	}
}

// send puts a batch on its way.
func (c *Coordinator) send(l *session, b *group.Batch) {
	q := &request{session: l, kind: "commit", batch: b, sent: true}
	if len(b.Commits) > 1 {
		q.kind = "commits"
	}
	for _, m := range b.Commits {
		call := m.Caller.(*request)
		call.sent = true
		q.ops = append(q.ops, call.ops...)
		c.unsent = slices.DeleteFunc(c.unsent, func(o *request) bool { return o == call })
		q.actor = call.actor
	}
	q.apply = func(r *remote) error {
		q.outcomes = c.store.commit(r, b)
		return nil
	}
	c.queue = append(c.queue, q)
}

// conclude answers the callers of a batch, in its order, and lets wait again what
// goes again. Whoever has gone meanwhile was told that he cannot know.
func (c *Coordinator) conclude(q *request, outcomes []group.Outcome, answer func(*request, error)) {
	for i, m := range q.batch.Commits {
		call := m.Caller.(*request)
		switch out := outcomes[i]; {
		case out.Again() && waited(call):
			call.sent = false
			c.unsent = append(c.unsent, call)
		case out.Again():
			outcomes[i].Err = nil
		default:
			call.results = out.Results
			answer(call, out.Err)
		}
	}
	q.session.commits.Again(q.batch, outcomes)
}

// all are the outcomes of a batch that shares one fate.
func (q *request) all(err error) []group.Outcome {
	outcomes := make([]group.Outcome, len(q.batch.Commits))
	for i := range outcomes {
		outcomes[i].Err = err
	}
	return outcomes
}

// waited says whether somebody waits for q.
func waited(q *request) bool {
	if q.batch == nil {
		return !q.answered && !q.abandoned
	}
	return slices.ContainsFunc(q.batch.Commits, func(m *group.Commit) bool { return waited(m.Caller.(*request)) })
}

// namer names the sequential nodes of a commit as etcd's driver does: by the revision that
// the client had been shown when the commit was called, so that a name may sort before
// one which was there earlier. If one stands that does not sort before it, by what the
// service's revision was then, so that it may even now.
func (q *request) namer(now time.Time) func(dir, prefix string) string {
	c, revision := q.session.c, q.shown
	return func(dir, prefix string) string {
		c.named++
		name := func() string {
			return fmt.Sprintf("%s%019d-%013d-%08x-%06d", prefix, revision, now.UnixMilli(), c.number, c.named)
		}
		if d := c.store.st.dirs[dir]; d != nil {
			i, _ := slices.BinarySearch(d.names, name())
			if i < len(d.names) && strings.HasPrefix(d.names[i], prefix) {
				revision = q.asked
			}
		}
		return name()
	}
}

// settle says how q ended for the one who waited.
func (c *Coordinator) settle(ctx context.Context, q *request) error {
	if q.answered {
		return q.err
	}
	q.abandoned = true
	c.replies = slices.DeleteFunc(c.replies, func(o *request) bool { return o == q })
	err := c.may(ctx, q)
	if q.commit != nil && q.sent {
		if errors.Is(err, ctx.Err()) {
			return fmt.Errorf("%w: %w", coord.ErrUnknown, err)
		}
		return coord.ErrUnknown
	}
	c.forget(q)
	return err
}

// forget takes out a call that was not sent.
func (c *Coordinator) forget(q *request) {
	is := func(o *request) bool { return o == q }
	c.queue = slices.DeleteFunc(c.queue, is)
	if q.commit != nil {
		c.unsent = slices.DeleteFunc(c.unsent, is)
		q.session.commits.Remove(q.commit)
	}
}

// pump lets through what waited, in order.
func (c *Coordinator) pump() {
	if c.repliesReach() && !c.store.simulated {
		replies := c.replies
		c.replies = nil
		for _, q := range replies {
			c.finish(q, q.err)
		}
	}
	if !c.store.down && !c.cut {
		for _, q := range c.queue {
			q.sent = true
		}
	}
	if c.store.simulated {
		return // request by request, step by step
	}
	for {
		if !c.store.down && !c.cut {
			c.depart()
		}
		if len(c.queue) == 0 || !c.requestsReach() {
			return
		}
		q := c.queue[0]
		c.queue = c.queue[1:]
		c.arrive(q)
	}
}

// arrive lets the service do q.
func (c *Coordinator) arrive(q *request) {
	f := fault{apply: true}
	if q.batch != nil && len(c.faults) > 0 {
		f = c.faults[0]
		c.faults = c.faults[1:]
	}
	err := f.err
	if f.apply {
		err = c.store.serve(q)
	}
	if f.err != nil {
		c.answer(q, f.err)
		if errors.Is(f.err, coord.ErrUnknown) {
			c.reconnect()
		}
		return
	}
	if !c.repliesReach() || c.store.simulated {
		q.err = err
		c.replies = append(c.replies, q)
		return
	}
	c.finish(q, err)
}

// serve does q at the service, unless its session is over there.
func (s *Store) serve(q *request) error {
	if q.session == nil {
		return q.apply(nil)
	}
	if r := s.remote(q.session.id); r != nil {
		return q.apply(r)
	}
	return coord.ErrSessionLost
}

// answer lets the client find out err by itself.
func (c *Coordinator) answer(q *request, err error) {
	if q.batch != nil {
		c.conclude(q, q.all(err), c.answer)
		return
	}
	if c.store.simulated && !q.answered && !q.abandoned {
		q.err, q.local = err, true
		c.replies = append(c.replies, q)
		return
	}
	c.finish(q, err)
}

// finish gives q its answer. Of a batch the first caller has it now, and the others
// find it by and by.
func (c *Coordinator) finish(q *request, err error) {
	if q.batch != nil {
		answer, outcomes := c.finish, q.outcomes
		if err != nil {
			outcomes = q.all(err)
		}
		c.conclude(q, outcomes, func(call *request, err error) {
			first := waited(call)
			answer(call, err)
			if first {
				answer = c.answer
			}
		})
		return
	}
	if q.answered || q.abandoned {
		return
	}
	if errors.Is(err, coord.ErrSessionLost) {
		q.session.lose()
	}
	if q.opened != nil && err == nil {
		c.session = q.opened
		c.hear()
	}
	q.answered, q.err = true, err
	if q.commit != nil && err == nil && c.store.simulated && c.showOwn(q) {
		c.store.wakeLater(func() { close(q.done) })
		return
	}
	close(q.done)
}
