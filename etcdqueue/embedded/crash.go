package embedded

import (
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap/zapcore"
)

// crashHook hears from etcd's log why it cannot go on. etcd would end the process. The
// goroutine that logs such a line is stopped for ever instead, so that it does no
// further harm, and the reason is sent.
type crashHook struct {
	fatal     chan error // receives the first reason
	noSegment chan error // receives why the log's next segment could not be allocated
}

func newCrashHook() *crashHook {
	return &crashHook{fatal: make(chan error, 1), noSegment: make(chan error, 1)}
}

func (a *crashHook) report(why error) {
	select {
	case a.fatal <- why:
	default:
	}
}

// OnWrite implements [zapcore.CheckWriteHook]. It is called for fatal lines and panics.
func (a *crashHook) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	a.report(logError(e.Message, fields))
	select {}
}

// logError is a line of etcd's log as an error. The error in the line is wrapped.
func logError(message string, fields []zapcore.Field) error {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			return fmt.Errorf("%s: %w", message, err)
		}
	}
	return errors.New(message)
}

// noNextSegment is etcd's line about a segment of its log that it could not allocate
// in advance. etcd would give up later, when it needs that segment, even if there is
// room by then.
const noNextSegment = "failed to preallocate space when creating a new WAL"

// Enabled implements [zapcore.Core]: errors are listened to.
func (a *crashHook) Enabled(l zapcore.Level) bool { return l >= zapcore.ErrorLevel }

// With implements [zapcore.Core].
func (a *crashHook) With([]zapcore.Field) zapcore.Core { return a }

// Check implements [zapcore.Core].
func (a *crashHook) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if a.Enabled(e.Level) {
		return ce.AddCore(e, a)
	}
	return ce
}

// Write implements [zapcore.Core].
func (a *crashHook) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if strings.HasPrefix(e.Message, noNextSegment) {
		select {
		case a.noSegment <- logError(e.Message, fields):
		default:
		}
	}
	return nil
}

// Sync implements [zapcore.Core].
func (a *crashHook) Sync() error { return nil }
