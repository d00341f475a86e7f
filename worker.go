package zkq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
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
	// from 1; nil means Backoff(time.Second, time.Minute).
	Backoff func(failures int) time.Duration

	// Timeout ends a handler's context with [ErrTimeout]; 0 means never.
	Timeout time.Duration

	// Grace is how long handlers may go on when the worker stops, before their
	// contexts end with [ErrShutdown]; 0 means 30 seconds, less than 0 none.
	Grace time.Duration

	// Logger is told what the worker swallows; nil means nobody. Both a
	// *slog.Logger and a hclog.Logger are one.
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
}

// Defaults of a Worker, and how long a handler has to return after the end of its
// context.
const (
	defaultGrace = 30 * time.Second
	leash        = time.Second
)

var defaultBackoff = Backoff(time.Second, time.Minute)

// Run works until ctx ends. Then it takes nothing more and lets running handlers
// finish, for as long as Grace says; entries of those that do not are given back,
// and the delivery is not counted against them. It returns within two seconds of
// the end of the grace, whatever the service and the handlers do, and nil if ctx
// alone ended it. What was not answered by then is settled behind it, or ends with the
// session. [ErrStuck]: handlers run on. Any other error ended the work, or says what is
// wrong with the worker: the queue was closed, or the service does not allow it to
// work. Lost connections and sessions are waited out.
//
// No error of an entry ends Run. It may be called again, and by several goroutines.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.check(ctx); err != nil {
		return err
	}
	r := &shift{Worker: w}
	r.taking, r.stop = context.WithCancelCause(ctx)
	working, end := context.WithCancelCause(context.WithoutCancel(ctx))
	settling, kill := context.WithCancel(context.WithoutCancel(ctx))
	r.working, r.settling = working, settling
	defer r.stop(nil)
	defer end(ErrShutdown)
	defer kill()

	var places sync.WaitGroup
	for range max(w.Concurrency, 1) {
		places.Go(r.place)
	}
	idle := make(chan struct{})
	go func() {
		places.Wait()
		close(idle)
	}()
	<-r.taking.Done()
	r.log().Debug("worker stops", "queue", w.Queue.Name(), "grace", w.grace())
	if !within(idle, w.grace()) {
		end(ErrShutdown)
		if !within(idle, 2*leash) {
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

func (w *Worker) backoff(failures int) time.Duration {
	if w.Backoff == nil {
		return defaultBackoff(failures)
	}
	return w.Backoff(failures)
}

func (w *Worker) log() Logger {
	if w.Logger == nil {
		return silent{}
	}
	return w.Logger
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

	mu    sync.Mutex
	stuck int // handlers that were left behind
}

// ended is what Run returns.
func (r *shift) ended() error {
	var err error
	if cause := context.Cause(r.taking); errors.As(cause, new(*cannotTake)) {
		err = cause
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stuck > 0 {
		err = errors.Join(err, fmt.Errorf("%d of queue %s: %w", r.stuck, r.Queue.Name(), ErrStuck))
	}
	return err
}

// cannotTake ends a shift.
type cannotTake struct{ err error }

func (c *cannotTake) Error() string { return c.err.Error() }
func (c *cannotTake) Unwrap() error { return c.err }

// place is one of those that work beside each other.
func (r *shift) place() {
	var h *Held // the next, if it came with the last one's finish
	for pause := newPause(); ; {
		var err error
		if h == nil {
			h, err = r.Queue.Take(r.taking)
		}
		switch {
		case err == nil:
			pause = newPause()
			h = r.handle(h)
		case r.taking.Err() != nil:
			return
		case lasting(err):
			r.stop(&cannotTake{err})
			return
		default:
			r.log().Warn("nothing taken", "queue", r.Queue.Name(), "error", err)
			pause.wait(r.taking, nil)
		}
	}
}

// lasting says that it is of no use to try again.
func lasting(err error) bool {
	for _, target := range []error{
		ErrClosed, coord.ErrClosed, ErrInvalid, ErrInvalidName, ErrLayout,
		coord.ErrForbidden, coord.ErrAuth, coord.ErrTLS, coord.ErrFormat,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
