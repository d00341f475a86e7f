package zkq

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
)

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

// Waiting logs that calls of a kind wait.
func (w *busyWaits) Waiting(act string, err error) {
	if w.mark(act, true) {
		w.warn(act+" waits: the service refuses it for now", "error", err)
	}
}

// Served logs that they wait no more.
func (w *busyWaits) Served(act string) {
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

// Logger takes messages with pairs of keys and values.
type Logger interface {
	Debug(message string, args ...any)
	Info(message string, args ...any)
	Warn(message string, args ...any)
	Error(message string, args ...any)
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
