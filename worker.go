package zkq

import (
	"context"
	"fmt"
	"time"
)

// Worker takes entries of a queue and calls a [Handler] for each. Queue and Handler must be
// set; every other field has a useful zero value. Do not change fields while the worker runs.
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
// A worker has Concurrency places, each of which runs one handler at a time. A handler that
// still runs a second (StuckAfter) after its context has ended is stuck. It keeps its place,
// because Go cannot end a goroutine from outside. The worker gives its entry back, and logs an
// Error with the number of stuck places. When all places have been stuck for a minute, Run
// returns [ErrStuck], so that a supervisor can restart the process.
//
// An entry whose handler got stuck after its Timeout in three deliveries is dead, also with
// MaxFailures 0. This bounds the places that one entry can block, over all workers.
//
// The worker removes entries of handlers that have succeeded in the commit that claims the
// next ones. So under load an entry costs a small part of one commit.
//
// If Backoff, Report or Logger panics, the worker logs that and goes on without its result.
type Worker struct {
	Queue   *LockingQueue
	Handler Handler

	// Concurrency is how many entries are worked on at once; 0 means 1.
	Concurrency int

	// ReadAhead is how many entries the worker holds in reserve, beyond those that are
	// worked on, so that a free place need not wait for a claim; 0 means none. Other workers
	// cannot take them meanwhile. When the worker stops it gives them back, and this does
	// not count as a delivery.
	ReadAhead int

	// Drain makes Run return nil when no handler runs and nothing is left to take: no entry
	// is ready, and no entry that this queue handle gave back is due later. It does not wait
	// for entries that other processes hold. If the queue is paused by then, Run returns
	// [ErrPaused]; if the service cannot be reached, coord.ErrUnreachable.
	Drain bool

	// Limit is how many entries a call of Run takes before it returns nil; 0 means no limit.
	// Entries count whether their handlers succeed or not.
	Limit int

	// Idle makes Run return nil when no handler has run and nothing was taken for that long;
	// 0 means never.
	Idle time.Duration

	// Stop makes Run take nothing more once it is closed, and return nil when the running
	// handlers have returned. Their time is not limited, since Grace begins only with the
	// end of Run's context. A nil channel never stops Run.
	Stop <-chan struct{}

	// MaxFailures is the number of failures with which an entry is dead; 0 means never.
	// Errors and panics of handlers count, crashes and shutdowns of workers do not. The
	// queue's [MaxDeliveries] bounds the deliveries of an entry that crashes its workers.
	MaxFailures int

	// Backoff returns how long an entry rests after it has failed that many times; nil means
	// Backoff(time.Second, time.Minute). The longest rest is 30 days: a longer one is cut to
	// that. A negative one, which an overflow may produce, counts as 30 days too. If Backoff
	// panics, the entry rests as with nil.
	Backoff func(failures int) time.Duration

	// Timeout is the time after which a handler's context ends, with the cause [ErrTimeout];
	// 0 means never.
	Timeout time.Duration

	// Grace is how long handlers may go on after Run's context has ended, before their
	// contexts end with the cause [ErrShutdown]; 0 means 30 seconds, a negative Grace none.
	Grace time.Duration

	// StuckAfter is how long a handler may go on after its context has ended before it
	// counts as stuck; 0 means one second. At the end of the grace it is at most 1.5 seconds.
	StuckAfter time.Duration

	// Logger gets messages about errors that Run does not return; nil: they are not logged.
	// If the queue has no [LogTo], it also gets messages about waits for a busy or full
	// service. A *slog.Logger and a hclog.Logger both implement it.
	Logger Logger

	// Report is called with the outcome of each entry, by the goroutine that worked on it;
	// nil: it is not called. Several goroutines may call it at once.
	Report func(Handled)
}

// Ending is what became of an entry when the worker was done with it.
type Ending string

// The endings.
const (
	EndingDone     Ending = "done"     // removed, or finished by its handler
	EndingFailed   Ending = "failed"   // the handler failed: the entry rests, and is then ready again
	EndingDead     Ending = "dead"     // moved to the dead entries
	EndingSnoozed  Ending = "snoozed"  // ready again at the time for which its handler asked
	EndingReleased Ending = "released" // ready at once: the worker stops, or its handler returned Release
	EndingLost     Ending = "lost"     // the lock was lost: the entry is ready, or another process holds it
	EndingUnknown  Ending = "unknown"  // no answer came: finished, or ready again when the session ends
)

// Handled is an entry that a worker is done with, and what became of it. See Worker.Report.
type Handled struct {
	Held    *Held
	Ending  Ending
	Err     error // of the handler, or of the finish; a [*PanicError] if the handler panicked
	Started time.Time
	Took    time.Duration // until the handler returned, or was declared stuck

	stuck bool          // the handler did not return
	rests time.Duration // how long the entry rests after the failure
}

const (
	defaultGrace = 30 * time.Second
	mostBackoff  = 30 * 24 * time.Hour

	killDelay     = time.Second             // StuckAfter's default; twice as long is what the last finishes have
	shutdownDelay = 1500 * time.Millisecond // most of StuckAfter at the end of the grace
)

// An entry may get its handler stuck twice without being at fault: the machine may stand still.
// Three times leave a worker with four places one that works. A handler that is merely slow
// returns within stuckRun, so the worker waits that long before it gives up.
const (
	mostStuck = 3           // with this many stuck deliveries an entry is dead
	stuckRun  = time.Minute // how long all places may be stuck before Run ends
)

// defaultBackoff is Worker.Backoff's default.
var defaultBackoff = Backoff(time.Second, time.Minute)

// Run works until ctx ends, or as Drain, Limit, Idle and Stop say.
//
// When ctx ends, Run takes nothing more and gives running handlers the time that Grace says.
// Entries of handlers that need longer are given back, and this does not count as a delivery.
// Run returns within two seconds of the end of the grace, whatever the service and the
// handlers do. Finishes without an answer by then go on in the background; if they fail, the
// entries are ready again when the session ends.
//
// Run returns nil if ctx alone ended it. [ErrStuck] means that handlers still run. Other
// errors say what ended the work, or what is wrong with the worker: the queue was closed, or
// the service does not allow the worker to work. Run waits out lost connections and sessions.
// A service that has admitted the worker and now refuses it may be starting, or changing its
// certificates: Run returns that error only if it lasts longer than a session.
//
// No error of an entry ends Run. Run may be called again, and by several goroutines at once.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.check(ctx); err != nil {
		return err
	}
	defer w.Queue.busy.Also(w.log())()
	return newRun(w, ctx).runUntil(ctx)
}

// check returns an [ErrInvalid] for a field that has no allowed value, or the queue's own error.
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

// grace returns Grace, or its default.
func (w *Worker) grace() time.Duration {
	if w.Grace == 0 {
		return defaultGrace
	}
	return max(w.Grace, 0)
}

// places returns how many handlers may run at once.
func (w *Worker) places() int { return max(w.Concurrency, 1) }

// stuckAfter returns StuckAfter, or its default.
func (w *Worker) stuckAfter() time.Duration {
	if w.StuckAfter == 0 {
		return killDelay
	}
	return w.StuckAfter
}

// restAfter returns how long an entry rests after it has failed that many times: what Backoff
// says, within its limits, or the default if there is no Backoff or it panics.
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

// log returns the worker's logger; a panic of the user's one is caught.
func (w *Worker) log() Logger {
	if w.Logger == nil {
		return silent{}
	}
	return guarded{w.Logger}
}

// silent is a Logger that discards every message.
type silent struct{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}
