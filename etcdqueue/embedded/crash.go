package embedded

import (
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap/zapcore"
)

// crashHook learns from etcd's log why etcd cannot go on. etcd would end the process.
// Instead the hook stops the goroutine that logs the line for ever, so that it does no
// further harm, and reports the reason.
type crashHook struct {
	fatal     chan error // receives the first reason
	noSegment chan error // receives why the log's next segment could not be allocated
}

// newCrashHook returns a hook for one etcd.
func newCrashHook() *crashHook {
	return &crashHook{fatal: make(chan error, 1), noSegment: make(chan error, 1)}
}

// report sends the reason unless another one was sent before.
func (h *crashHook) report(why error) {
	select {
	case h.fatal <- why:
	default:
	}
}

// OnWrite implements [zapcore.CheckWriteHook]. It is called for fatal lines and panics.
func (h *crashHook) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	h.report(logError(e.Message, fields))
	select {}
}

// logError returns a line of etcd's log as an error, and wraps the error in the line.
func logError(message string, fields []zapcore.Field) error {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			return fmt.Errorf("%s: %w", message, err)
		}
	}
	return errors.New(message)
}

// noNextSegment begins etcd's line about a segment of the log that it could not allocate in
// advance. etcd would give up later, when it needs the segment, even if there is space by
// then.
const noNextSegment = "failed to preallocate space when creating a new WAL"

// Enabled implements [zapcore.Core]. Only errors are of interest.
func (h *crashHook) Enabled(l zapcore.Level) bool { return l >= zapcore.ErrorLevel }

// With implements [zapcore.Core].
func (h *crashHook) With([]zapcore.Field) zapcore.Core { return h }

// Check implements [zapcore.Core].
func (h *crashHook) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if h.Enabled(e.Level) {
		return ce.AddCore(e, h)
	}
	return ce
}

// Write implements [zapcore.Core].
func (h *crashHook) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if strings.HasPrefix(e.Message, noNextSegment) {
		select {
		case h.noSegment <- logError(e.Message, fields):
		default:
		}
	}
	return nil
}

// Sync implements [zapcore.Core].
func (h *crashHook) Sync() error { return nil }
