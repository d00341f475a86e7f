package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
	"github.com/zkq/zkq/internal/lane"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Puts alone keep an exact bound. Each put reads the fence of <q>/count, counts the entries,
// and writes that node at the fence in its own commit. A put in between has moved the fence,
// so the commit is refused. A change of the bound writes the node, too, so a put reads the
// bound after the fence. A finish only makes the number of entries smaller, so it writes no
// count and costs nothing more. The number in the node is for people: it is right just after
// a put.
//
// Puts that wait in a handle at the same time read and write the count once, in one commit
// (sharePuts). Each of them keeps its lane, so each is still applied exactly once.

// fullError is an [ErrFull], with what a put needs to wait for room in the right queue.
type fullError struct {
	puts      *putter   // of the queue that is full: a pipeline puts into several
	have, max int       // entries
	expires   time.Time // the first entry expires then; zero: wait for a change
}

func (e *fullError) Error() string {
	return fmt.Sprintf("%v: %d of %d entries", ErrFull, e.have, e.max)
}

func (e *fullError) Is(target error) bool { return target == ErrFull }

// demand is the room that a put asks for.
type demand struct {
	entries int  // that the put creates
	removed int  // entries of the same queue that the same commit removes
	partial bool // the put may create fewer, but at least one
}

// room is the room in a queue, as it was when the fence in guard was read.
type room struct {
	puts    *putter
	max     int       // entries; 0: the queue has no bound
	have    int       // entries that count
	removed int       // of them, those that the commit removes
	expires time.Time // the next entry expires then; zero: none does, or it was not looked up
	guard   coord.Op  // writes the count at its fence; without a path: the bound is not exact
}

// full returns an error if n more entries do not fit: a *fullError if there is no room for
// them now, and an [ErrTooLarge] if they exceed the bound by themselves.
func (r room) full(n int) error {
	switch {
	case r.max == 0:
		return nil
	case n > r.max:
		return &coord.LimitError{What: "put into a bounded queue", Unit: "entries", Size: n, Limit: r.max}
	case r.have-r.removed+n > r.max:
		return &fullError{r.puts, r.have, r.max, r.expires}
	}
	return nil
}

// ops returns the ops that keep the bound in a commit that puts n entries.
func (r room) ops(n int) []coord.Op {
	if r.guard.Path == "" {
		return nil
	}
	guard := r.guard
	guard.Value = strconv.AppendInt(nil, int64(r.have-r.removed+n), 10)
	return []coord.Op{guard}
}

// roomFor returns how many of the wanted entries there is room for, and the ops that keep the
// bound in the commit that puts them: none in a queue without an exact bound.
//
// The error is a *fullError if there is not enough room now, and an [ErrTooLarge] if the put
// asks for more than the bound allows.
func (pt *putter) roomFor(ctx context.Context, s coord.Session, want demand) (n int, ops []coord.Op, err error) {
	r, err := pt.readRoom(ctx, s, want)
	if n = want.entries; err != nil || r.max == 0 {
		return n, nil, err
	}
	if want.partial {
		n = min(n, max(r.max-(r.have-r.removed), 1))
	}
	if err := r.full(n); err != nil {
		return n, nil, err
	}
	return n, r.ops(n), nil
}

// readRoom reads the room in the queue. If there is too little, it first removes entries that
// have expired.
func (pt *putter) readRoom(ctx context.Context, s coord.Session, want demand) (room, error) {
	r := room{puts: pt, removed: want.removed}
	c, err := pt.settings.config(ctx, s)
	if err != nil || c.MaxEntries == 0 {
		return r, err
	}
	if !c.Approximate {
		r.guard = coord.Create(path.Join(pt.Root, layout.CountNode), nil)
		at, err := s.Get(ctx, r.guard.Path)
		if err == nil {
			r.guard = coord.Set(at.Path, nil, at.Fence)
		} else if !errors.Is(err, coord.ErrNotExist) {
			return r, err
		}
		// A change of the bound writes the count, too. So a bound that is read after the
		// count is right as long as the count's fence has not moved.
		if c, err = pt.settings.refreshConfig(ctx, s); err != nil || c.MaxEntries == 0 {
			return room{puts: pt}, err
		}
	}
	r.max = c.MaxEntries
	if r.have, err = pt.countBound(ctx, s); err != nil || r.have-r.removed+want.entries <= r.max {
		return r, err
	}
	expires, err := pt.expiry.mayExpireIn(ctx, s)
	if err != nil || !expires {
		return r, err
	}
	r.expires, err = pt.removal.removeExpired(ctx, s)
	if errors.Is(err, ErrUnknown) {
		// The outcome of that removal is unknown, not of the put: the put is tried again, and
		// counts once more.
		err = fmt.Errorf("remove what expired: %v: %w", err, coord.ErrBusy)
	}
	if err == nil {
		r.have, err = pt.countBound(ctx, s)
	}
	return r, err
}

// sharedLimits bound a commit that puts share, so that it fits every service with the count
// beside it. A larger put is committed alone.
var sharedLimits = group.Limits{Commits: 64, Ops: 120, Bytes: 800 << 10}

// sharePuts returns a runner of commits that put into the queue within an exact bound. Puts that
// wait while one commit is under way share the next one: it reads the room once, and writes the
// count once for all. A put never waits for others to join it.
func (pt *putter) sharePuts() *group.Runner { return group.NewRunner(sharedLimits, 1, pt.sendShared) }

// senderFor returns the way in which the batches are committed: with other puts if they are one
// put into a queue with an exact bound, and nil otherwise. Its caller does not count entries:
// sendShared does. A partial put and a put to several queues go alone: the first has a note
// that depends on the room, the second needs the counts of all its queues.
func (pt *putter) senderFor(ctx context.Context, bs batches) (lane.Sender, error) {
	if len(bs) != 1 || bs[0].partial || pt.Taken == "" {
		return nil, nil
	}
	s, err := pt.Session(ctx)
	if err != nil {
		return nil, err
	}
	c, err := pt.settings.config(ctx, s)
	if err != nil || c.MaxEntries == 0 || c.Approximate {
		return nil, err
	}
	return func(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
		rs, err := pt.shared.Do(ctx, ops)
		pt.Woke(ctx)
		return rs, err
	}, nil
}

// sendShared commits the puts of a batch together, as far as there is room. It tells those that
// do not fit by themselves that the queue is full. Those that do not fit beside the others go
// with the next batch, which reads the room again. Where one put is refused, the others go with
// the next batch, too. It ends with the handle, or when no caller waits any more.
func (pt *putter) sendShared(b *group.Batch) []group.Outcome {
	ctx := pt.Life
	var shared *sharedCommit
	err, interrupted := pt.Backoff(actPut).Do(ctx, nil, func() (retry.Decision, error) {
		s, err := pt.Session(ctx)
		var r room
		if err == nil {
			r, err = pt.readRoom(ctx, s, demand{entries: pt.countCreated(b.Commits)})
		}
		if err != nil {
			return retry.Stop, err
		}
		shared = pt.newSharedCommit(r, b.Seal())
		if len(shared.ops) == 0 {
			return retry.Stop, nil
		}
		results, err := s.Commit(ctx, shared.ops...)
		if shared.isCountRefused(err) { // another process has put since the count was read
			b.Unseal()
			pt.settings.expire()
			return retry.Later, nil
		}
		shared.conclude(results, err)
		return retry.Stop, nil
	})
	if err = errors.Join(err, interrupted); err != nil {
		return outcomesOf(b.Commits, err)
	}
	return shared.outcomes
}

// outcomesOf returns the same error for each of the commits.
func outcomesOf(commits []*group.Commit, err error) []group.Outcome {
	outcomes := make([]group.Outcome, len(commits))
	for i := range outcomes {
		outcomes[i].Err = err
	}
	return outcomes
}

// countCreated returns how many entries and delayed puts the commits create.
func (pt *putter) countCreated(commits []*group.Commit) int {
	n := 0
	for _, c := range commits {
		for _, op := range c.Ops {
			if op.Kind == coord.KindSequential || op.Kind == coord.KindCreate && pt.delayed.isDelayedPut(path.Base(op.Path)) {
				n++
			}
		}
	}
	return n
}

// sharedCommit is one commit of several puts, with the count behind them. Each put is applied
// whole or not at all.
type sharedCommit struct {
	puts     []*group.Commit
	outcomes []group.Outcome // of the puts
	first    []int           // index of each put's first op; -1: the put is not in the commit
	ops      []coord.Op
	count    int // index of the op that writes the count; beyond ops if there is none
}

// newSharedCommit puts as many of the puts into a commit as there is room for, in their order.
func (pt *putter) newSharedCommit(r room, puts []*group.Commit) *sharedCommit {
	sc := &sharedCommit{puts: puts, outcomes: outcomesOf(puts, group.ErrAgain), first: make([]int, len(puts))}
	entries := 0
	for i := range puts {
		n := pt.countCreated(puts[i : i+1])
		if err := r.full(n); err != nil {
			sc.outcomes[i].Err = &lane.Declined{Err: err}
		}
		if sc.first[i] = -1; r.full(entries+n) == nil {
			sc.first[i] = len(sc.ops)
			sc.ops = append(sc.ops, puts[i].Ops...)
			entries += n
		}
	}
	if sc.count = len(sc.ops); sc.count > 0 {
		sc.ops = append(sc.ops, r.ops(entries)...)
	}
	return sc
}

// isCountRefused reports whether the commit was refused because the count has moved.
func (sc *sharedCommit) isCountRefused(err error) bool { return retry.RefusedOp(err) == sc.count }

// conclude sets the outcomes of the puts in the commit.
func (sc *sharedCommit) conclude(results []coord.Result, err error) {
	var limit *coord.LimitError
	var refusal *coord.Refusal
	errors.As(err, &refusal)
	// One put alone may be too large or forbidden: smaller batches follow, and tell which.
	isOfOnePut := len(sc.puts) > 1 && (errors.As(err, &limit) || errors.Is(err, coord.ErrForbidden) || errors.Is(err, coord.ErrInvalid))
	for i, first := range sc.first {
		if first < 0 {
			continue
		}
		switch end := first + len(sc.puts[i].Ops); {
		case err == nil:
			sc.outcomes[i] = group.Outcome{Results: results[first:end:end]}
		case refusal == nil && !isOfOnePut:
			sc.outcomes[i].Err = err
		case refusal != nil && refusal.Index >= first && refusal.Index < end:
			sc.outcomes[i].Err = &coord.Refusal{Index: refusal.Index - first, Op: refusal.Op, Err: refusal.Err}
		}
	}
}

// countBound returns the number of entries that count for a bound: ready, held and delayed.
// It counts delayed puts first. So a put that becomes an entry meanwhile is counted twice
// rather than not at all. A number that is too high could refuse a put for no reason, so
// countBound counts again if the delayed puts changed.
func (pt *putter) countBound(ctx context.Context, s coord.Session) (int, error) {
	for {
		later := 0
		before, err := s.List(ctx, path.Join(pt.Root, layout.DelayedDir), coord.ListOptions{Fresh: true})
		if err != nil {
			return 0, err
		}
		for _, n := range before.Nodes {
			if pt.delayed.isDelayedPut(path.Base(n.Path)) {
				later++
			}
		}
		entries, err := s.Count(ctx, pt.Entries)
		if err != nil || later == 0 {
			return entries, err
		}
		after, err := s.List(ctx, path.Join(pt.Root, layout.DelayedDir), coord.ListOptions{Fresh: true})
		if err != nil || after.Stamp == before.Stamp {
			return entries + later, err
		}
	}
}

// checkSize returns an [ErrTooLarge] for a value beyond the queue's own limit of a size.
func (pt *putter) checkSize(ctx context.Context, s coord.Session, size int) error {
	c, err := pt.settings.config(ctx, s)
	if err == nil && c.MaxSize > 0 && size > c.MaxSize {
		return &coord.LimitError{What: "value", Unit: "bytes", Size: size, Limit: c.MaxSize}
	}
	return err
}

// waitRoom is the wait of one put for room in a full queue. It subscribes to changes first,
// then the put looks again, and only then it waits: so no change is missed.
type waitRoom struct {
	until   time.Time          // the put gives up then
	puts    *putter            // of the queue that it watches
	session coord.Session      // in which it watches
	changed <-chan struct{}    // signals that entries, delayed puts or the configuration changed
	stop    context.CancelFunc // ends the watch; nil: nothing is watched yet
}

// waitForRoom is called after a put was refused with full. It returns nil if the put should
// be tried again, full if the time to wait is over, or ctx's error. The first call for a
// queue only subscribes.
func (w *waitRoom) waitForRoom(ctx context.Context, p *putter, full error) error {
	s, err := p.Session(ctx)
	if err != nil {
		return err
	}
	p.settings.expire() // another process may have changed the bound
	if s != w.session || p != w.puts {
		w.close()
		watching, stop := context.WithCancel(ctx)
		changed, err := s.Watch(watching, p.Entries, path.Join(p.Root, layout.DelayedDir), path.Join(p.Root, layout.WorkersDir))
		if err != nil {
			stop()
			return err
		}
		w.puts, w.session, w.changed, w.stop = p, s, changed, stop
		return nil
	}
	at := w.until
	if e := (*fullError)(nil); errors.As(full, &e) && !e.expires.IsZero() {
		at = earlier(at, e.expires)
	}
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-s.Done():
	case <-w.changed:
	case <-t.C:
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !time.Now().Before(w.until):
		return full
	}
	return nil
}

// close ends the watch. It may be called at any time, and again.
func (w *waitRoom) close() {
	if w.stop != nil {
		w.stop()
	}
}
