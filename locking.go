package zkq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/member"
	"github.com/zkq/zkq/lock"
)

// LockingQueue is kazoo's LockingQueue: an entry is locked while somebody works
// on it, removed when the work is done, and back in its place when the worker
// gives it back or dies. Every entry is handed out at least once, and removed by
// exactly one finish: a worker that lost its lock can never remove an entry,
// even if it has not heard of the loss. Workers in Python and Go may share one.
//
// Put, Len, Take and what looks at a queue may be called from several
// goroutines. Get, Consume, Release and HoldsLock are kazoo's, for one caller at
// a time.
type LockingQueue struct {
	*base
	claimer  *claimer
	taker    *taker
	mover    *mover
	pauser   *pauser
	registry *member.Registry

	kazooMu chan struct{} // one-token lock: kazoo's methods run one at a time; guards current
	current *Held         // what Get handed out
}

// NewLockingQueue returns a handle to the locking queue of that name. Nothing is
// contacted or created; a name that [CheckName] refuses is reported by every
// method. A queue nobody wrote to is an empty queue.
func NewLockingQueue(c coord.Coordinator, name string, opts ...Option) *LockingQueue {
	q := &LockingQueue{
		base:    newBase(c, name, false, opts),
		kazooMu: make(chan struct{}, 1),
	}
	if q.holder == "" {
		q.holder = lock.NewHolder()
	}
	members := path.Join(q.handle.Root, layout.WorkersDir)
	q.registry = member.NewRegistry(path.Join(members, string(q.holder)), q.handle.IsClosed)
	q.claimer = &claimer{
		Handle:        q.handle,
		holder:        q.holder,
		log:           q.log,
		warn:          q.warn,
		strict:        q.strict,
		maxDeliveries: q.maxDeliveries,
		keeper:        lock.NewKeeper(q.handle.Taken),
		holds:         make(map[string]*hold),
		deferred:      head.NewResting(),
		finder:        q.finder,
		history:       q.history,
		keys:          q.keys,
		puts:          q.puts,
		traces:        q.traces,
	}
	clearing := &clearer{q.claimer, q.dead}
	cfg := q.headConfig()
	cfg.Registry, cfg.MembersDir, cfg.Holder, cfg.HeldCount = q.registry, members, string(q.holder), q.claimer.countHolds
	cfg.HasExpired, cfg.MayBeSpent, cfg.FindSpent = hasExpired, clearing.mayBeSpent, clearing.findSpent
	q.claimer.head = head.New(cfg)
	q.taker = &taker{q.claimer, clearing}
	q.pauser = &pauser{Handle: q.handle, settings: q.settings, log: q.log}
	q.mover = &mover{Handle: q.handle, settings: q.settings, delayed: q.delayed, busy: q.busy, holder: string(q.holder), page: q.duePage}
	q.removal.removeReady = q.claimer.claimAndConsume
	q.removal.clearReady = clearing.clearNodes
	return q
}

// Put puts a value and returns the name of its entry. When it returns without an
// error the entry is stored durably, and every put that begins later, anywhere,
// comes after it within its priority. A lost answer is asked for until ctx ends, and
// the entry is put once. When there is none in time the error is an [*UnknownError]
// with a token, for [Resolve]. After any other error nothing was put. The name is ""
// when the answer was lost and somebody took the entry before its name was read.
func (q *LockingQueue) Put(ctx context.Context, value []byte, opts ...PutOption) (string, error) {
	return q.puts.put(ctx, value, opts)
}

// PutAll puts the values, all or none: nobody ever sees a part of them. They
// stand next to each other in the order given. More than one commit can take is
// refused with [ErrTooLarge] before anything is sent, and so is more than a bounded queue
// takes, however empty it is and however long the put would wait. No values are no error.
func (q *LockingQueue) PutAll(ctx context.Context, values [][]byte, opts ...PutOption) ([]string, error) {
	return q.puts.putAll(ctx, values, opts)
}

// PutSome puts the first of the values in one commit: all of them, or as many as a bounded
// queue has room for, and at least one. It returns the names of those that it put; the
// caller puts the rest with another call, and so keeps the order. [ErrFull] when there is
// room for none, after the wait of [WithWait]. A token is refused with [ErrInvalid]; all
// else is as in PutAll.
func (q *LockingQueue) PutSome(ctx context.Context, values [][]byte, opts ...PutOption) ([]string, error) {
	return q.puts.putSome(ctx, values, opts)
}

// Take waits for an entry and holds it: the most urgent one, the longest-waiting
// first among those of one priority. It ends with ctx's error when ctx ends, and
// then holds nothing; a claim whose answer is still under way is given back when
// it comes. Lost connections and sessions are waited out. The caller consumes or
// releases what it got; if its process dies the coordinator gives it back.
func (q *LockingQueue) Take(ctx context.Context) (*Held, error) {
	return one(q.TakeN(ctx, 1))
}

// TryTake is Take without the waiting: [ErrEmpty] when there was an instant
// during the call at which nothing was available.
func (q *LockingQueue) TryTake(ctx context.Context) (*Held, error) {
	return one(q.TryTakeN(ctx, 1))
}

// TakeN waits for an entry as Take does, and takes with it those that are there,
// up to n in all, and no more than one commit can claim. An entry that came back is taken
// alone: should it be one that kills its worker, the others' deliveries do not count with it.
func (q *LockingQueue) TakeN(ctx context.Context, n int) ([]*Held, error) {
	if err := checkCount(n); err != nil {
		return nil, err
	}
	if q.handle.Invalid != nil {
		return nil, q.handle.Invalid
	}
	if ctx == nil {
		return nil, fmt.Errorf("nil context: %w", ErrInvalid)
	}
	q.mover.start()
	var held []*Held
	err := q.pauser.whileRunning(ctx, func(ctx context.Context) error {
		bound, cancel := q.handle.Bound(ctx)
		defer cancel()
		var failed, err error
		held, failed, err = q.taker.finishAndTake(bound, nil, n, true)
		return errors.Join(failed, q.handle.CallError(ctx, err))
	})
	if err != nil {
		return nil, fmt.Errorf("take from %s: %w", q.handle.Root, err)
	}
	return held, nil
}

// TryTakeN takes up to n entries that are there, one that came back alone;
// [ErrEmpty] as for TryTake.
func (q *LockingQueue) TryTakeN(ctx context.Context, n int) ([]*Held, error) {
	if err := checkCount(n); err != nil {
		return nil, err
	}
	q.mover.tried()
	var held []*Held
	err := q.tryTakeDue(ctx, n, func(ctx context.Context, s coord.Session, names []string, ahead int) (got, cleared int, err error) {
		held, cleared, err = q.taker.takeListed(ctx, s, names, n, ahead)
		return len(held), cleared, err
	})
	if err != nil {
		return nil, fmt.Errorf("take from %s: %w", q.handle.Root, err)
	}
	return held, nil
}

// tryTakeDue is [finder.tryTake] that makes due entries ready before it reports [ErrEmpty]. It
// looks again as long as entries were due, because all of them may have expired.
func (q *LockingQueue) tryTakeDue(ctx context.Context, n int, claim claimFunc) error {
	q.settings.expireUnlessWatched()
	if paused, err := q.pauser.isPaused(ctx); err != nil || paused {
		if err == nil {
			err = ErrPaused
		}
		return err
	}
	for waited := false; ; {
		ended := q.mover.ended.Load()
		err := q.finder.tryTake(ctx, q.claimer.head.Resting, n, claim)
		if !errors.Is(err, ErrEmpty) {
			return err
		}
		moved, problem := q.mover.moveAll(ctx)
		switch {
		case problem != nil:
			return problem
		case moved:
		case waited, q.mover.begun.Load() == ended: // nor did the mover make anything ready meanwhile
			return err
		default:
			waited = true
		}
	}
}

// Exchange removes the entries of done, whose work is done, and takes up to n others that are
// available, all in one commit. So a worker that goes on with the next entry pays one commit
// for each entry instead of two. Exchange does not wait for entries: fewer than n, or none, is
// no error. An entry that came back is taken alone.
//
// Each entry of done is removed as by [Held.Consume], independently: one that was lost costs
// the others nothing. The error joins a [*FinishError] for each that was not removed for
// certain, and whatever else went wrong. The entries returned beside an error are held. The
// first call registers the handle as a worker of the queue: see [LockingQueue.Register].
func (q *LockingQueue) Exchange(ctx context.Context, done []*Held, n int) ([]*Held, error) {
	if ctx == nil {
		return nil, fmt.Errorf("exchange: nil context: %w", ErrInvalid)
	}
	if n < 0 {
		return nil, fmt.Errorf("exchange for %d entries: allowed are 0 and more: %w", n, ErrInvalid)
	}
	if q.handle.Invalid != nil {
		return nil, q.handle.Invalid
	}
	seen := make(map[*Held]bool, len(done))
	for i, h := range done {
		if h == nil || h.claimer != q.claimer || seen[h] {
			return nil, fmt.Errorf("exchange: entry %d of %d is not one that this queue handed out, once: %w", i+1, len(done), ErrNotHeld)
		}
		seen[h] = true
	}
	bound, cancel := q.handle.Bound(ctx)
	defer cancel()
	var untaken error
	if n > 0 {
		q.registry.Stay()
		q.mover.start()
		q.settings.startTaking()
		var paused bool
		if paused, untaken = q.pauser.isPaused(ctx); untaken != nil || paused {
			n = 0 // what is done is done
		}
	}
	held, failed, err := q.taker.finishAndTake(bound, done, n, false)
	return held, errors.Join(failed, untaken, q.handle.CallError(ctx, err))
}

// All yields entries as Take does until ctx ends. The loop's body consumes or
// gives back each; leaving the loop leaves the last one held. An error other than
// ctx's is yielded with a nil Held and ends the loop. What failed needs a pause, or the
// loop gets it again at once:
//
//	pause := zkq.Backoff(time.Second, time.Minute)
//	for held, err := range q.All(ctx) {
//		if err != nil {
//			return err
//		}
//		if err := work(held.Value); err != nil {
//			err = held.Fail(ctx, err.Error(), zkq.After(pause(held.Failures+1)))
//		} else {
//			err = held.Consume(ctx)
//		}
//		...
//	}
func (q *LockingQueue) All(ctx context.Context) iter.Seq2[*Held, error] {
	return func(yield func(*Held, error) bool) {
		if ctx != nil {
			q.Register(ctx)
		}
		for {
			h, err := q.Take(ctx)
			if err != nil {
				if ctx == nil || ctx.Err() == nil {
					yield(nil, err)
				}
				return
			}
			if !yield(h, nil) {
				return
			}
		}
	}
}

// Register makes [LockingQueue.Workers] of every process name this handle until Close, in
// this session and those that follow. An error says only that other processes do not see the
// handle yet: its next call tries again. Credentials that do not allow it are no error. All
// registers by itself.
func (q *LockingQueue) Register(ctx context.Context) error {
	q.registry.Stay()
	err := q.handle.Do(ctx, func(ctx context.Context, s coord.Session) error { return q.registry.Register(ctx, s) })
	if err != nil {
		return fmt.Errorf("register among the workers of %s: %w", q.handle.Root, err)
	}
	return nil
}

// Workers returns the registered handles of the queue, by host and process. Holders that are
// not registered (kazoo workers, a single take) come last, without host and process. It costs
// two listings, of the workers and of the locks.
func (q *LockingQueue) Workers(ctx context.Context) ([]WorkerInfo, error) {
	var workers []WorkerInfo
	err := q.handle.Do(ctx, func(ctx context.Context, s coord.Session) (err error) {
		workers, err = listWorkers(ctx, s, path.Join(q.handle.Root, layout.WorkersDir), q.handle.Taken)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the workers of %s: %w", q.handle.Root, err)
	}
	return workers, nil
}

// Pause has takes of every process hand out nothing until Resume. Takes that wait go on
// waiting; others return [ErrPaused]. The pause is stored with the queue, and takes that wait
// hear of it at once. A claim that is under way may still succeed. Held entries can be
// finished, and puts go on. kazoo's workers do not notice a pause.
func (q *LockingQueue) Pause(ctx context.Context) error { return q.pauser.set(ctx, "pause", true) }

// Resume ends a pause. It is no error if the queue is not paused.
func (q *LockingQueue) Resume(ctx context.Context) error {
	return q.pauser.set(ctx, "resume", false)
}

// LeftAlone returns how many entries this handle gave back with [LeaveAlone] or [After]
// and will not take yet.
func (q *LockingQueue) LeftAlone() int {
	return q.claimer.head.Resting.Len() + q.claimer.deferred.Len()
}

// Len returns the number of entries, held ones included, as kazoo counts them:
// right for some instant during the call.
func (q *LockingQueue) Len(ctx context.Context) (n int, err error) {
	err = q.handle.Do(ctx, func(ctx context.Context, s coord.Session) error {
		n, err = s.Count(ctx, q.handle.Entries)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", q.handle.Root, err)
	}
	return n, nil
}

// Get waits for an entry, holds it and returns its value; once it holds one it
// returns the same value at once, until Consume or Release. An entry whose lock
// was lost is forgotten, and Get takes another.
//
// A context whose deadline has passed already is kazoo's get(timeout=0): Get looks once,
// as [LockingQueue.TryGet] does and for five seconds at most, and returns
// [context.DeadlineExceeded] when nothing is there. One that was cancelled ends Get at once.
func (q *LockingQueue) Get(ctx context.Context) (value []byte, err error) {
	if ctx == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return q.get(ctx, q.Take)
	}
	once, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookOnce)
	defer cancel()
	value, err = q.get(once, q.TryTake)
	if errors.Is(err, ErrEmpty) {
		err = ctx.Err()
	}
	return value, err
}

// lookOnce bounds a Get whose time is over when it begins.
const lookOnce = 5 * time.Second

// TryGet is Get without the waiting, as kazoo's get(timeout=0): [ErrEmpty] when there was an
// instant during the call at which nothing was available.
func (q *LockingQueue) TryGet(ctx context.Context) ([]byte, error) { return q.get(ctx, q.TryTake) }

// get returns the value in hand, or of what take takes.
func (q *LockingQueue) get(ctx context.Context, take func(context.Context) (*Held, error)) (value []byte, err error) {
	err = q.withKazooMu(ctx, func(ctx context.Context) error {
		if q.current != nil {
			holds, err := q.current.HoldsLock(ctx)
			if err != nil {
				return err
			}
			if holds {
				value = q.current.Value
				return nil
			}
		}
		q.current = nil
		h, err := take(ctx)
		if err != nil {
			return err
		}
		q.current, value = h, h.Value
		return nil
	})
	return value, err
}

// Consume removes the entry that Get returned; see [Held.Consume]. Without one
// it is [ErrNotHeld].
func (q *LockingQueue) Consume(ctx context.Context) error {
	return q.withKazooMu(ctx, func(ctx context.Context) error {
		return q.finishCurrent(func(h *Held) error { return h.Consume(ctx) })
	})
}

// Release gives back the entry that Get returned; see [Held.Release]. Without
// one it is [ErrNotHeld].
func (q *LockingQueue) Release(ctx context.Context) error {
	return q.withKazooMu(ctx, func(ctx context.Context) error {
		return q.finishCurrent(func(h *Held) error { return h.Release(ctx) })
	})
}

// HoldsLock asks the coordinator whether the entry that Get returned is still
// held; false without one.
func (q *LockingQueue) HoldsLock(ctx context.Context) (holds bool, err error) {
	err = q.withKazooMu(ctx, func(ctx context.Context) error {
		if q.current != nil {
			holds, err = q.current.HoldsLock(ctx)
		}
		return err
	})
	return holds, err
}

// withKazooMu runs one of kazoo's methods at a time, no longer than the handle is open.
func (q *LockingQueue) withKazooMu(ctx context.Context, f func(context.Context) error) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", ErrInvalid)
	}
	if q.handle.Invalid != nil {
		return q.handle.Invalid
	}
	if q.handle.IsClosed() {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	bound, cancel := q.handle.Bound(ctx)
	defer cancel()
	select {
	case q.kazooMu <- struct{}{}:
		defer func() { <-q.kazooMu }()
		return q.handle.CallError(ctx, f(bound))
	case <-bound.Done():
		return q.handle.CallError(ctx, bound.Err())
	}
}

// finishCurrent finishes the current entry and forgets it when that is over.
func (q *LockingQueue) finishCurrent(do func(*Held) error) error {
	if q.current == nil {
		return ErrNotHeld
	}
	err := do(q.current)
	if err == nil || errors.Is(err, ErrLockLost) || errors.Is(err, ErrAlreadyDone) {
		q.current = nil
	}
	return err
}

// Close ends waiting takes with [ErrClosed], gives back what Get holds, and
// returns within two seconds or so, whatever the service does. Its goroutines
// have ended then, but for one that undoes a claim still in doubt: that ends with
// the session at the latest. Entries that Take handed out stay held, and can be
// finished, as long as the coordinator is open; their contexts end. A second
// Close does nothing.
func (q *LockingQueue) Close() error {
	q.handle.End()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	q.kazooMu <- struct{}{} // the method that has it is about to return: the handle is closed
	err := q.finishCurrent(func(h *Held) error { return h.Release(ctx) })
	<-q.kazooMu
	if errors.Is(err, ErrNotHeld) || errors.Is(err, ErrLockLost) || errors.Is(err, coord.ErrClosed) {
		err = nil
	}
	q.claimer.head.Close()
	q.claimer.keeper.Close()
	q.registry.Unregister(ctx)
	q.close()
	return err
}

func one(held []*Held, err error) (*Held, error) {
	if err != nil {
		return nil, err
	}
	return held[0], nil
}

func checkCount(n int) error {
	if n < 1 {
		return fmt.Errorf("take %d entries: allowed are 1 and more: %w", n, ErrInvalid)
	}
	return nil
}
