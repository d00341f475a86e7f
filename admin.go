package zkq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/bulk"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// BreakLock takes the entry from its holder at once, so that other workers can take it. The
// holder's finish will return [ErrLockLost]. The holder learns of it within about a second;
// it may be working until then, or longer. BreakLock is for an entry whose worker hangs.
//
// The error is [ErrNoEntry] if there is no such entry, and [ErrNotHeld] if no process holds
// it, which includes a delayed one. After [ErrUnknown] the lock may be gone or not.
func (q *LockingQueue) BreakLock(ctx context.Context, name string) error {
	err := checkEntryName(name)
	if err == nil {
		var doubt coord.Node
		err = q.handle.Do(ctx, func(ctx context.Context, s coord.Session) error { return q.breakLock(ctx, s, name, &doubt) })
		if doubt.Path != "" && !errors.Is(err, ErrNoEntry) {
			err = stillUnknown(err)
		}
	}
	if err != nil {
		return fmt.Errorf("release %s of %s: %w", name, q.handle.Root, err)
	}
	return nil
}

// breakLock deletes the lock of an entry in session s, and leaves a trace: a holder whose
// finish got no answer could otherwise take the next holder's finish for its own. It retries
// while other processes change the entry or the lock. doubt is the lock that an attempt without an answer may have
// deleted. If that lock is gone, breakLock returns nil, and leaves the next holder's alone.
func (q *LockingQueue) breakLock(ctx context.Context, s coord.Session, name string, doubt *coord.Node) error {
	return repeat(ctx, s, func() (retry.Decision, error) {
		e, err := s.Get(ctx, path.Join(q.handle.Entries, name))
		if errors.Is(err, coord.ErrNotExist) {
			return retry.Stop, ErrNoEntry
		}
		if err != nil {
			return retry.Stop, err
		}
		l, err := s.Get(ctx, path.Join(q.handle.Taken, name))
		if errors.Is(err, coord.ErrNotExist) {
			if doubt.Path != "" { // the attempt without an answer may have deleted it
				return retry.Stop, nil
			}
			return retry.Stop, ErrNotHeld
		}
		if err != nil {
			return retry.Stop, err
		}
		if doubt.Path != "" && l.Revision != doubt.Revision { // the next holder's
			return retry.Stop, nil
		}
		if lock.Read(l).Kind == lock.Resting {
			return retry.Stop, fmt.Errorf("it is delayed: %w", ErrNotHeld)
		}
		// The entry's fence tells this holder from the next, whose lock may
		// look the same.
		_, err = s.Commit(ctx, coord.Check(e.Path, e.Fence), coord.Delete(l.Path, l.Fence), q.traces.leaveTrace(name))
		switch {
		case err == nil:
			q.traces.sweepTraces(ctx, s)
			return retry.Stop, nil
		case errors.Is(err, coord.ErrUnknown):
			*doubt = l
		case !retry.IsRefused(err):
			return retry.Stop, err
		}
		return retry.Later, nil
	})
}

// Queues returns the names of all queues below the coordinator's prefix, sorted, of both
// layouts: those that have entries, delayed ones included. A queue that has become empty may
// be missing. Queues lists every directory below the prefix, so it can take long on a service
// that other programs use too.
func Queues(ctx context.Context, c coord.Coordinator) ([]string, error) {
	if ctx == nil {
		return nil, fmt.Errorf("find queues: nil context: %w", ErrInvalid)
	}
	s, err := c.Session(ctx)
	if err != nil {
		return nil, err
	}
	queues, _, err := findQueues(ctx, s, "/")
	if err != nil {
		return nil, fmt.Errorf("find queues: %w", err)
	}
	return queues, nil
}

// findQueues returns the queues at dir and below, sorted. A directory is a queue if it has
// entries, or a directory of entries. ours reports whether dir has nodes that only zkq makes,
// which tells a directory of workers or delayed puts from one of another program.
func findQueues(ctx context.Context, s coord.Session, dir string) (queues []string, ours bool, err error) {
	found := false // dir is a queue: the entries of a plain one are in dir itself
	var below []string
	for page, err := range handle.Pages(ctx, s, dir, coord.ListOptions{Limit: handle.NamesPage}) {
		if err != nil {
			return nil, false, err
		}
		for _, n := range page {
			name := path.Base(n.Path)
			if _, entry := priority.Parse(name); entry || name == layout.EntriesDir {
				found = true
			} else if layout.IsOwn(path.Base(dir), name) {
				ours = true
			} else if _, err := CheckName(n.Path + "/x"); err == nil {
				below = append(below, n.Path)
			}
		}
	}
	for _, d := range below {
		more, inUse, err := findQueues(ctx, s, d)
		if err != nil {
			return nil, false, err
		}
		// A queue in which every entry is delayed, or that has only workers, may have no
		// directory of entries.
		base := path.Base(d)
		found = found || inUse && (base == layout.WorkersDir || base == layout.DelayedDir)
		queues = append(queues, more...)
	}
	if _, err := CheckName(dir); found && err == nil {
		queues = append([]string{dir}, queues...)
	}
	return queues, ours, nil
}

// Create stores a configuration with the queue, before or after its first entry. It returns
// nil if the queue has the same configuration already. If it has another one, Create changes
// nothing and returns a [*ConfigError]. A paused queue stays paused.
//
// Other handles may follow their former configuration for up to ten seconds. After
// [ErrUnknown] the new configuration may be stored, or may be stored later.
func (q *LockingQueue) Create(ctx context.Context, c QueueConfig) error {
	return q.configure(ctx, "create", c, false)
}

// Configure is [LockingQueue.Create], but replaces another configuration. Entries that
// exceed the new bounds stay; only puts are refused.
func (q *LockingQueue) Configure(ctx context.Context, c QueueConfig) error {
	return q.configure(ctx, "configure", c, true)
}

// configure checks want and stores it; act is the method's name in errors. With replace it
// overwrites another configuration, otherwise it returns a [*ConfigError] for that.
func (q *LockingQueue) configure(ctx context.Context, act string, want QueueConfig, replace bool) error {
	if want.MaxEntries < 0 || want.MaxSize < 0 || want.MaxSize > MaxValue {
		return fmt.Errorf("%s %s: MaxEntries %d, MaxSize %d: allowed are 0 and more, and a MaxSize of up to %d bytes: %w",
			act, q.handle.Root, want.MaxEntries, want.MaxSize, MaxValue, ErrInvalid)
	}
	err := q.settings.changeConfig(ctx, func(c *config) error {
		// A pause is no part of the comparison: Create and Configure can pause a queue, but never
		// resume one. A queue without bounds can get some, also from Create.
		have := c.public()
		have.Paused = want.Paused
		switch {
		case have == want && c.exists && (c.Paused || !want.Paused):
			return errUnchanged
		case have != want && have != (QueueConfig{Paused: want.Paused}) && !replace:
			return &ConfigError{Want: want, Have: c.public()}
		}
		c.MaxEntries, c.MaxSize, c.Approximate, c.Paused = want.MaxEntries, want.MaxSize, want.Approximate, c.Paused || want.Paused
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", act, q.handle.Root, err)
	}
	return nil
}

// Config reads the configuration that is stored with the queue. It returns the zero value if
// none is stored, and [coord.ErrFormat] if a newer version of zkq wrote it in another form.
func (q *LockingQueue) Config(ctx context.Context) (QueueConfig, error) {
	var c config
	err := q.handle.Do(ctx, func(ctx context.Context, s coord.Session) (err error) {
		c, err = q.settings.refreshConfig(ctx, s)
		return err
	})
	if err != nil {
		return QueueConfig{}, fmt.Errorf("configuration of %s: %w", q.handle.Root, err)
	}
	return c.public(), nil
}

// Requeue makes a dead entry ready again, as if it had just been put with its priority and
// had never been delivered. name is the name that Entries yields for it, or the name that it
// had before it died. Requeue returns the new name of the entry, as [LockingQueue.Put] does.
//
// The dead entry becomes exactly one entry, or stays dead, whatever answers are lost. It has
// no unique key and no time to live any more. The error is [ErrNoEntry] if no dead entry has
// that name; the other errors are those of Put, [ErrFull] among them.
func (q *LockingQueue) Requeue(ctx context.Context, name string) (string, error) {
	_, _, dead := layout.ParseDead(name)
	if !dead {
		if err := checkEntryName(name); err != nil {
			return "", fmt.Errorf("requeue in %s: %w", q.handle.Root, err)
		}
	}
	for {
		// The ops hold in the state that was read. If it has changed, the commit is refused, and
		// the next round reads the dead entry and the queue's bound again.
		var ops []coord.Op
		err := q.handle.Do(ctx, func(ctx context.Context, s coord.Session) (err error) {
			ops, err = q.requeueOps(ctx, s, name)
			return err
		})
		var ready string
		if err == nil {
			err = q.handle.Bounded(ctx, func(ctx context.Context) (err error) {
				ready, err = q.commitRequeue(ctx, ops)
				return err
			})
		}
		switch {
		case err == nil:
			return ready, nil
		case !retry.IsRefused(err): // a refusal means that another process changed something: look again
			return "", fmt.Errorf("requeue %s in %s: %w", name, q.handle.Root, err)
		}
	}
}

// requeueOps returns the ops that turn a dead entry, as it is now, into a ready one. Op 0
// deletes the dead entry and op 1 creates the ready one. The others keep the queue's bound.
func (q *LockingQueue) requeueOps(ctx context.Context, s coord.Session, name string) ([]coord.Op, error) {
	at, err := q.dead.findDead(ctx, s, name)
	if err != nil {
		return nil, err
	}
	n, err := s.Get(ctx, at)
	if errors.Is(err, coord.ErrNotExist) {
		return nil, ErrNoEntry
	}
	if err != nil {
		return nil, err
	}
	_, guard, err := q.puts.roomFor(ctx, s, demand{entries: 1})
	if err != nil {
		return nil, err
	}
	return append(q.requeueOf(n), guard...), nil
}

// commitRequeue commits the ops of requeueOps exactly once. It returns the new entry's name,
// or "" if an answer was lost and the entry was taken before its name could be read.
func (q *LockingQueue) commitRequeue(ctx context.Context, ops []coord.Op) (string, error) {
	done, err := q.lanes.commitOnce(ctx, nil, ops, nil)
	switch {
	case err != nil:
		return "", err
	case done.Results != nil:
		return path.Base(done.Results[1].Path), nil
	}
	return strings.Join(q.puts.namesOf(ctx, done.Revision, ops[1:2]), ""), nil
}

// Requeued is a dead entry that [LockingQueue.RequeueAll] made ready.
type Requeued struct {
	Was  string // the name that the caller gave, or the name among the dead
	Name string // of the ready entry; "" as for [LockingQueue.Requeue]
}

// RequeueAll is [LockingQueue.Requeue] for several dead entries, or for all that are dead when it
// is called without names. It takes a commit for up to 60 of them, and several commits are under
// way; entries of one priority keep their order within a commit only.
//
// It yields each entry in the order of the names, with its error or nil. After an error that is
// not [ErrNoEntry] it begins no other commit. It yields what those under way came to, then
// each entry of which it is unknown whether it was requeued, and then that error. If the caller
// ends the loop, RequeueAll waits for the commits that are under way.
func (q *LockingQueue) RequeueAll(ctx context.Context, names ...string) iter.Seq2[Requeued, error] {
	return func(yield func(Requeued, error) bool) {
		rq := &requeuer{q, make(map[string]string)}
		given := names
		err := q.handle.Do(ctx, func(ctx context.Context, s coord.Session) (err error) {
			names, err = rq.findRequeued(ctx, s, given)
			return err
		})
		if err != nil {
			yield(Requeued{}, fmt.Errorf("requeue in %s: %w", q.handle.Root, err))
			return
		}
		manyInParts(q.bulk, names, func(part []string) []partOutcome[Requeued] { return rq.requeuePart(ctx, part) }, yield)
	}
}

// requeuer is one call of [LockingQueue.RequeueAll].
type requeuer struct {
	q    *LockingQueue
	dead map[string]string // the names among the dead of the entries that the caller named otherwise
}

// findRequeued returns the names of the entries to requeue: the given ones, or those of all dead
// entries if none is given. If some are names from before the entries died, it notes in dead what
// these are called now.
func (rq *requeuer) findRequeued(ctx context.Context, s coord.Session, given []string) (names []string, err error) {
	isDead := func(name string) bool { _, _, ok := layout.ParseDead(name); return ok }
	if len(given) > 0 && !slices.ContainsFunc(given, func(name string) bool { return !isDead(name) }) {
		return given, nil
	}
	clear(rq.dead)
	err = rq.q.removal.eachDead(ctx, s, func(name string) {
		if len(given) == 0 {
			names = append(names, name)
			return
		}
		if entry, _, _ := layout.ParseDead(name); rq.dead[entry] == "" {
			rq.dead[entry] = name
		}
	})
	return append(names, given...), err
}

// requeuePart requeues entries with few commits. Those that are refused, or were not read, are
// requeued one by one: that tells why.
func (rq *requeuer) requeuePart(ctx context.Context, names []string) []partOutcome[Requeued] {
	results := make([]partOutcome[Requeued], len(names))
	for i, name := range names {
		results[i] = partOutcome[Requeued]{Requeued{Was: name}, errUnavailable}
	}
	err := rq.q.handle.Do(ctx, func(ctx context.Context, s coord.Session) error {
		return rq.requeueTogether(ctx, s, names, results)
	})
	for i, name := range names {
		r := &results[i]
		switch {
		case r.err == nil:
		case err != nil:
			r.err = fmt.Errorf("requeue %s in %s: %w", name, rq.q.handle.Root, err)
		case errors.Is(r.err, errUnavailable), errors.Is(r.err, ErrFull):
			r.value.Name, r.err = rq.q.Requeue(ctx, name)
		default:
			r.err = fmt.Errorf("requeue %s in %s: %w", name, rq.q.handle.Root, r.err)
		}
	}
	return results
}

// requeueTogether requeues those of the entries that are dead, with few commits, and stores what
// they came to in results. The error of a refused one is errUnavailable.
func (rq *requeuer) requeueTogether(ctx context.Context, s coord.Session, names []string, results []partOutcome[Requeued]) error {
	nodes, err := readWhere(ctx, s.Read, names, func(_ int, name string) string {
		if known := rq.dead[name]; known != "" {
			name = known
		}
		if _, _, ok := layout.ParseDead(name); !ok {
			return ""
		}
		return path.Join(rq.q.handle.Root, layout.DeadDir, name)
	})
	if err != nil {
		return err
	}
	var of []int
	var changes [][]coord.Op
	for i, n := range nodes {
		if isReadable(n) && results[i].err != nil {
			of, changes = append(of, i), append(changes, rq.q.requeueOf(n))
		}
	}
	limits := s.Limits()
	limits.CommitOps -= requeueBeside
	limits.CommitBytes -= requeueBeside * (coord.OpOverhead + layout.MaxReason)
	for i, o := range bulk.Commit(ctx, limits, bulk.Size, changes, rq.commitRequeued) {
		switch r := &results[of[i]]; {
		case o.Err == nil:
			r.value.Name, r.err = path.Base(o.Results[1].Path), nil
			if o.Results[1].Path == "" {
				r.value.Name = ""
			}
		case !retry.IsRefused(o.Err):
			r.err = o.Err
		}
	}
	return nil
}

// requeueBeside is how many ops a commit of requeued entries has besides theirs, at most: those of
// its lane and of the queue's bound.
const requeueBeside = 2

// requeueOf returns the ops that turn a dead entry, as it was read, into a ready one.
func (q *LockingQueue) requeueOf(n coord.Node) []coord.Op {
	_, parsed, _ := layout.ParseDead(path.Base(n.Path))
	_, body := layout.Unwrap(n.Value)
	return []coord.Op{
		coord.Delete(n.Path, n.Fence),
		coord.CreateSequential(path.Join(q.handle.Entries, priority.Prefix(parsed.Priority)), layout.Requeued(body)),
	}
}

// commitRequeued commits the ops of requeueOf for some entries exactly once, within the queue's
// bound. If the bound's count was changed by another process it reads it again. If the answer was
// lost, the results have the names that it could find.
func (rq *requeuer) commitRequeued(ctx context.Context, ops ...coord.Op) (results []coord.Result, err error) {
	err, interrupted := rq.q.handle.Backoff(actPut).Do(ctx, nil, func() (retry.Decision, error) {
		var guard []coord.Op
		err := rq.q.handle.Do(ctx, func(ctx context.Context, s coord.Session) (err error) {
			_, guard, err = rq.q.puts.roomFor(ctx, s, demand{entries: len(ops) / 2})
			return err
		})
		if err != nil {
			return retry.Stop, err
		}
		done, err := rq.q.lanes.commitOnce(ctx, nil, append(slices.Clip(ops), guard...), nil)
		switch {
		case retry.RefusedOp(err) >= len(ops): // another process has put since the count was read
			return retry.Later, nil
		case err != nil:
			return retry.Stop, err
		case done.Results != nil:
			results = done.Results[:len(ops)]
		default:
			results = rq.findNames(ctx, done.Revision, ops)
		}
		return retry.Stop, nil
	})
	if err == nil {
		err = interrupted
	}
	return results, err
}

// findNames returns results for the ops of requeueOf, whose commit was applied at a revision and
// whose answer was lost. They have the paths of the entries that still exist.
func (rq *requeuer) findNames(ctx context.Context, revision int64, ops []coord.Op) []coord.Result {
	results := make([]coord.Result, len(ops))
	of := make(map[string][]int) // the indexes of the creates, by prefix
	var prefixes []string
	for i := 1; i < len(ops); i += 2 {
		if of[ops[i].Path] == nil {
			prefixes = append(prefixes, ops[i].Path)
		}
		of[ops[i].Path] = append(of[ops[i].Path], i)
	}
	for _, prefix := range prefixes {
		var creates []coord.Op
		for _, i := range of[prefix] {
			creates = append(creates, ops[i])
		}
		for j, name := range rq.q.puts.namesOf(ctx, revision, creates) {
			results[of[prefix][j]].Path = path.Join(rq.q.handle.Entries, name)
		}
	}
	return results
}

// PurgeDead removes dead entries, but keeps the given number of those that died last. It
// returns how many it removed, also with an error. Entries that die meanwhile may stay.
func (q *LockingQueue) PurgeDead(ctx context.Context, keep int) (removed int, err error) {
	for n, err := range q.PurgeInSteps(ctx, StateDead, keep) {
		if err != nil {
			return removed, err
		}
		removed += n
	}
	return removed, nil
}

// errPaused is the type of ErrPaused. By its Is method ErrPaused is an ErrEmpty, too.
type errPaused struct{}

func (errPaused) Error() string        { return "zkq: queue is paused" }
func (errPaused) Is(target error) bool { return target == ErrEmpty }

// ErrPaused: the queue hands out nothing until a process calls [LockingQueue.Resume]. It is
// an [ErrEmpty] too, so a loop that waits for entries needs no case of its own for it.
var ErrPaused error = errPaused{}

// pauser makes takes wait while the queue is paused. The pause is stored in the queue's
// configuration, so it holds for takes of every process. A handle follows the configuration
// that it read last: settings says how old that may be.
type pauser struct {
	*handle.Handle
	settings  *settings
	log       Logger      // may be nil
	isWaiting atomic.Bool // a take waits for the end of a pause, and the log was told
}

// setPaused stores with the queue whether it is paused; act is the method's name in errors.
// It commits nothing if that is stored already.
func (p *pauser) setPaused(ctx context.Context, act string, paused bool) error {
	err := p.settings.changeConfig(ctx, func(c *config) error {
		if c.Paused == paused {
			return errUnchanged
		}
		c.Paused = paused
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", act, p.Root, err)
	}
	return nil
}

// isPaused reports whether the queue is paused, by the configuration that this handle knows.
// It reads the configuration only if the handle's copy is too old.
func (p *pauser) isPaused(ctx context.Context) (paused bool, err error) {
	err = p.Do(ctx, func(ctx context.Context, s coord.Session) error {
		c, err := p.settings.config(ctx, s)
		paused = c.Paused
		return err
	})
	return paused, err
}

// whileNotPaused waits until the queue is not paused, and calls take. If the queue is paused
// while take waits, it cancels take's context, waits for the end of the pause, and calls take
// again. It returns take's error, ctx's error if ctx ends during a pause, or [ErrClosed].
func (p *pauser) whileNotPaused(ctx context.Context, take func(context.Context) error) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", ErrInvalid)
	}
	p.settings.startTaking()
	for {
		next := p.settings.changeSignal() // first, so that no change after the read is missed
		paused, err := p.isPaused(ctx)
		if err != nil {
			return err
		}
		p.logWaiting(paused)
		if paused {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-p.Life.Done():
				return ErrClosed
			case <-next:
			}
			continue
		}
		// The cause tells a pause from the end of the caller's context.
		taking, stop := context.WithCancelCause(ctx)
		ended := p.settings.onPause(func() { stop(ErrPaused) })
		err = take(taking)
		ended()
		stop(nil)
		if err == nil || ctx.Err() != nil || !errors.Is(context.Cause(taking), ErrPaused) {
			return err
		}
	}
}

// logWaiting logs once when takes of this handle begin to wait for the end of a pause, and
// once when they go on.
func (p *pauser) logWaiting(paused bool) {
	if p.log == nil || p.isWaiting.Swap(paused) == paused {
		return
	}
	if paused {
		p.log.Warn("queue is paused: nothing is handed out until it is resumed", "queue", p.Root)
	} else {
		p.log.Info("queue is resumed", "queue", p.Root)
	}
}
