// Package group lets commits that wait at the same time travel together. A [Queue]
// only decides which: whoever drives it takes batches and says what became of
// them. A [Runner] drives one with goroutines, for the drivers of real services.
//
// Only what waits already is merged; no commit ever waits for company. No two
// commits of a batch name the same path, so that none is a condition of another.
package group

import (
	"errors"
	"slices"

	"github.com/zkq/zkq/coord"
)

// Stream is one of the two lines that commits wait in. Claims are refused when
// somebody else was first; they wait apart from what hardly ever is.
type Stream int

const (
	Changes Stream = iota // all but claims
	Claims                // what creates an ephemeral node
	streams
)

// Limits bound a batch of several commits. A commit that is beyond them by itself
// travels alone. What is 0 is no bound.
type Limits struct {
	Commits int
	Ops     int // of all its commits
	Each    int // of one commit
	Bytes   int // of all paths and values, with [coord.OpOverhead] for each op
}

// Commit is one caller's commit.
type Commit struct {
	Ops    []coord.Op
	Caller any // whoever waits for it, as the one who drives the queue knows him

	bytes   int
	arrival uint64
	seat    seat // in a [Runner]
}

// Stream is where the commit waits.
func (c *Commit) Stream() Stream {
	for _, op := range c.Ops {
		if op.Kind == coord.KindEphemeral {
			return Claims
		}
	}
	return Changes
}

// Batch is what travels in one request, in the order of arrival.
type Batch struct {
	Commits []*Commit

	refusals int // so far, of commits that were in it
	runner   *Runner
}

// Outcome is how one commit of a batch ended.
type Outcome struct {
	Results []coord.Result
	Err     error
}

// Again says that the commit has no outcome yet: neither was it applied nor will it
// be, unless it is sent again, which is [Queue.Again]'s to decide.
func (o Outcome) Again() bool { return errors.Is(o.Err, ErrAgain) }

// Refused are the outcomes of a batch of n commits that the service refused because
// of one of them.
func Refused(n, at int, err error) []Outcome {
	outcomes := make([]Outcome, n)
	for i := range outcomes {
		outcomes[i].Err = ErrAgain
	}
	outcomes[at].Err = err
	return outcomes
}

// ErrAgain is the outcome of a commit that was neither applied nor refused,
// because the service refused another of its batch. It goes again by [Queue.Again].
var ErrAgain = errors.New("group: another commit of the batch was refused")

// Queue is commits that wait. It has no lock, no clock and no goroutine: the same
// calls give the same batches.
type Queue struct {
	limits   Limits
	arrivals uint64
	waiting  [streams][]*Commit // in the order of arrival
	again    [streams][]*Batch  // what goes again, before all that waits
}

// NewQueue returns an empty queue.
func NewQueue(l Limits) *Queue { return &Queue{limits: l} }

// Add puts c at the end of its line.
func (q *Queue) Add(c *Commit) {
	q.arrivals++
	c.arrival = q.arrivals
	c.bytes = 0
	for _, op := range c.Ops {
		c.bytes += coord.OpOverhead + len(op.Path) + len(op.Value)
	}
	s := c.Stream()
	q.waiting[s] = append(q.waiting[s], c)
}

// Remove takes c out. False: it does not wait, and may have been sent.
func (q *Queue) Remove(c *Commit) bool {
	s := c.Stream()
	if i := slices.Index(q.waiting[s], c); i >= 0 {
		q.waiting[s] = cut(q.waiting[s], i)
		return true
	}
	for j, b := range q.again[s] {
		if i := slices.Index(b.Commits, c); i >= 0 {
			if b.Commits = cut(b.Commits, i); len(b.Commits) == 0 {
				q.again[s] = cut(q.again[s], j)
			}
			return true
		}
	}
	return false
}

// Len is how many commits wait.
func (q *Queue) Len() int {
	n := 0
	for s := range streams {
		n += len(q.waiting[s])
		for _, b := range q.again[s] {
			n += len(b.Commits)
		}
	}
	return n
}

// Next takes the batch that the commit which has waited longest leads; nil: none
// waits.
func (q *Queue) Next() *Batch {
	first, found := Changes, false
	var oldest uint64
	for s := range streams {
		if at, ok := q.head(s); ok && (!found || at < oldest) {
			first, found, oldest = s, true, at
		}
	}
	if !found {
		return nil
	}
	return q.Take(first)
}

// Waits says whether a commit waits in the stream.
func (q *Queue) Waits(s Stream) bool {
	_, ok := q.head(s)
	return ok
}

func (q *Queue) head(s Stream) (arrival uint64, ok bool) {
	switch {
	case len(q.again[s]) > 0:
		return q.again[s][0].Commits[0].arrival, true
	case len(q.waiting[s]) > 0:
		return q.waiting[s][0].arrival, true
	}
	return 0, false
}

// Take takes the next batch of a stream; nil: none waits in it. A commit that names
// a path of one before it stays for the next batch, and so does what does not fit.
func (q *Queue) Take(s Stream) *Batch {
	if len(q.again[s]) > 0 {
		b := q.again[s][0]
		q.again[s] = cut(q.again[s], 0)
		return b
	}
	line := q.waiting[s]
	if len(line) == 0 {
		return nil
	}
	b := &Batch{Commits: []*Commit{line[0]}}
	ops, bytes := len(line[0].Ops), line[0].bytes
	if len(line) == 1 || q.alone(line[0]) {
		q.waiting[s] = cut(line, 0)
		return b
	}
	taken := paths{}
	taken.add(line[0])
	left := line[:0]
	for i, c := range line[1:] {
		if q.alone(c) {
			left = append(left, c)
			continue
		}
		if over(len(b.Commits)+1, q.limits.Commits) || over(ops+len(c.Ops), q.limits.Ops) || over(bytes+c.bytes, q.limits.Bytes) {
			left = append(left, line[1+i:]...)
			break
		}
		if !taken.add(c) {
			left = append(left, c)
			continue
		}
		b.Commits = append(b.Commits, c)
		ops, bytes = ops+len(c.Ops), bytes+c.bytes
	}
	clear(line[len(left):])
	q.waiting[s] = left
	return b
}

func over(n, limit int) bool { return limit > 0 && n > limit }

// alone says that c is too large to be merged.
func (q *Queue) alone(c *Commit) bool {
	l := q.limits
	return over(len(c.Ops), l.Each) || over(len(c.Ops), l.Ops) || over(c.bytes, l.Bytes)
}

// Again puts back those commits of b whose outcome is [ErrAgain]. They go before all
// that waits: together, and after another refusal in two halves, until each refusal
// was found.
func (q *Queue) Again(b *Batch, outcomes []Outcome) {
	var rest []*Commit
	for i, c := range b.Commits {
		if outcomes[i].Again() {
			rest = append(rest, c)
		}
	}
	if len(rest) == 0 {
		return
	}
	s, n := rest[0].Stream(), b.refusals+1
	if half := len(rest) / 2; n > 1 && half > 0 {
		q.again[s] = append(q.again[s], &Batch{Commits: rest[:half:half], refusals: n, runner: b.runner})
		rest = rest[half:]
	}
	q.again[s] = append(q.again[s], &Batch{Commits: rest, refusals: n, runner: b.runner})
}

// paths are those of the commits of one batch. A sequential node's is known to the
// service only, and is nobody else's.
type paths map[string]struct{}

// add adds the paths of c, unless one of them is there already.
func (p paths) add(c *Commit) bool {
	for _, op := range c.Ops {
		if _, dup := p[op.Path]; dup && op.Kind != coord.KindSequential {
			return false
		}
	}
	for _, op := range c.Ops {
		if op.Kind != coord.KindSequential {
			p[op.Path] = struct{}{}
		}
	}
	return true
}

// cut is slices.Delete, cheap at the front of a long line.
func cut[T any](list []T, i int) []T {
	var none T
	if i > 0 {
		return slices.Delete(list, i, i+1)
	}
	list[0] = none
	return list[1:]
}
