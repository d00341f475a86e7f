package zkq

import (
	"fmt"
	"log/slog"
)

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

// The kinds of calls, as they are logged.
const (
	actPut       = "put"
	actTake      = "take"
	actFinish    = "finish"
	actUpdate    = "update"
	actRelease   = "release"
	actMove      = "move of due entries"
	actConfigure = "change of the configuration"
)
