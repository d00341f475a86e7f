package zkq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
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
// A handler that goes on a second after its context has ended is stuck, and keeps its
// place: Go cannot end it. The worker logs an Error with how many of its places are stuck.
// An entry whose handler got stuck in three deliveries because of Timeout is dead, with
// MaxFailures 0 too, whichever workers had it: each of them cost a worker a place. When all
// places have been stuck for a minute, Run ends with [ErrStuck], so that a supervisor can
// start the process anew; their entries were given back by then.
//
// A panic in Backoff, Report or Logger is logged, and the worker goes on as without it.
type Worker struct {
	Queue   *LockingQueue
	Handler Handler

	// Concurrency is how many entries are worked on at once; 0 means 1.
	Concurrency int

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

	// Grace is how long handlers may go on when the worker stops, before their
	// contexts end with [ErrShutdown]; 0 means 30 seconds, less than 0 none.
	Grace time.Duration

	// Logger is told what the worker swallows; nil means nobody. Where the queue has no
	// [LogTo], it is told of waits for a busy or full service too. Both a *slog.Logger
	// and a hclog.Logger are one.
	Logger Logger

	// Report is told what became of each entry, by the goroutine that worked on it;
	// nil means nobody.
	Report func(Handled)
}

// Logger takes messages with pairs of keys and values.
type Logger interface {
	Debug(message string, args ...any)
	Info(message string, args ...any)
	Warn(message string, args ...any)
	Error(message string, args ...any)
}

// Ending is how a worker got an entry off its hands.
type Ending string

// The endings.
const (
	EndingDone     Ending = "done"     // removed, or finished by its handler
	EndingFailed   Ending = "failed"   // back after a pause; a failure more
	EndingDead     Ending = "dead"     // moved to the dead
	EndingSnoozed  Ending = "snoozed"  // back when its handler asked for it
	EndingReleased Ending = "released" // back at once: the worker stops
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

	stuck bool // it did not return
}

// Defaults of a Worker, and how long a handler has to return after the end of its
// context.
const (
	defaultGrace = 30 * time.Second
	leash        = time.Second
	mostBackoff  = 30 * 24 * time.Hour
)

// One stuck delivery may be the machine's fault and two bad luck; and a worker of four
// places still has one after three. A handler that merely overran its time by far is back
// within a minute.
const (
	mostStuck = 3           // deliveries of an entry; with this one it is dead
	stuckRun  = time.Minute // so long may all places be stuck
)

var defaultBackoff = Backoff(time.Second, time.Minute)

// Run works until ctx ends. Then it takes nothing more and lets running handlers
// finish, for as long as Grace says; entries of those that do not are given back,
// and the delivery is not counted against them. It returns within two seconds of
// the end of the grace, whatever the service and the handlers do, and nil if ctx
// alone ended it. What was not answered by then is settled behind it, or ends with the
// session. [ErrStuck]: handlers run on. Any other error ended the work, or says what is
// wrong with the worker: the queue was closed, or the service does not allow it to
// work. Lost connections and sessions are waited out. A service that let the worker in
// before and now refuses it may be starting, or changing its certificates: Run ends only
// when that has lasted longer than a session.
//
// No error of an entry ends Run. It may be called again, and by several goroutines.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.check(ctx); err != nil {
		return err
	}
	r := &shift{Worker: w}
	defer w.Queue.busy.tellWorker(w.log())()
	r.taking, r.stop = context.WithCancelCause(ctx)
	working, end := context.WithCancelCause(context.WithoutCancel(ctx))
	settling, kill := context.WithCancel(context.WithoutCancel(ctx))
	r.working, r.settling = working, settling
	defer r.stop(nil)
	defer end(ErrShutdown)
	defer kill()

	var places sync.WaitGroup
	for range r.places() {
		places.Go(r.place)
	}
	idle := make(chan struct{})
	go func() {
		places.Wait()
		close(idle)
	}()
	<-r.taking.Done()
	r.log().Debug("worker stops", "queue", w.Queue.Name(), "grace", w.grace())
	if r.allStuck() || !within(idle, w.grace()) {
		end(ErrShutdown)
		if r.allStuck() || !within(idle, 2*leash) {
			kill()
			<-idle
		}
	}
	return r.ended()
}

// within waits for the channel, but no longer than d.
func within(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func (w *Worker) check(ctx context.Context) error {
	switch {
	case ctx == nil:
		return fmt.Errorf("run worker: nil context: %w", ErrInvalid)
	case w.Queue == nil:
		return fmt.Errorf("run worker: no queue: %w", ErrInvalid)
	case w.Handler == nil:
		return fmt.Errorf("run worker: no handler: %w", ErrInvalid)
	case w.Concurrency < 0, w.MaxFailures < 0, w.Timeout < 0:
		return fmt.Errorf("run worker: concurrency %d, failures %d, timeout %v: allowed are 0 and more: %w",
			w.Concurrency, w.MaxFailures, w.Timeout, ErrInvalid)
	}
	return w.Queue.invalid
}

func (w *Worker) grace() time.Duration {
	if w.Grace == 0 {
		return defaultGrace
	}
	return max(w.Grace, 0)
}

func (r *shift) backoff(failures int) (rest time.Duration) {
	if r.Backoff == nil {
		return defaultBackoff(failures)
	}
	defer func() {
		if v := recover(); v != nil {
			rest = defaultBackoff(failures)
			r.log().Error("Backoff panicked: the entry rests as without it", "queue", r.Queue.Name(), "failures", failures, "panic", v, "rest", rest)
		}
	}()
	if rest = r.Worker.Backoff(failures); rest < 0 {
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

// guarded is a user's Logger whose panics do not end the process: they go to the standard
// logger of log/slog.
type guarded struct{ to Logger }

func (g guarded) Debug(m string, args ...any) { guardLog(g.to.Debug, m, args) }
func (g guarded) Info(m string, args ...any)  { guardLog(g.to.Info, m, args) }
func (g guarded) Warn(m string, args ...any)  { guardLog(g.to.Warn, m, args) }
func (g guarded) Error(m string, args ...any) { guardLog(g.to.Error, m, args) }

func guardLog(log func(string, ...any), message string, args []any) {
	defer func() {
		if v := recover(); v != nil {
			slog.Error("zkq: the worker's Logger panicked", "panic", fmt.Sprint(v), "message", message)
		}
	}()
	log(message, args...)
}

type silent struct{}

func (silent) Debug(string, ...any) {}
func (silent) Info(string, ...any)  {}
func (silent) Warn(string, ...any)  {}
func (silent) Error(string, ...any) {}

// shift is one run of a worker.
type shift struct {
	*Worker
	taking   context.Context // ends first: nothing more is taken
	working  context.Context // of the handlers; ends with the grace
	settling context.Context // of what becomes of entries; ends last
	stop     context.CancelCauseFunc

	mu     sync.Mutex
	left   int         // handlers that were left behind when the run ended
	stuck  int         // places whose handlers do not return
	ending *time.Timer // runs while all places are stuck
}

// ended is what Run returns.
func (r *shift) ended() error {
	var err error
	if cause := context.Cause(r.taking); errors.As(cause, new(*cannotTake)) {
		err = cause
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ending != nil {
		r.ending.Stop()
	}
	if r.left > 0 && !errors.Is(err, ErrStuck) {
		err = errors.Join(err, fmt.Errorf("%d of queue %s: %w", r.left, r.Queue.Name(), ErrStuck))
	}
	return err
}

func (r *shift) places() int { return max(r.Concurrency, 1) }

// placeStuck says that a place's handler does not return. When none is left that works,
// the run ends after a while.
func (r *shift) placeStuck(h *Held) {
	r.mu.Lock()
	r.stuck++
	stuck := r.stuck
	if stuck == r.places() {
		r.ending = time.AfterFunc(stuckRun, func() {
			r.stop(&cannotTake{fmt.Errorf("all %d places of queue %s: %w", stuck, r.Queue.Name(), ErrStuck)})
		})
	}
	r.mu.Unlock()
	r.log().Error(fmt.Sprintf("%d of %d places are stuck: the handler does not return", stuck, r.places()),
		"queue", r.Queue.Name(), "entry", h.Name, "delivery", h.Deliveries)
}

// placeFree says that it did after all.
func (r *shift) placeFree(h *Held) {
	r.mu.Lock()
	r.stuck--
	stuck := r.stuck
	if r.ending != nil {
		r.ending.Stop()
		r.ending = nil
	}
	r.mu.Unlock()
	r.log().Info(fmt.Sprintf("a stuck handler returned: %d of %d places are stuck", stuck, r.places()), "queue", r.Queue.Name(), "entry", h.Name)
}

// allStuck says that the run ended because no place was left.
func (r *shift) allStuck() bool {
	return r.taking.Err() != nil && errors.Is(context.Cause(r.taking), ErrStuck)
}

// cannotTake ends a shift.
type cannotTake struct{ err error }

func (c *cannotTake) Error() string { return c.err.Error() }
func (c *cannotTake) Unwrap() error { return c.err }

// place is one of those that work beside each other.
func (r *shift) place() {
	var h *Held // the next, if it came with the last one's finish
	var since refusals
	for backoff := new(retry.Backoff); ; {
		var err error
		if h == nil {
			h, err = r.Queue.Take(r.taking)
		}
		switch {
		case err == nil:
			backoff.Reset()
			h = r.handle(h)
		case r.taking.Err() != nil:
			return
		case lasting(err), refusesWorker(err) && since.lasted(r.Queue.granted()):
			r.stop(&cannotTake{err})
			return
		default:
			r.log().Warn("nothing taken", "queue", r.Queue.Name(), "error", err)
			backoff.Wait(r.taking, nil, err)
		}
	}
}

// lasting says that it is of no use to try again.
func lasting(err error) bool {
	for _, target := range []error{ErrClosed, coord.ErrClosed, ErrInvalidName, ErrLayout} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// refusesWorker says that the service, or what answers in its place, does not let the
// worker in.
func refusesWorker(err error) bool {
	for _, target := range []error{ErrInvalid, coord.ErrForbidden, coord.ErrAuth, coord.ErrTLS, coord.ErrFormat} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// refusals are those that followed one another.
type refusals struct{ first, last time.Time }

// lasted counts a refusal, and says whether they have lasted too long. session is the
// timeout of the session that there was, 0 if there was none: the first refusal is final
// then.
func (r *refusals) lasted(session time.Duration) bool {
	now := time.Now()
	if r.last.IsZero() || now.Sub(r.last) > session {
		r.first = now
	}
	r.last = now
	return session == 0 || now.Sub(r.first) > session
}
