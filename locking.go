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

// LockingQueue is kazoo's LockingQueue. A take locks an entry, and a finish removes it when
// the work is done. If the worker gives the entry back or dies, the entry is ready again in
// its old place.
//
// Every entry is handed out at least once, and exactly one finish removes it. A worker that
// lost its lock can never remove the entry, even if it does not know of the loss yet. Python
// workers that use kazoo and Go workers may share one queue.
//
// All methods may be called from several goroutines. Get, TryGet, Consume, Release and
// HoldsLock are kazoo's methods: they share one current entry and run one at a time. In new
// programs use Take or a [Worker] instead.
type LockingQueue struct {
	*base
	claimer  *claimer         // claims entries and knows which ones this handle holds
	taker    *taker           // chooses entries, and runs the commits of takes and exchanges
	mover    *mover           // makes due entries ready
	pauser   *pauser          // keeps takes from the queue while it is paused
	registry *member.Registry // this handle's node among the workers

	kazooMu chan struct{} // one-token lock: kazoo's methods run one at a time; guards current
	current *Held         // the entry that Get returned; nil: none, or it is finished
}

// NewLockingQueue returns a handle to the locking queue of that name. It sends no request and
// creates nothing: a queue without nodes is an empty queue. If [CheckName] refuses the name,
// or an option is invalid, every method returns that error. Close the handle after use.
//
// kazoo's constructor is LockingQueue(client, path). kazoo creates the queue's directories in
// put, get and len; here only writes create nodes.
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
	cfg.WatchersDir, cfg.Watchers = path.Join(q.handle.Root, layout.WatchersDir), q.watchers
	cfg.HasExpired, cfg.MayBeSpent, cfg.FindSpent = hasExpired, clearing.mayBeSpent, clearing.findSpent
	q.claimer.head = head.New(cfg)
	q.taker = &taker{q.claimer, clearing}
	q.pauser = &pauser{Handle: q.handle, settings: q.settings, log: q.log}
	q.mover = &mover{Handle: q.handle, settings: q.settings, delayed: q.delayed, busy: q.busy, holder: string(q.holder), page: q.duePage, movePage: q.movePage, bulk: q.bulk}
	q.removal.removeReady = q.claimer.claimAndConsume
	q.removal.clearReady = clearing.clearNodes
	q.removal.removeAllReady = clearing.removeNodes
	return q
}

// Put puts a value and returns the name of its entry. When it returns without an error the
// entry is stored durably. Every put that begins later, in any process, comes after it within
// its priority.
//
// After a lost answer Put retries until ctx ends; the entry is still put once. The name is ""
// if another process removed the entry before its name was read. If there is no answer in
// time the error is an [*UnknownError] with a token for [Resolve]. After any other error
// nothing was put.
//
// kazoo's put returns no name. A kazoo program that repeats it after a lost answer may put
// the entry twice.
func (q *LockingQueue) Put(ctx context.Context, value []byte, opts ...PutOption) (string, error) {
	return q.puts.put(ctx, value, opts)
}

// PutAll puts all the values in one commit, or none: no process ever sees only a part of them.
// Their entries are neighbours, in the order given. It returns their names. No values are no
// error.
//
// [ErrTooLarge] means that the values do not fit into one commit, or exceed the bound of the
// queue even if it were empty. Then nothing was sent. Other errors are those of Put.
//
// kazoo's put_all reports no error if its transaction failed; PutAll does.
func (q *LockingQueue) PutAll(ctx context.Context, values [][]byte, opts ...PutOption) ([]string, error) {
	return q.puts.putAll(ctx, values, opts)
}

// PutSome puts the first of the values in one commit: all of them, or as many as a bounded
// queue has room for, but at least one. It returns the names of the entries that it put. The
// caller puts the other values with further calls; so they keep their order.
//
// [ErrFull] means that there was room for none, after the wait of [WithWait]. [ErrInvalid]
// means that a token was given. Other errors are those of PutAll.
func (q *LockingQueue) PutSome(ctx context.Context, values [][]byte, opts ...PutOption) ([]string, error) {
	return q.puts.putSome(ctx, values, opts)
}

// Take blocks until an entry is available, claims it and returns it. It claims the most urgent
// entry; among entries of one priority, the one that was put first. The caller finishes the
// entry with a method of [Held]. If the caller's process dies, the session expires and the
// entry is ready again.
//
// Take returns ctx's error when ctx ends, and [ErrClosed] after Close. Then the caller holds
// nothing: a claim without an answer is undone in the background. Take waits until a lost
// connection or session is replaced.
func (q *LockingQueue) Take(ctx context.Context) (*Held, error) {
	return firstOf(q.TakeN(ctx, 1))
}

// TryTake is Take without waiting for entries. [ErrEmpty] means that no entry was available at
// an instant during the call, and [ErrPaused] that the queue is paused. Due entries are made
// ready first.
func (q *LockingQueue) TryTake(ctx context.Context) (*Held, error) {
	return firstOf(q.TryTakeN(ctx, 1))
}

// TakeN blocks until an entry is available, as Take does. It returns up to n available entries
// in take order: at least one, and no more than one commit can claim. An n below 1 is
// [ErrInvalid]. Other errors are those of Take.
//
// An entry that was handed out before is taken alone. If that entry crashes its worker, the
// crash does not add a delivery to other entries.
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
	err := q.pauser.whileNotPaused(ctx, func(ctx context.Context) error {
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

// TryTakeN is TakeN without waiting for entries. Its errors are those of TryTake, and
// [ErrInvalid] for an n below 1.
func (q *LockingQueue) TryTakeN(ctx context.Context, n int) ([]*Held, error) {
	if err := checkCount(n); err != nil {
		return nil, err
	}
	q.mover.countTry()
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

// tryTakeDue is [finder.tryTake], but makes due entries ready before it reports [ErrEmpty]. It
// tries again after each page of due entries, because all of them may have expired. It also
// tries once more if the handle's mover made an entry ready during the try. [ErrPaused] means
// that the queue is paused; then nothing was claimed.
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
		case waited, q.mover.begun.Load() == ended: // the mover began no move during the try either
			return err
		default:
			waited = true
		}
	}
}

// Exchange removes the entries of done, whose work is done, and takes up to n available
// entries, all in one commit. So a worker pays one commit for each entry instead of two.
// Exchange does not wait for entries: it may return fewer than n, or none, without an error.
// None does not mean that the queue is empty: entries may be left to other processes for a
// moment. TakeN waits for them.
// An entry that was handed out before is taken alone. An n of 0 only removes. While the queue
// is paused nothing is taken.
//
// Each entry of done is removed as by [Held.Consume]. A lost lock of one entry does not affect
// the others. The error joins a [*FinishError] for each entry that was not removed for
// certain, and the error of the take. Entries returned together with an error are held.
// [ErrNotHeld] means that done has an entry twice, or one of another handle; then nothing was
// sent. The first call with n above 0 registers the handle: see [LockingQueue.Register].
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
			n = 0 // only remove the entries of done
		}
	}
	held, failed, err := q.taker.finishAndTake(bound, done, n, false)
	return held, errors.Join(failed, untaken, q.handle.CallError(ctx, err))
}

// All yields entries as Take returns them, until ctx ends. The loop's body finishes each
// entry; an entry that it does not finish stays held. An error other than ctx's is yielded
// with a nil Held and ends the loop. All registers the handle: see [LockingQueue.Register].
//
// Give a failed entry back with a delay. Otherwise the loop takes it again at once:
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

// Register adds this handle to the list that [LockingQueue.Workers] returns in every process.
// The handle stays registered until Close, also in later sessions. After an error other
// processes do not see the handle yet; later takes of the handle try again. It is no error if
// the credentials do not allow the registration. All, Exchange and [Worker] register by
// themselves.
func (q *LockingQueue) Register(ctx context.Context) error {
	q.registry.Stay()
	err := q.handle.Do(ctx, func(ctx context.Context, s coord.Session) error { return q.registry.Register(ctx, s) })
	if err != nil {
		return fmt.Errorf("register among the workers of %s: %w", q.handle.Root, err)
	}
	return nil
}

// Workers returns the registered handles of the queue, ordered by host and process. Holders
// that do not register (kazoo workers, a single take) come last, without host and process. The
// call costs two listings, of the workers and of the locks. The result may be out of date when
// it arrives.
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

// Pause keeps the takes of every zkq process from handing out entries until Resume. Take and
// TakeN block meanwhile; TryTake and TryTakeN return [ErrPaused]. The pause is stored with the
// queue. Waiting takes notice it at once, but a claim that is in flight may still succeed.
// Held entries can be finished, and puts go on. kazoo's workers ignore a pause.
func (q *LockingQueue) Pause(ctx context.Context) error {
	return q.pauser.setPaused(ctx, "pause", true)
}

// Resume ends a pause: takes of every process go on. It is no error if the queue is not
// paused.
func (q *LockingQueue) Resume(ctx context.Context) error {
	return q.pauser.setPaused(ctx, "resume", false)
}

// LeftAlone returns how many entries this handle gave back with [LeaveAlone] or [After] and
// does not take yet. It sends no request: an entry that another process has taken or removed
// since still counts until its time is over.
func (q *LockingQueue) LeftAlone() int {
	return q.claimer.head.Resting.Len() + q.claimer.deferred.Len()
}

// Len returns the number of entries in the queue's directory, as kazoo's len does. It includes
// held entries, those given back with [After], and expired ones until they are removed. It does
// not include delayed puts and dead entries. The number is exact for an instant during the call.
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

// Close ends the handle: waiting takes return [ErrClosed], and the entry that Get returned is
// given back. Close returns within about two seconds, even if the service does not answer. Its
// error says that the entry may still be held; then it is ready when the session ends. A second
// Close does nothing. kazoo's queues have no close.
//
// Entries that Take returned stay held, and their contexts end. They can still be finished as
// long as the coordinator is open. All goroutines of the handle have ended, except those that
// undo a claim in doubt: they end with the session at the latest.
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
	q.claimer.head.Leave(ctx)
	q.claimer.keeper.Close()
	q.registry.Unregister(ctx)
	q.close()
	return err
}

// firstOf returns the only entry of a take of one.
func firstOf(held []*Held, err error) (*Held, error) {
	if err != nil {
		return nil, err
	}
	return held[0], nil
}

// checkCount refuses a number of entries that no take can return.
func checkCount(n int) error {
	if n < 1 {
		return fmt.Errorf("take %d entries: allowed are 1 and more: %w", n, ErrInvalid)
	}
	return nil
}
