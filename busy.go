package zkq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq/coord"
)

// pause spaces the attempts of one call: soon at first, then every second. It logs when
// the call waits because the service refuses it for now ([coord.ErrBusy]).
type pause struct {
	d     time.Duration
	again <-chan struct{} // ends a wait early
	waits *busyWaits      // of the handle; nil: nothing is logged
	act   string          // what the caller tries to do
	since time.Time       // of the first refusal in a row
	last  time.Time       // of the last refusal
}

func newPause() *pause { return &pause{d: 5 * time.Millisecond} }

// newPause returns the pause of a call that is logged as act.
func (p *place) newPause(act string) *pause {
	return &pause{d: 5 * time.Millisecond, waits: &p.busy, act: act}
}

// wait waits before the next attempt, after one that ended with err. It reports why there
// is no point in another: ctx ended, or the session did.
func (p *pause) wait(ctx context.Context, done <-chan struct{}, err error) error {
	p.note(err)
	t := time.NewTimer(p.d)
	defer t.Stop()
	p.d = min(2*p.d, time.Second)
	select {
	case <-ctx.Done():
	case <-done:
	case <-p.again:
	case <-t.C:
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case <-done:
		return coord.ErrSessionLost
	default:
		return nil
	}
}

// The kinds of calls, as they are logged.
const (
	actPut       = "put"
	actTake      = "take"
	actFinish    = "finish"
	actUpdate    = "update"
	actRelease   = "release"
	actMove      = "move of due entries"
	actConfigure = "change of the configuration"
	actLog       = "use of the log"
)

const (
	tellBusyAfter = time.Second // so long a call waits for the service before that is logged
	oneWait       = time.Minute // refusals further apart belong to two waits
)

// note logs a refusal once the service has refused the call for a second.
func (p *pause) note(err error) {
	if p.waits == nil || !errors.Is(err, coord.ErrBusy) {
		return
	}
	now := time.Now()
	if now.Sub(p.last) > oneWait {
		p.since = now
	}
	p.last = now
	if now.Sub(p.since) >= tellBusyAfter {
		p.waits.refused(p.act, err)
	}
}

// end is called when the call has ended with err. A call that succeeded ends the wait of
// its kind.
func (p *pause) end(err error) {
	if err == nil && p.waits != nil {
		p.waits.served(p.act)
	}
}

// busyWaits logs each kind of call that the service refuses for now: once when a call
// has waited for a second, and once when a call of that kind succeeds. A full service may
// refuse puts and still serve takes, so each kind counts by itself.
type busyWaits struct {
	queue string
	own   Logger       // given to LogTo; nil: the workers' are told
	some  atomic.Int32 // kinds in told

	mu      sync.Mutex
	told    map[string]bool
	workers []Logger // of those that run
}

func (w *busyWaits) refused(act string, err error) {
	if w.mark(act, true) {
		w.warn(act+" waits: the service refuses it for now", "error", err)
	}
}

func (w *busyWaits) served(act string) {
	if w.some.Load() == 0 {
		return
	}
	if w.mark(act, false) {
		w.warn(act + " goes on: the service accepts it again")
	}
}

// mark notes whether calls of a kind wait, and reports whether that is news.
func (w *busyWaits) mark(act string, waiting bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told == nil {
		w.told = make(map[string]bool)
	}
	news := w.told[act] != waiting
	w.told[act] = waiting
	switch {
	case news && waiting:
		w.some.Add(1)
	case news:
		w.some.Add(-1)
	}
	return news
}

// warn logs without the lock: a Logger may use the queue.
func (w *busyWaits) warn(message string, args ...any) {
	w.mu.Lock()
	to := []Logger{w.own}
	if w.own == nil {
		to = slices.Clone(w.workers)
	}
	w.mu.Unlock()
	args = append([]any{"queue", w.queue}, args...)
	for _, l := range to {
		guarded{l}.Warn(message, args...)
	}
}

// workerLogger makes a worker's Logger comparable, whatever its type.
type workerLogger struct{ Logger }

// tellWorker has l told until stop is called, if the handle has no Logger of its own.
func (w *busyWaits) tellWorker(l Logger) (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	entry := &workerLogger{l}
	w.workers = append(w.workers, entry)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.workers = slices.DeleteFunc(w.workers, func(other Logger) bool { return other == Logger(entry) })
	}
}

// afterBusy waits where the service refused a call for now, and nothing was changed. It
// reports whether to try again, and otherwise the error, with that of ctx.
func (p *pause) afterBusy(ctx context.Context, done <-chan struct{}, err error) (again bool, _ error) {
	if !errors.Is(err, coord.ErrBusy) || errors.Is(err, ErrUnknown) {
		return false, err
	}
	if p.wait(ctx, done, err) == nil {
		return true, nil
	}
	return false, late(ctx, err)
}

// because adds to the reason why a wait has ended that the service refused the call.
func because(end, err error) error {
	if !errors.Is(err, coord.ErrBusy) || errors.Is(err, ErrUnknown) {
		return end
	}
	return fmt.Errorf("%w: %w", end, err)
}
