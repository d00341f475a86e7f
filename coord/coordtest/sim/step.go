package sim

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest/internal/memory"
)

// choice is one thing that could happen next.
type choice struct {
	act     string
	client  *simClient
	request *memory.Request
	take    func(s *Simulator, c *simClient, q *memory.Request) (outcome string)
}

// takeStep does one thing that is due, drawn among all that are. If nothing is due it
// is idle, and until is when something will be; zero if nothing will.
func (s *Simulator) takeStep() (isIdle bool, until time.Time) {
	s.service.Lock()
	defer s.service.Unlock()
	now := time.Now()
	for _, c := range s.clients {
		c.OrderNewLocked(c.pausedUntil)
	}
	if s.service.ExpireNextLocked() {
		s.recordLocked(event{act: "session ends"})
		return false, until
	}
	until = s.service.NextExpiryLocked()
	s.gatherChoicesLocked(now, &until)
	if s.injectFaultLocked() {
		return false, until
	}
	if len(s.choices) == 0 {
		return true, until
	}
	drawn := s.choices[s.rng.IntN(len(s.choices))]
	e := event{act: drawn.act, request: drawn.request}
	if drawn.client != nil {
		e.client = drawn.client.Name()
	}
	e.outcome = drawn.take(s, drawn.client, drawn.request)
	s.recordLocked(e)
	s.clients = slices.DeleteFunc(s.clients, func(c *simClient) bool { return c.IsSpentLocked() })
	return false, until
}

// gatherChoicesLocked sets s.choices to what could happen now. If more could happen
// before *until, it moves *until there.
func (s *Simulator) gatherChoicesLocked(now time.Time, until *time.Time) {
	s.choices = s.choices[:0]
	isDue := func(t time.Time) bool {
		if !t.After(now) {
			return true
		}
		if until.IsZero() || t.Before(*until) {
			*until = t
		}
		return false
	}
	if s.service.IsStoppedLocked() && isDue(s.stoppedUntil) {
		s.choices = append(s.choices, choice{act: "service starts", take: (*Simulator).startServiceLocked})
	}
	for i, q := range s.lateRequests {
		if !s.service.IsStoppedLocked() && isDue(q.NotBefore) {
			s.choices = append(s.choices, choice{act: "late", request: q, take: func(s *Simulator, _ *simClient, q *memory.Request) string {
				s.lateRequests = slices.Delete(s.lateRequests, i, i+1)
				return describeOutcome(q, s.service.ApplyLocked(q))
			}})
		}
	}
	for _, c := range s.clients {
		s.gatherChoicesOfLocked(c, isDue)
	}
}

// gatherChoicesOfLocked adds what could happen to a client. To a paused one nothing is
// delivered, but what it sent goes on.
func (s *Simulator) gatherChoicesOfLocked(c *simClient, isDue func(time.Time) bool) {
	if c.IsCutLocked() && !c.IsClosedLocked() && isDue(c.cutUntil) {
		s.choices = append(s.choices, choice{act: "heal", client: c, take: (*Simulator).healLocked})
	}
	if c.IsPausedLocked() {
		if isDue(c.pausedUntil) {
			s.choices = append(s.choices, choice{act: "goes on", client: c, take: (*Simulator).resumeLocked})
		}
		s.gatherRequestsLocked(c, isDue)
		return
	}
	if queued := c.NextSignalLocked(); queued != nil && isDue(s.signalTimeLocked(queued)) {
		s.choices = append(s.choices, choice{act: "signal", client: c, take: (*Simulator).deliverSignalLocked})
	}
	if c.CanLearnOfExpiryLocked() {
		s.choices = append(s.choices, choice{act: "told of its end", client: c, take: (*Simulator).tellOfExpiryLocked})
	}
	if q := c.NextReplyLocked(); q != nil {
		s.choices = append(s.choices, choice{act: "reply", client: c, request: q, take: (*Simulator).deliverReplyLocked})
	}
	for _, from := range c.SendableLocked() {
		s.choices = append(s.choices, choice{act: "send", client: c, take: func(_ *Simulator, c *simClient, _ *memory.Request) string {
			sent, waiting := c.SendLocked(from)
			return fmt.Sprint(sent, " of ", sent+waiting, " commits")
		}})
	}
	s.gatherRequestsLocked(c, isDue)
}

func (s *Simulator) gatherRequestsLocked(c *simClient, isDue func(time.Time) bool) {
	if q := c.CallToEndLocked(); q != nil {
		s.choices = append(s.choices, choice{act: "give up", client: c, request: q, take: (*Simulator).endCallLocked})
	}
	if sent := c.RequestsLocked(); len(sent) > 0 && c.RequestsPassLocked() && isDue(sent[0].NotBefore) {
		s.choices = append(s.choices, choice{act: "serve", client: c, request: sent[0], take: (*Simulator).serveLocked})
	}
}

// serveLocked lets the first request of a client arrive, or draws a fault for it. The order
// of the draws gives seeds their meaning.
func (s *Simulator) serveLocked(c *simClient, q *memory.Request) string {
	isCommit := q.IsBatch() && q.HasCaller()
	switch {
	case q.NotBefore.IsZero() && s.drawFaultLocked(s.rates.Delay):
		q.NotBefore = time.Now().Add(s.drawDurationLocked() / 8)
		return "delayed"
	case isCommit && s.Aim != nil && s.rates.Aimed > 0 && s.Aim(q.Ops) && s.drawFaultLocked(s.rates.Aimed):
		return s.cutOffLocked(c)
	}
	c.TakeRequestLocked()
	switch {
	case isCommit && s.drawFaultLocked(s.rates.DropRequest):
		c.AnswerLaterLocked(q, coord.ErrUnknown)
		return "dropped"
	case isCommit && s.drawFaultLocked(s.rates.Late):
		q.NotBefore = time.Now().Add(s.drawDurationLocked())
		s.lateRequests = append(s.lateRequests, q)
		c.AnswerLaterLocked(q, coord.ErrUnknown)
		return "unknown, to be applied late"
	case isCommit && s.drawFaultLocked(s.rates.Busy):
		c.AnswerLocked(q, coord.ErrBusy)
		return "busy"
	}
	err := s.service.ApplyLocked(q)
	switch {
	case !q.HasCaller():
	case isCommit && s.drawFaultLocked(s.rates.DropReply):
		c.AnswerLaterLocked(q, coord.ErrUnknown)
		return describeOutcome(q, err) + ", reply dropped"
	case s.drawFaultLocked(s.rates.SlowReply):
		c.HoldReplyLocked(q, err)
		return describeOutcome(q, err) + ", reply slow"
	default:
		c.AnswerLocked(q, err)
	}
	return describeOutcome(q, err)
}

func (s *Simulator) deliverReplyLocked(c *simClient, q *memory.Request) string {
	return describeOutcome(q, c.DeliverReplyLocked(q))
}

// deliverSignalLocked delivers a client's first signal. By a draw the client's listings show
// the present state afterwards: listings from memory may be ahead of the signals.
func (s *Simulator) deliverSignalLocked(c *simClient, _ *memory.Request) string {
	c.DeliverSignalLocked()
	if s.rng.IntN(2) == 0 {
		c.ShowPresentLocked()
	}
	s.service.TrimHistoryLocked()
	return ""
}

// longestLag bounds how long after a change its signal comes to a client that is reached.
const longestLag = 300 * time.Millisecond

// signalTimeLocked returns when a signal comes. It draws that once for each signal.
func (s *Simulator) signalTimeLocked(queued *memory.Signal) time.Time {
	if !queued.IsLast && queued.DueAt.IsZero() {
		queued.DueAt = queued.ChangedAt
		if s.drawFaultLocked(s.rates.Lag) {
			queued.DueAt = queued.ChangedAt.Add(time.Duration(s.rng.Int64N(int64(longestLag))))
		}
	}
	return queued.DueAt
}

func (s *Simulator) tellOfExpiryLocked(c *simClient, _ *memory.Request) string {
	c.LearnOfExpiryLocked()
	return ""
}

func (s *Simulator) endCallLocked(c *simClient, q *memory.Request) string {
	return describeError(c.EndCallLocked(q))
}

func (s *Simulator) healLocked(c *simClient, _ *memory.Request) string {
	c.HealLocked()
	return ""
}

func (s *Simulator) resumeLocked(c *simClient, _ *memory.Request) string {
	c.ResumeLocked()
	return ""
}

func (s *Simulator) startServiceLocked(*simClient, *memory.Request) string {
	s.service.StartLocked()
	return ""
}

// injectFaultLocked may draw a fault that concerns no single request. It reports
// whether one happened; the step is over then.
func (s *Simulator) injectFaultLocked() bool {
	switch {
	case s.rates.Cut == 0 && s.rates.Expire == 0 && s.rates.Stop == 0 && s.rates.Pause == 0 || len(s.choices) == 0:
	case s.drawFaultLocked(s.rates.Stop) && !s.service.IsStoppedLocked():
		s.stoppedUntil = time.Now().Add(s.drawDurationLocked())
		s.service.StopLocked()
		s.recordLocked(event{act: "service stops"})
		return true
	case s.drawFaultLocked(s.rates.Cut):
		if c := s.drawClientLocked(func(c *simClient) bool { return !c.IsCutLocked() }); c != nil {
			s.recordLocked(event{client: c.Name(), act: "cut", outcome: s.cutOffLocked(c)})
			return true
		}
	case s.drawFaultLocked(s.rates.Pause):
		if c := s.drawClientLocked(func(c *simClient) bool { return !c.IsPausedLocked() }); c != nil {
			c.pausedUntil = time.Now().Add(s.drawDurationLocked())
			c.PauseLocked()
			s.recordLocked(event{client: c.Name(), act: "stands still"})
			return true
		}
	case s.drawFaultLocked(s.rates.Expire) && !s.service.IsStoppedLocked():
		if c := s.drawClientLocked(func(c *simClient) bool { return c.HasSessionLocked() }); c != nil {
			s.recordLocked(event{client: c.Name(), act: "expire"})
			c.ExpireLocked()
			return true
		}
	}
	return false
}

// cutOffLocked cuts a client off. A drawn number of its requests arrives before that, and
// commits among the rest may be applied later.
func (s *Simulator) cutOffLocked(c *simClient) string {
	arrived := 0
	if c.RequestsPassLocked() {
		for range s.rng.IntN(min(len(c.RequestsLocked()), 4) + 1) {
			q := c.TakeRequestLocked()
			err := s.service.ApplyLocked(q)
			if q.HasCaller() {
				c.HoldReplyLocked(q, err)
			}
			arrived++
		}
	}
	for _, q := range c.RequestsLocked() {
		if q.IsBatch() && s.drawFaultLocked(s.rates.Late) {
			q.NotBefore = time.Now().Add(s.drawDurationLocked())
			s.lateRequests = append(s.lateRequests, q)
		}
	}
	c.cutUntil = time.Now().Add(s.drawDurationLocked())
	c.CutLocked()
	return [...]string{"none arrived", "1 arrived", "2 arrived", "3 arrived", "4 arrived"}[arrived]
}

// drawClientLocked draws one of the open clients that are eligible, or returns nil.
func (s *Simulator) drawClientLocked(isEligible func(*simClient) bool) *simClient {
	var eligible []*simClient
	for _, c := range s.clients {
		if !c.IsClosedLocked() && isEligible(c) {
			eligible = append(eligible, c)
		}
	}
	if len(eligible) == 0 {
		return nil
	}
	return eligible[s.rng.IntN(len(eligible))]
}

// drawFaultLocked draws whether a fault of that probability happens.
func (s *Simulator) drawFaultLocked(probability float64) bool {
	if probability <= 0 || s.rng.Float64() >= probability {
		return false
	}
	s.faultsDrawn++
	return s.Spare == nil || !s.Spare(s.faultsDrawn-1)
}

// drawDurationLocked draws how long a fault lasts: in half of the cases short, otherwise
// up to the longest, which may be more than a session lasts without its client.
func (s *Simulator) drawDurationLocked() time.Duration {
	longest := s.rates.Longest
	if longest == 0 {
		longest = cmp.Or(s.Timeout, 10*time.Second) * 3 / 2
	}
	if s.rng.IntN(2) == 0 {
		longest /= 20
	}
	return time.Duration(1 + s.rng.Int64N(int64(longest)))
}

// describeOutcome names how q ended; of a batch, how each commit did.
func describeOutcome(q *memory.Request, err error) string {
	if !q.IsBatch() || err != nil {
		return describeError(err)
	}
	var all string
	for i, outcome := range q.Outcomes() {
		if i > 0 {
			all += ", "
		}
		if outcome.Again() {
			all += "again"
		} else {
			all += describeError(outcome.Err)
		}
	}
	return all
}

// describeError names an outcome. Of a refusal it gives the reason only, which needs no
// formatting: every step of a simulation comes here.
func describeError(err error) string {
	if err == nil {
		return "ok"
	}
	if refusal := (*coord.Refusal)(nil); errors.As(err, &refusal) {
		return refusal.Err.Error()
	}
	return err.Error()
}
