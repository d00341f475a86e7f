package zkq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	w.Queue.registry.Stay() // the first take that waits registers the handle
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

// Handler does the work of one entry. Its result decides how the worker finishes the entry:
//
//	nil         done: the entry is removed
//	Skip(err)   given up: the entry is moved to the dead at once
//	Snooze(d)   not now: the entry is ready again after d; not a failure
//	Release(…)  undone: the entry is ready at once, or as the options say; not a failure
//	any other   failed: the entry is ready again after a pause, or dead after Worker.MaxFailures
//
// A wrapped error counts as the error that it wraps. A panic is a failure. A handler may finish
// the entry itself, for example with [Held.Forward]; then its result changes nothing.
//
// ctx ends when the lock is lost, the Timeout is over, or the worker has stopped and its grace
// is over. [context.Cause] then returns [ErrLockLost], [ErrTimeout] or [ErrShutdown]. ctx does
// not end merely because the worker stops. After a lost lock the result changes nothing. An
// error that a handler returns because of ErrShutdown is no failure.
//
// A handler that ignores ctx is stuck one second (Worker.StuckAfter) after the end of ctx. The
// worker then gives the entry back, but the handler still occupies its slot.
type Handler interface {
	Handle(ctx context.Context, h *Held) error
}

// HandlerFunc lets a function be used as a [Handler].
type HandlerFunc func(ctx context.Context, h *Held) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, h *Held) error { return f(ctx, h) }

// Middleware returns a handler that calls another one, as middleware of net/http does. It may
// act before and after the call, and change the result.
type Middleware func(Handler) Handler

// Wrap returns h with middleware around it. The first middleware is the outermost: it is called
// first and sees the result last.
func Wrap(h Handler, around ...Middleware) Handler {
	for i := len(around) - 1; i >= 0; i-- {
		h = around[i](h)
	}
	return h
}

// Causes of the end of a handler's context, besides [ErrLockLost]: see [context.Cause].
var (
	// ErrTimeout says that the handler has run for as long as [Worker].Timeout allows.
	ErrTimeout = errors.New("zkq: handler timed out")
	// ErrShutdown says that the worker stops and its grace is over.
	ErrShutdown = errors.New("zkq: worker is shutting down")
)

// ErrStuck says that handlers have not returned although their contexts have ended. They still
// run; their entries were given back.
var ErrStuck = errors.New("zkq: handler does not return")

// Skip returns the error with which a handler gives its entry up: the worker moves the entry to
// the dead at once, with err as the reason. Use it if no later attempt can succeed.
func Skip(err error) error {
	if err == nil {
		err = errors.New("skipped")
	}
	return &skip{err}
}

// skip is the error of [Skip].
type skip struct{ err error }

func (s *skip) Error() string { return s.err.Error() }
func (s *skip) Unwrap() error { return s.err }

// Snooze returns the error with which a handler puts its entry off: no process takes the entry
// before d has passed. It is no failure, and [MaxDeliveries] does not count the delivery.
func Snooze(d time.Duration) error { return &snooze{max(d, 0)} }

// snooze is the error of [Snooze].
type snooze struct{ d time.Duration }

func (s *snooze) Error() string { return fmt.Sprintf("snoozed for %v", s.d) }

// Release returns the error with which a handler gives its entry back undone, as [Held.Release]
// does with these options. It is no failure, and [MaxDeliveries] does not count the delivery.
// Without options the same worker may take the entry again at once.
func Release(opts ...ReleaseOption) error { return &putBack{opts} }

// putBack is the error of [Release].
type putBack struct{ opts []ReleaseOption }

func (*putBack) Error() string { return "released" }

// Backoff returns a function for [Worker].Backoff. It returns first after the first failure,
// and twice as long after each further one, up to most. It subtracts a random part of at most
// half, so that entries that failed together do not come back together.
func Backoff(first, most time.Duration) func(failures int) time.Duration {
	return func(failures int) time.Duration {
		d := max(min(first, most), 0)
		for ; failures > 1 && d > 0 && d < most; failures-- {
			if d *= 2; d <= 0 || d > most {
				d = most
			}
		}
		return d - rand.N(d/2+1)
	}
}

// heldKey is the key of the entry in a handler's context.
type heldKey struct{}

// HeldFrom returns the entry for which a [Worker] called a handler with ctx, or nil if ctx is
// from no worker. Code that the handler calls can use it, for example to log the entry's name.
func HeldFrom(ctx context.Context) *Held {
	h, _ := ctx.Value(heldKey{}).(*Held)
	return h
}
