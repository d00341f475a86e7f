// Package group sends commits that wait at the same time in one request. A [Queue]
// decides which commits make a batch. A [Runner] takes batches from a queue and sends
// them from goroutines; it is for the drivers of real services.
//
// A commit never waits for others to join it: a batch holds only commits that wait
// already. No two commits of a batch name the same path, so none is a condition of
// another.
package group

import (
	"errors"
	"slices"

	"github.com/zkq/zkq/coord"
)

// Stream is one of the two lines in which commits wait. A claim is refused when another
// client was first, and a refusal costs the other commits of its batch time. So claims
// wait apart from commits that are hardly ever refused.
type Stream int

const (
	Changes Stream = iota // all commits but claims
	Claims                // commits that create an ephemeral node
	streamCount
)

// Limits bound a batch of several commits. A commit that exceeds them by itself travels
// alone. 0 means no limit.
type Limits struct {
	Commits int
	Ops     int // of all its commits
	Each    int // of one commit
	Bytes   int // of all paths and values, with [coord.OpOverhead] for each op
}

// Commit is one caller's commit.
type Commit struct {
	Ops    []coord.Op
	Caller any // for the user of the queue: what it needs to answer the caller

	bytes   int
	arrival uint64
	waiter  waiter // of a [Runner]
}

// Stream returns the line in which the commit waits.
func (c *Commit) Stream() Stream {
	for _, op := range c.Ops {
		if op.Kind == coord.KindEphemeral {
			return Claims
		}
	}
	return Changes
}

// Batch is the commits of one request, in the order of arrival.
type Batch struct {
	Commits []*Commit

	refusals int // of commits that were in the batch before
	runner   *Runner
}

// Outcome is how one commit of a batch ended.
type Outcome struct {
	Results []coord.Result
	Err     error
}

// Again reports whether the commit has no outcome yet: it was not applied, and must be
// sent again to be. [Queue.Requeue] does that.
func (o Outcome) Again() bool { return errors.Is(o.Err, ErrAgain) }

// Refused returns the outcomes of a batch of n commits that the service refused with err
// because of the commit with the index at.
func Refused(n, at int, err error) []Outcome {
	outcomes := make([]Outcome, n)
	for i := range outcomes {
		outcomes[i].Err = ErrAgain
	}
	outcomes[at].Err = err
	return outcomes
}

// ErrAgain is the outcome of a commit that was neither applied nor refused, because the
// service refused another commit of its batch. [Queue.Requeue] lets it wait again.
var ErrAgain = errors.New("group: another commit of the batch was refused")

// Queue holds commits that wait. It has no lock, no clock and no goroutine: the same
// calls give the same batches.
type Queue struct {
	limits   Limits
	arrivals uint64
	waiting  [streamCount][]*Commit // in the order of arrival
	retries  [streamCount][]*Batch  // batches to send again, before all that waits
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

// Remove removes c. It reports false if c does not wait, and may have been sent.
func (q *Queue) Remove(c *Commit) bool {
	s := c.Stream()
	if i := slices.Index(q.waiting[s], c); i >= 0 {
		q.waiting[s] = removeAt(q.waiting[s], i)
		return true
	}
	for j, b := range q.retries[s] {
		if i := slices.Index(b.Commits, c); i >= 0 {
			if b.Commits = removeAt(b.Commits, i); len(b.Commits) == 0 {
				q.retries[s] = removeAt(q.retries[s], j)
			}
			return true
		}
	}
	return false
}

// Len returns how many commits wait.
func (q *Queue) Len() int {
	n := 0
	for s := range streamCount {
		n += len(q.waiting[s])
		for _, b := range q.retries[s] {
			n += len(b.Commits)
		}
	}
	return n
}

// Next takes the batch that begins with the commit that has waited longest. It returns
// nil if no commit waits.
func (q *Queue) Next() *Batch {
	first, found := Changes, false
	var oldest uint64
	for s := range streamCount {
		if at, ok := q.oldestIn(s); ok && (!found || at < oldest) {
			first, found, oldest = s, true, at
		}
	}
	if !found {
		return nil
	}
	return q.Take(first)
}

// Waits reports whether a commit waits in the stream.
func (q *Queue) Waits(s Stream) bool {
	_, ok := q.oldestIn(s)
	return ok
}

// oldestIn returns the arrival number of the first commit in the stream.
func (q *Queue) oldestIn(s Stream) (arrival uint64, ok bool) {
	switch {
	case len(q.retries[s]) > 0:
		return q.retries[s][0].Commits[0].arrival, true
	case len(q.waiting[s]) > 0:
		return q.waiting[s][0].arrival, true
	}
	return 0, false
}

// Take takes the next batch of a stream, or returns nil if no commit waits in it. A
// commit stays for the next batch if it does not fit or names a path of a commit before
// it.
func (q *Queue) Take(s Stream) *Batch {
	if len(q.retries[s]) > 0 {
		b := q.retries[s][0]
		q.retries[s] = removeAt(q.retries[s], 0)
		return b
	}
	line := q.waiting[s]
	if len(line) == 0 {
		return nil
	}
	b := &Batch{Commits: []*Commit{line[0]}}
	ops, bytes := len(line[0].Ops), line[0].bytes
	if len(line) == 1 || q.travelsAlone(line[0]) {
		q.waiting[s] = removeAt(line, 0)
		return b
	}
	taken := pathSet{}
	taken.addAll(line[0])
	left := line[:0]
	for i, c := range line[1:] {
		if q.travelsAlone(c) {
			left = append(left, c)
			continue
		}
		if exceeds(len(b.Commits)+1, q.limits.Commits) || exceeds(ops+len(c.Ops), q.limits.Ops) || exceeds(bytes+c.bytes, q.limits.Bytes) {
			left = append(left, line[1+i:]...)
			break
		}
		if !taken.addAll(c) {
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

func exceeds(n, limit int) bool { return limit > 0 && n > limit }

// travelsAlone reports whether c is too large for a batch of several commits.
func (q *Queue) travelsAlone(c *Commit) bool {
	l := q.limits
	return exceeds(len(c.Ops), l.Each) || exceeds(len(c.Ops), l.Ops) || exceeds(c.bytes, l.Bytes)
}

// Requeue puts back the commits of b whose outcome is [ErrAgain]. They are sent before all
// that waits. After the first refusal they stay one batch; after each further refusal
// they are split in two halves, so that all refusals are found in few requests.
func (q *Queue) Requeue(b *Batch, outcomes []Outcome) {
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
		q.retries[s] = append(q.retries[s], &Batch{Commits: rest[:half:half], refusals: n, runner: b.runner})
		rest = rest[half:]
	}
	q.retries[s] = append(q.retries[s], &Batch{Commits: rest, refusals: n, runner: b.runner})
}

// pathSet holds the paths of the commits of one batch. It leaves out sequential nodes:
// their paths are new ones, which the service chooses.
type pathSet map[string]struct{}

// addAll adds the paths of c and reports true, unless one of them is in the set already.
func (p pathSet) addAll(c *Commit) bool {
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

// removeAt is slices.Delete for one element. It is cheap at the front of a long list.
func removeAt[T any](list []T, i int) []T {
	var none T
	if i > 0 {
		return slices.Delete(list, i, i+1)
	}
	list[0] = none
	return list[1:]
}
