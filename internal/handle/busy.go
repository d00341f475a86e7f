package handle

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
)

// Logger takes messages with pairs of keys and values.
type Logger interface {
	Warn(message string, args ...any)
}

// BusyLog is a [retry.Observer] that logs each kind of call that the service refuses for
// now: once when a call has waited for a second, and once when a call of that kind
// succeeds. A full service may refuse puts and still serve takes, so each kind counts by
// itself. Queue and Logger are set before it is used.
type BusyLog struct {
	Queue  string // named in each message
	Logger Logger // nil: the loggers given to [BusyLog.Also] are told

	waiting atomic.Int32 // kinds in told that wait

	mu   sync.Mutex
	told map[string]bool // by kind: whether the last message said that it waits
	also []*extraLogger  // the workers' loggers
}

// extraLogger makes a Logger comparable, whatever its type.
type extraLogger struct{ Logger }

// Waiting logs that calls of a kind wait.
func (b *BusyLog) Waiting(act string, err error) {
	if b.mark(act, true) {
		b.warn(act+" waits: the service refuses it for now", "error", err)
	}
}

// Served logs that calls of a kind no longer wait, if the log says that they do.
func (b *BusyLog) Served(act string) {
	if b.waiting.Load() == 0 {
		return
	}
	if b.mark(act, false) {
		b.warn(act + " goes on: the service accepts it again")
	}
}

// mark notes whether calls of a kind wait, and reports whether that has changed.
func (b *BusyLog) mark(act string, waiting bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.told == nil {
		b.told = make(map[string]bool)
	}
	hasChanged := b.told[act] != waiting
	b.told[act] = waiting
	switch {
	case hasChanged && waiting:
		b.waiting.Add(1)
	case hasChanged:
		b.waiting.Add(-1)
	}
	return hasChanged
}

// warn logs without the lock: a Logger may use the queue.
func (b *BusyLog) warn(message string, args ...any) {
	b.mu.Lock()
	to := []Logger{b.Logger}
	if b.Logger == nil {
		to = to[:0]
		for _, l := range b.also {
			to = append(to, l)
		}
	}
	b.mu.Unlock()
	args = append([]any{"queue", b.Queue}, args...)
	for _, l := range to {
		warnGuarded(l, message, args)
	}
}

// warnGuarded calls the user's logger. A panic in it must not end the process, so it is caught.
func warnGuarded(l Logger, message string, args []any) {
	defer func() {
		if v := recover(); v != nil {
			slog.Error("zkq: the worker's Logger panicked", "panic", fmt.Sprint(v), "message", message)
		}
	}()
	l.Warn(message, args...)
}

// Also sends the messages to l too, until stop is called, if Logger is nil.
func (b *BusyLog) Also(l Logger) (stop func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	extra := &extraLogger{l}
	b.also = append(b.also, extra)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.also = slices.DeleteFunc(b.also, func(other *extraLogger) bool { return other == extra })
	}
}
