package coordtest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
)

// choice is one thing that could happen next.
type choice struct {
	act  string
	c    *simClient
	q    *request
	then func(s *Sim, c *simClient, q *request) string // what came of it
}

// step does one thing that is due. When there is none it says until when.
func (s *Sim) step() (idle bool, until time.Time) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	now := time.Now()
	s.place()
	if s.store.expireNext() {
		s.note(step{act: "session ends"})
		return false, until
	}
	until, _, _ = s.store.due()
	s.choose(now, &until)
	if s.fault() {
		return false, until
	}
	if len(s.pick) == 0 {
		return true, until
	}
	p := s.pick[s.rng.IntN(len(s.pick))]
	st := step{act: p.act, q: p.q}
	if p.c != nil {
		st.client = p.c.name
	}
	st.outcome = p.then(s, p.c, p.q)
	s.note(st)
	s.clients = slices.DeleteFunc(s.clients, func(c *simClient) bool {
		return c.closed && len(c.replies)+len(c.signals)+len(c.unsent) == 0 && (len(c.queue) == 0 || c.cut && !slices.ContainsFunc(c.queue, waited))
	})
	return false, until
}

// place puts in order what a client's goroutines sent at once.
func (s *Sim) place() {
	for _, c := range s.clients {
		first := slices.IndexFunc(c.unsent, func(q *request) bool { return q.new })
		if first >= 0 {
			slices.SortStableFunc(c.unsent[first:], compareRequests)
			for _, q := range c.unsent[first:] {
				q.new = false
				q.session.commits.Add(q.commit)
			}
		}
		i := len(c.queue)
		for i > 0 && c.queue[i-1].new {
			i--
			c.queue[i].new = false
			if c.paused {
				c.queue[i].until = c.pausedTo
			}
		}
		if len(c.queue)-i > 1 {
			slices.SortStableFunc(c.queue[i:], compareRequests)
		}
	}
}

func compareRequests(a, b *request) int {
	if n := cmp.Compare(a.actor, b.actor); n != 0 {
		return n
	}
	return cmp.Or(
		cmp.Compare(a.kind, b.kind),
		slices.Compare(a.where, b.where),
		slices.CompareFunc(a.ops, b.ops, func(a, b coord.Op) int {
			return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Fence, b.Fence), cmp.Compare(string(a.Value), string(b.Value)))
		}),
	)
}

// choose gathers what could happen now, and moves until to when more could.
func (s *Sim) choose(now time.Time, until *time.Time) {
	s.pick = s.pick[:0]
	wait := func(t time.Time) {
		if until.IsZero() || t.Before(*until) {
			*until = t
		}
	}
	ready := func(t time.Time) bool {
		if t.After(now) {
			wait(t)
			return false
		}
		return true
	}
	if s.store.down && ready(s.downTo) {
		s.pick = append(s.pick, choice{act: "service starts", then: (*Sim).startService})
	}
	for i, q := range s.late {
		if !s.store.down && ready(q.until) {
			s.pick = append(s.pick, choice{act: "late", q: q, then: func(s *Sim, _ *simClient, q *request) string {
				s.late = slices.Delete(s.late, i, i+1)
				return q.said(s.store.serve(q))
			}})
		}
	}
	for _, c := range s.clients {
		if c.cut && !c.closed && ready(c.cutTo) {
			s.pick = append(s.pick, choice{act: "heal", c: c, then: (*Sim).heal})
		}
		if c.paused {
			if ready(c.pausedTo) {
				s.pick = append(s.pick, choice{act: "goes on", c: c, then: (*Sim).resume})
			}
			s.chooseRequest(c, ready)
			continue
		}
		if len(c.signals) > 0 && (c.connected() || c.signals[0].last) && ready(s.comes(&c.signals[0])) {
			s.pick = append(s.pick, choice{act: "signal", c: c, then: (*Sim).signal})
		}
		if l := c.session; l != nil && !l.over && c.connected() && s.store.remote(l.id) == nil {
			s.pick = append(s.pick, choice{act: "told of its end", c: c, then: (*Sim).tell})
		}
		for _, q := range c.replies {
			if q.local || c.repliesReach() {
				s.pick = append(s.pick, choice{act: "reply", c: c, q: q, then: (*Sim).reply})
				break
			}
		}
		s.chooseSend(c)
		s.chooseRequest(c, ready)
	}
}

func (s *Sim) chooseRequest(c *simClient, ready func(time.Time) bool) {
	if q := c.hopeless(); q != nil {
		s.pick = append(s.pick, choice{act: "give up", c: c, q: q, then: (*Sim).giveUp})
	}
	if len(c.queue) > 0 && c.requestsReach() && ready(c.queue[0].until) {
		s.pick = append(s.pick, choice{act: "serve", c: c, q: c.queue[0], then: (*Sim).serve})
	}
}

// chooseSend lets what waits in a session's queue go, one stream at a time.
func (s *Sim) chooseSend(c *simClient) {
	if c.cut || c.store.down || c.closed {
		return
	}
	i := slices.IndexFunc(c.unsent, func(q *request) bool { return !q.session.over })
	if i < 0 {
		return
	}
	l := c.unsent[i].session
	for _, stream := range []group.Stream{group.Changes, group.Claims} {
		if l.commits.Waits(stream) {
			s.pick = append(s.pick, choice{act: "send", c: c, then: func(_ *Sim, c *simClient, _ *request) string {
				b := l.commits.Take(stream)
				c.send(l, b)
				return fmt.Sprint(len(b.Commits), " of ", len(b.Commits)+l.commits.Len(), " commits")
			}})
		}
	}
}

// hopeless is a call of a session that is over, or nil.
func (c *Coordinator) hopeless() *request {
	over := func(q *request) bool {
		return waited(q) && (c.closed || q.session != nil && q.session.over)
	}
	for _, q := range c.queue {
		switch {
		case !over(q):
		case q.batch == nil:
			return q
		default:
			for _, m := range q.batch.Commits {
				if call := m.Caller.(*request); waited(call) {
					return call
				}
			}
		}
	}
	if i := slices.IndexFunc(c.unsent, over); i >= 0 {
		return c.unsent[i]
	}
	return nil
}

// serve lets the first request of a client arrive, or makes something else of it.
func (s *Sim) serve(c *simClient, q *request) string {
	commit := q.batch != nil && waited(q)
	switch {
	case q.until.IsZero() && s.chance(s.rates.Delay):
		q.until = time.Now().Add(s.while() / 8)
		return "delayed"
	case commit && s.Aim != nil && s.rates.Aimed > 0 && s.Aim(q.ops) && s.chance(s.rates.Aimed):
		return s.cutOff(c)
	}
	c.queue = slices.Delete(c.queue, 0, 1)
	switch {
	case commit && s.chance(s.rates.DropRequest):
		c.answer(q, coord.ErrUnknown)
		return "dropped"
	case commit && s.chance(s.rates.Late):
		q.until = time.Now().Add(s.while())
		s.late = append(s.late, q)
		c.answer(q, coord.ErrUnknown)
		return "unknown, to be applied late"
	case commit && s.chance(s.rates.Busy):
		c.finish(q, coord.ErrBusy)
		return "busy"
	}
	err := c.store.serve(q)
	switch {
	case !waited(q):
	case commit && s.chance(s.rates.DropReply):
		c.answer(q, coord.ErrUnknown)
		return q.said(err) + ", reply dropped"
	case s.chance(s.rates.SlowReply):
		q.err = err
		c.replies = append(c.replies, q)
		return q.said(err) + ", reply slow"
	default:
		c.finish(q, err)
	}
	return q.said(err)
}

func (s *Sim) reply(c *simClient, q *request) string {
	c.replies = slices.DeleteFunc(c.replies, func(o *request) bool { return o == q })
	c.finish(q, q.err)
	return q.said(q.err)
}

func (s *Sim) signal(c *simClient, _ *request) string {
	c.deliver()
	if s.store.draw() { // what a listing in memory shows is ahead of the signals
		c.view = s.store.st.revision
		c.seen = c.view
	}
	c.store.trim()
	return ""
}

// longestLag bounds how long after a change its signal comes to a client that is reached.
const longestLag = 300 * time.Millisecond

// comes draws, once, when a signal comes.
func (s *Sim) comes(sig *signal) time.Time {
	if !sig.last && sig.due.IsZero() {
		sig.due = sig.at
		if s.chance(s.rates.Lag) {
			sig.due = sig.at.Add(time.Duration(s.rng.Int64N(int64(longestLag))))
		}
	}
	return sig.due
}

func (s *Sim) tell(c *simClient, _ *request) string {
	c.session.lose()
	return ""
}

// giveUp ends a call whose session is over. What it sent stays on its way.
func (s *Sim) giveUp(c *simClient, q *request) string {
	err := coord.ErrUnknown
	if q.commit == nil || !q.sent {
		c.forget(q)
		if err = coord.ErrSessionLost; c.closed {
			err = coord.ErrClosed
		}
	}
	c.finish(q, err)
	return said(err)
}

func (s *Sim) heal(c *simClient, _ *request) string {
	c.cut = false
	c.reconnect()
	return ""
}

func (s *Sim) resume(c *simClient, _ *request) string {
	c.paused = false
	c.reconnect()
	return ""
}

func (s *Sim) startService(*simClient, *request) string {
	s.store.start()
	return ""
}

// fault may do what no client asked for.
func (s *Sim) fault() bool {
	switch {
	case s.rates.Cut == 0 && s.rates.Expire == 0 && s.rates.Stop == 0 && s.rates.Pause == 0 || len(s.pick) == 0:
	case s.chance(s.rates.Stop) && !s.store.down:
		s.downTo = time.Now().Add(s.while())
		s.store.stop()
		s.note(step{act: "service stops"})
		return true
	case s.chance(s.rates.Cut):
		if c := s.any(func(c *simClient) bool { return !c.cut }); c != nil {
			s.note(step{client: c.name, act: "cut", outcome: s.cutOff(c)})
			return true
		}
	case s.chance(s.rates.Pause):
		if c := s.any(func(c *simClient) bool { return !c.paused }); c != nil {
			c.paused, c.pausedTo = true, time.Now().Add(s.while())
			c.hear()
			s.note(step{client: c.name, act: "stands still"})
			return true
		}
	case s.chance(s.rates.Expire) && !s.store.down:
		if c := s.any(func(c *simClient) bool { return c.session != nil && s.store.remote(c.session.id) != nil }); c != nil {
			s.note(step{client: c.name, act: "expire"})
			s.store.end(s.store.remote(c.session.id))
			return true
		}
	}
	return false
}

// cutOff cuts a client off. Of what it has sent the first may have arrived, and
// of the rest some may yet.
func (s *Sim) cutOff(c *simClient) string {
	arrived := 0
	if c.requestsReach() {
		for range s.rng.IntN(min(len(c.queue), 4) + 1) {
			q := c.queue[0]
			c.queue = slices.Delete(c.queue, 0, 1)
			q.err = c.store.serve(q)
			if waited(q) {
				c.replies = append(c.replies, q)
			}
			arrived++
		}
	}
	for _, q := range c.queue {
		if q.batch != nil && s.chance(s.rates.Late) {
			q.until = time.Now().Add(s.while())
			s.late = append(s.late, q)
		}
	}
	c.cut, c.cutTo = true, time.Now().Add(s.while())
	c.disconnect()
	return [...]string{"none arrived", "1 arrived", "2 arrived", "3 arrived", "4 arrived"}[arrived]
}

// any draws one of the clients that are up.
func (s *Sim) any(ok func(*simClient) bool) *simClient {
	var up []*simClient
	for _, c := range s.clients {
		if !c.closed && ok(c) {
			up = append(up, c)
		}
	}
	if len(up) == 0 {
		return nil
	}
	return up[s.rng.IntN(len(up))]
}

// chance draws whether a fault happens.
func (s *Sim) chance(p float64) bool {
	if p <= 0 || s.rng.Float64() >= p {
		return false
	}
	s.faults++
	return s.Spare == nil || !s.Spare(s.faults-1)
}

// while draws how long a fault lasts: mostly short, sometimes longer than a
// session does without its client.
func (s *Sim) while() time.Duration {
	most := s.rates.Longest
	if most == 0 {
		most = cmp.Or(s.Timeout, 10*time.Second) * 3 / 2
	}
	if s.rng.IntN(2) == 0 {
		most /= 20
	}
	return time.Duration(1 + s.rng.Int64N(int64(most)))
}

// said is what came of q, of a batch what came of each commit.
func (q *request) said(err error) string {
	if q.batch == nil || err != nil {
		return said(err)
	}
	var all string
	for i, out := range q.outcomes {
		if i > 0 {
			all += ", "
		}
		if out.Again() {
			all += "again"
		} else {
			all += said(out.Err)
		}
	}
	return all
}

// said names an outcome without making it up anew.
func said(err error) string {
	if err == nil {
		return "ok"
	}
	if r := (*coord.Refusal)(nil); errors.As(err, &r) {
		return r.Err.Error()
	}
	return err.Error()
}
