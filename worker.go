package zkq

import (
	"context"
	"fmt"
	"time"
)

// Worker takes entries of a queue and has a [Handler] work on them. Queue and
// Handler must be set; what else is zero has a good meaning. The fields are not to
// be changed while it runs.
//
//	w := &zkq.Worker{
//		Queue:       zkq.NewLockingQueue(c, "mail"),
//		Handler:     zkq.JSON(func(ctx context.Context, m Mail) error { return send(ctx, m) }),
//		Concurrency: 8,
//		MaxFailures: 5,
//		Logger:      slog.Default(),
//	}
//	err := w.Run(ctx) // ctx from signal.NotifyContext
//
// A handler that goes on a second (StuckAfter) after its context has ended is stuck, and
// keeps its place: Go cannot end it. The worker logs an Error with how many of its places are stuck.
// An entry whose handler got stuck in three deliveries because of Timeout is dead, with
// MaxFailures 0 too, whichever workers had it: each of them cost a worker a place. When all
// places have been stuck for a minute, Run ends with [ErrStuck], so that a supervisor can
// start the process anew; their entries were given back by then.
//
// Entries whose handlers are done are removed together, in the commit that claims the next
// ones: under load an entry costs a small part of one commit.
//
// A panic in Backoff, Report or Logger is logged, and the worker goes on as without it.
type Worker struct {
	Queue   *LockingQueue
	Handler Handler

	// Concurrency is how many entries are worked on at once; 0 means 1.
	Concurrency int

	// ReadAhead is how many entries the worker holds beyond those that are worked on, to
	// go on with at once; 0 means none. Other workers cannot have them meanwhile. When the
	// worker stops it gives them back uncounted.
	ReadAhead int

	// Drain has Run end, with nil, when no handler runs and nothing is left to take: no
	// entry is ready, and none that this queue handle gave back is still due. It does not
	// wait for entries that others hold. If the queue is paused by then, Run ends with
	// [ErrPaused], and if the service cannot be reached, with coord.ErrUnreachable.
	Drain bool

	// Limit is how many entries a call of Run takes before it ends with nil, whatever
	// becomes of them; 0 means any number.
	Limit int

	// Idle has Run end, with nil, when no handler has run and nothing was taken for that
	// long; 0 means never.
	Idle time.Duration

	// Stop has Run take nothing more once it is closed, and end with nil when the running
	// handlers are done: they have all the time they need, for Grace begins with the end
	// of Run's context. A nil channel never stops it.
	Stop <-chan struct{}

	// MaxFailures is the failure with which an entry is dead; 0 means never. Only
	// what handlers return counts, and their panics: no crash and no shutdown. What
	// kills its workers is bounded by the queue's [MaxDeliveries].
	MaxFailures int

	// Backoff is how long an entry rests after its failure of that number, counted
	// from 1; nil means Backoff(time.Second, time.Minute). Allowed are up to 30 days:
	// a longer rest is cut to that, and a negative one, as an overflow makes it, is 30
	// days too. A panic in it is logged, and the entry rests as with nil.
	Backoff func(failures int) time.Duration

	// Timeout ends a handler's context with [ErrTimeout]; 0 means never.
	Timeout time.Duration

	// Grace is how long handlers may go on when Run's context has ended, before their
	// contexts end with [ErrShutdown]; 0 means 30 seconds, less than 0 none.
	Grace time.Duration

	// StuckAfter is how long a handler may go on after its context has ended before it
	// counts as stuck; 0 means one second. It has at most 1.5 seconds at the end of the
	// grace.
	StuckAfter time.Duration

	// Logger is told what the worker swallows; nil means nobody. Where the queue has no
	// [LogTo], it is told of waits for a busy or full service too. Both a *slog.Logger
	// and a hclog.Logger are one.
	Logger Logger

	// Report is told what became of each entry, by the goroutine that worked on it;
	// nil means nobody.
	Report func(Handled)
}

// Ending is how a worker got an entry off its hands.
type Ending string

// The endings.
const (
	EndingDone     Ending = "done"     // removed, or finished by its handler
	EndingFailed   Ending = "failed"   // back after a pause; a failure more
	EndingDead     Ending = "dead"     // moved to the dead
	EndingSnoozed  Ending = "snoozed"  // back when its handler asked for it
	EndingReleased Ending = "released" // back at once: the worker stops, or its handler returned Release
	EndingLost     Ending = "lost"     // the lock was lost: it is back, or another's
	EndingUnknown  Ending = "unknown"  // finished, or back when the session ends: no answer came
)

// Handled is an entry that a worker had in hand.
type Handled struct {
	Held    *Held
	Ending  Ending
	Err     error // the handler's, or why there is no better outcome; a [*PanicError] if it panicked
	Started time.Time
	Took    time.Duration // until the handler returned, or was given up

	stuck bool          // it did not return
	rests time.Duration // until the next attempt, after a failure
}

const (
	defaultGrace = 30 * time.Second
	mostBackoff  = 30 * 24 * time.Hour

	killDelay     = time.Second             // StuckAfter's default, and what finishes have at the end
	shutdownDelay = 1500 * time.Millisecond // a handler has no longer than this at the end of the grace
)

// One stuck delivery may be the machine's fault and two bad luck; and a worker of four
// places still has one after three. A handler that merely overran its time by far is back
// within a minute.
const (
	mostStuck = 3           // deliveries of an entry; with this one it is dead
	stuckRun  = time.Minute // so long may all places be stuck
)

var defaultBackoff = Backoff(time.Second, time.Minute)

// Run works until ctx ends, or as Drain, Limit, Idle and Stop say. When ctx ends it takes
// nothing more and lets running handlers finish, for as long as Grace says; entries of those
// that do not are given back, and the delivery is not counted against them. It returns within
// two seconds of the end of the grace, whatever the service and the handlers do, and nil if
// ctx alone ended it. What was not answered by then is finished in the background, or ends
// with the session. [ErrStuck]: handlers run on. Any other error ended the work, or says what
// is wrong with the worker: the queue was closed, or the service does not allow it to
// work. Lost connections and sessions are waited out. A service that let the worker in
// before and now refuses it may be starting, or changing its certificates: Run ends only
// when that has lasted longer than a session.
//
// No error of an entry ends Run. It may be called again, and by several goroutines.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.check(ctx); err != nil {
		return err
	}
	defer w.Queue.busy.Also(w.log())()
	return newRun(w, ctx).until(ctx)
}

func (w *Worker) check(ctx context.Context) error {
	switch {
	case ctx == nil:
		return fmt.Errorf("run worker: nil context: %w", ErrInvalid)
	case w.Queue == nil:
		return fmt.Errorf("run worker: no queue: %w", ErrInvalid)
	case w.Handler == nil:
		return fmt.Errorf("run worker: no handler: %w", ErrInvalid)
	case w.Concurrency < 0, w.ReadAhead < 0, w.Limit < 0, w.MaxFailures < 0, w.Timeout < 0, w.Idle < 0, w.StuckAfter < 0:
		return fmt.Errorf("run worker: concurrency %d, read-ahead %d, limit %d, failures %d, timeout %v, idle %v, stuck after %v: allowed are 0 and more: %w",
			w.Concurrency, w.ReadAhead, w.Limit, w.MaxFailures, w.Timeout, w.Idle, w.StuckAfter, ErrInvalid)
	}
	return w.Queue.handle.Invalid
}

func (w *Worker) grace() time.Duration {
	if w.Grace == 0 {
		return defaultGrace
	}
	return max(w.Grace, 0)
}

func (w *Worker) places() int { return max(w.Concurrency, 1) }

func (w *Worker) stuckAfter() time.Duration {
	if w.StuckAfter == 0 {
		return killDelay
	}
	return w.StuckAfter
}

// restAfter is how long an entry rests after its failure of that number.
func (w *Worker) restAfter(failures int) (rest time.Duration) {
	if w.Backoff == nil {
		return defaultBackoff(failures)
	}
	defer func() {
		if v := recover(); v != nil {
			rest = defaultBackoff(failures)
			w.log().Error("Backoff panicked: the entry rests as without it", "queue", w.Queue.Name(), "failures", failures, "panic", v, "rest", rest)
		}
	}()
	if rest = w.Backoff(failures); rest < 0 {
		return mostBackoff
	}
	return min(rest, mostBackoff)
}

func (w *Worker) log() Logger {
	if w.Logger == nil {
		return silent{}
	}
	return guarded{w.Logger}
}

type silent struct{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}
