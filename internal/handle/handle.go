// Package handle is what every queue handle is built on: the queue's name, the way to a live
// session, and the goroutines that work in the background until the handle is closed.
package handle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// ErrClosed is the error of every method after the handle was closed.
var ErrClosed = errors.New("zkq: closed")

// ErrLayout is the error of a handle whose queue exists, but is the other one of kazoo's two
// kinds.
var ErrLayout = errors.New("zkq: queue has the other layout")

// Handle is a queue's name and the way to its service. Every method of a queue works in a
// session that the Handle gives it, and ends when the Handle is closed. The exported fields
// are set before the first method is called, and never after.
type Handle struct {
	Coordinator coord.Coordinator
	Root        string // "/jobs"
	Entries     string // "/jobs/entries", or Root in the plain layout
	Taken       string // "/jobs/taken", or "" in the plain layout
	Invalid     error  // what is wrong with the name, or with an option; every method returns it

	Woke      func(context.Context)                      // see Config
	OnSession func(context.Context, coord.Session) error // is called before a session is used

	Life context.Context // ends with Close
	End  context.CancelFunc

	warn     func(string)   // see Config; nil: foreign nodes are skipped in silence
	observer retry.Observer // see Config
	running  sync.WaitGroup // background goroutines that Wait waits for

	Mu       sync.Mutex      // guards the fields below, and fields of the queue's parts that say so
	checking SharedCall      // lets one goroutine check the layout for all
	sealed   bool            // Wait was called: it waits for no new goroutine
	checked  bool            // the layout is known to be this queue's
	timeout  time.Duration   // of the session in which the layout was checked
	warned   map[string]bool // nodes that WarnOnce has told of
}

// Config is what a Handle is made from.
type Config struct {
	Coordinator coord.Coordinator
	Root        string // the queue's name, with its leading slash
	Invalid     error  // every method returns it; nil: the name and the options are valid
	Plain       bool   // the queue is a plain one

	Woke     func(context.Context) // is called when another goroutine of the handle let the caller go on; may be nil
	Warn     func(string)          // is told about foreign nodes; may be nil
	Observer retry.Observer        // is told which operations wait for a busy service
}

// New returns an open Handle. It contacts nothing.
func New(c Config) *Handle {
	h := &Handle{Coordinator: c.Coordinator, Root: c.Root, Invalid: c.Invalid, Woke: c.Woke, warn: c.Warn, observer: c.Observer}
	h.warned, h.checking.Mu = make(map[string]bool), &h.Mu
	if h.Woke == nil {
		h.Woke = func(context.Context) {}
	}
	h.OnSession = func(context.Context, coord.Session) error { return nil }
	h.Life, h.End = context.WithCancel(context.Background())
	if c.Plain {
		h.Entries = h.Root
	} else {
		h.Entries, h.Taken = path.Join(h.Root, layout.EntriesDir), path.Join(h.Root, layout.TakenDir)
	}
	return h
}

// Session returns the live session, once the name and the layout are known to be right and
// the handle is open.
func (h *Handle) Session(ctx context.Context) (coord.Session, error) {
	if h.Invalid != nil {
		return nil, h.Invalid
	}
	if h.IsClosed() {
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var s coord.Session
	var unavailable error
	err := retry.AcrossSessions(func() error {
		if s, unavailable = h.Coordinator.Session(ctx); unavailable != nil {
			return nil
		}
		if err := h.checkLayout(ctx, s); err != nil {
			return err
		}
		return h.OnSession(ctx, s)
	})
	if unavailable != nil {
		return nil, unavailable
	}
	return s, err
}

// Bounded runs f, and ends its context when the handle is closed.
func (h *Handle) Bounded(ctx context.Context, f func(context.Context) error) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", coord.ErrInvalid)
	}
	bound, cancel := h.Bound(ctx)
	defer cancel()
	return h.CallError(ctx, f(bound))
}

// Do runs f in a live session, and again in the next one if the session was over before f
// could send anything.
func (h *Handle) Do(ctx context.Context, f func(context.Context, coord.Session) error) error {
	return h.Bounded(ctx, func(ctx context.Context) error {
		return retry.AcrossSessions(func() error {
			s, err := h.Session(ctx)
			if err == nil {
				err = f(ctx, s)
			}
			return err
		})
	})
}

// IsOver reports whether a session has ended.
func IsOver(s coord.Session) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

// IsClosed reports whether the handle was closed.
func (h *Handle) IsClosed() bool { return h.Life.Err() != nil }

// Bound returns a context that ends with ctx and with the handle, so that Close waits for no
// call. CallError turns the error of a call that ended so into ErrClosed.
func (h *Handle) Bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(h.Life, cancel)
	if h.IsClosed() { // AfterFunc runs its function in a goroutine of its own, a little later
		cancel()
	}
	return ctx, func() { stop(); cancel() }
}

// CallError returns the error of a call: ErrClosed if Close ended the call rather than its
// caller, otherwise err. ctx is the caller's.
func (h *Handle) CallError(ctx context.Context, err error) error {
	if err != nil && h.IsClosed() && ctx.Err() == nil && errors.Is(err, context.Canceled) {
		if errors.Is(err, coord.ErrUnknown) {
			return fmt.Errorf("%w: %w", ErrClosed, err)
		}
		return ErrClosed
	}
	return err
}

// CloseLimit is how long the Close of a queue waits for the handle's goroutines.
const CloseLimit = time.Second

// Wait returns when the background goroutines of a closed handle have ended, or with ctx.
func (h *Handle) Wait(ctx context.Context) {
	h.Mu.Lock()
	h.sealed = true
	h.Mu.Unlock()
	done := make(chan struct{})
	go func() {
		h.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Spawn runs f in a goroutine that Wait waits for. f must end with the session it works in,
// or with Life.
func (h *Handle) Spawn(f func()) {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	if h.sealed {
		go f() // Close has stopped waiting
		return
	}
	h.running.Go(f)
}

// checkLayout returns [ErrLayout] if the queue is the other one of kazoo's two kinds: processes
// with handles of both kinds would not see each other's entries. After the first success it
// sends nothing.
func (h *Handle) checkLayout(ctx context.Context, s coord.Session) error {
	return h.checking.Until(ctx, h.Woke, func() bool { return h.checked }, func() error { return h.readLayout(ctx, s) })
}

// readLayout lists one node, whose name shows the layout, and notes that the layout is right.
func (h *Handle) readLayout(ctx context.Context, s coord.Session) error {
	// List from just before that name, so that a page of one shows it.
	after, plain := priority.EntryPrefix, h.Taken == ""
	if plain {
		after = layout.BeforeEntries
	}
	l, err := s.List(ctx, h.Root, coord.ListOptions{After: after, Limit: 1})
	if err != nil {
		return fmt.Errorf("look at %s: %w", h.Root, err)
	}
	if len(l.Nodes) > 0 {
		name := path.Base(l.Nodes[0].Path)
		if plain && layout.ShowsLocking(name) || !plain && layout.ShowsPlain(name) {
			have, other := "locking", "plain"
			if plain {
				have, other = other, have
			}
			return fmt.Errorf("%s is a %s queue (it holds %s), not a %s one: %w", h.Root, other, name, have, ErrLayout)
		}
	}
	h.Mu.Lock()
	h.checked, h.timeout = true, s.Timeout()
	h.Mu.Unlock()
	return nil
}

// SessionTimeout returns the timeout of the handle's first session, or 0 if the service has
// not granted one yet.
func (h *Handle) SessionTimeout() time.Duration {
	h.Mu.Lock()
	defer h.Mu.Unlock()
	return h.timeout
}

// EntryNames returns the names of a listing that are entries' names, and warns
// of the others.
func (h *Handle) EntryNames(nodes []coord.Node) []string {
	names := make([]string, 0, len(nodes))
	for _, n := range nodes {
		name := path.Base(n.Path)
		if _, ok := priority.Parse(name); ok {
			names = append(names, name)
			continue
		}
		// Beside the entries of a plain queue other queues may lie.
		if h.Taken != "" || strings.HasPrefix(name, priority.EntryPrefix) {
			h.WarnOnce(n.Path, "is not an entry of zkq or kazoo: skipped")
		}
	}
	return names
}

// maxWarned is how many foreign nodes are remembered, and so how many warnings there are.
const maxWarned = 1000

// WarnOnce tells the user about a foreign node, the first time that it is met.
func (h *Handle) WarnOnce(node, what string) {
	h.Mu.Lock()
	first := h.warn != nil && !h.warned[node] && len(h.warned) < maxWarned
	if first {
		h.warned[node] = true
	}
	h.Mu.Unlock()
	if first {
		h.tellWarning(node + " " + what)
	}
}

// tellWarning calls the user's function. Any goroutine of the handle may do that, so a panic in
// the function must not end the process: it is caught and logged.
func (h *Handle) tellWarning(message string) {
	defer func() {
		if v := recover(); v != nil {
			slog.Error("zkq: the function given to Warn panicked", "panic", fmt.Sprint(v), "message", message)
		}
	}()
	h.warn(message)
}

// Backoff returns the back-off of an operation that is logged as act when it waits for a
// busy service.
func (h *Handle) Backoff(act string) *retry.Backoff {
	return &retry.Backoff{Observer: h.observer, Act: act}
}
