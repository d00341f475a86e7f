package zkq

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
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// handle is a queue's name and the way to its service. Every method of a queue works in a
// session that the handle gives it, and ends when the handle is closed.
type handle struct {
	coordinator coord.Coordinator
	root        string // "/jobs"
	entries     string // "/jobs/entries", or the root in the plain layout
	taken       string // "/jobs/taken", or "" in the plain layout
	invalid     error  // what is wrong with the name, or with an option

	holder lock.Holder
	warn   func(string)
	log    Logger
	woke   func(context.Context) // see options

	follow func(context.Context, coord.Session) error // is called before a session is used

	life    context.Context // ends with Close
	end     context.CancelFunc
	running sync.WaitGroup // background goroutines that Close waits for

	checking shared // one goroutine checks the layout, for all
	busy     busyWaits

	mu      sync.Mutex
	sealed  bool          // Close no longer waits for new goroutines
	checked bool          // the layout was checked
	timeout time.Duration // of the session in which it was
	warned  map[string]bool
}

func newHandle(c coord.Coordinator, name string, plain bool, o *options) *handle {
	h := &handle{coordinator: c, holder: o.holder, warn: o.warn, log: o.log, woke: o.woke, warned: make(map[string]bool)}
	if h.woke == nil {
		h.woke = func(context.Context) {}
	}
	h.life, h.end = context.WithCancel(context.Background())
	h.root, h.invalid = CheckName(name)
	h.busy.queue, h.busy.own = h.root, h.log
	if plain {
		h.entries = h.root
	} else {
		h.entries, h.taken = path.Join(h.root, layout.EntriesDir), path.Join(h.root, layout.TakenDir)
	}
	return h
}

// session returns the live session once the name, the handle and the layout are
// known to be good.
func (h *handle) session(ctx context.Context) (coord.Session, error) {
	if h.invalid != nil {
		return nil, h.invalid
	}
	if h.closed() {
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for {
		s, err := h.coordinator.Session(ctx)
		if err != nil {
			return nil, err
		}
		if err = h.checkLayout(ctx, s); err == nil {
			err = h.follow(ctx, s)
		}
		if !retry.NothingSent(err) {
			return s, err
		}
	}
}

// bounded runs f no longer than the handle is open.
func (h *handle) bounded(ctx context.Context, f func(context.Context) error) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", ErrInvalid)
	}
	bound, cancel := h.bound(ctx)
	defer cancel()
	return h.ended(ctx, f(bound))
}

// do runs f in a live session, and again in the next one if the session was over
// before f could send anything.
func (h *handle) do(ctx context.Context, f func(context.Context, coord.Session) error) error {
	return h.bounded(ctx, func(ctx context.Context) error {
		for {
			s, err := h.session(ctx)
			if err == nil {
				err = f(ctx, s)
			}
			if !retry.NothingSent(err) {
				return err
			}
		}
	})
}

func over(s coord.Session) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

func (h *handle) closed() bool { return h.life.Err() != nil }

// bound ends ctx also with the handle, so that Close waits for no call. The error
// of a call that ended so is made ErrClosed by ended.
func (h *handle) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(h.life, cancel)
	if h.closed() { // and nobody need wait for the function above to run
		cancel()
	}
	return ctx, func() { stop(); cancel() }
}

// ended says ErrClosed where a call was ended by Close and not by its caller.
func (h *handle) ended(ctx context.Context, err error) error {
	if err != nil && h.closed() && ctx.Err() == nil && errors.Is(err, context.Canceled) {
		if errors.Is(err, ErrUnknown) {
			return fmt.Errorf("%w: %w", ErrClosed, err)
		}
		return ErrClosed
	}
	return err
}

// closeLimit is how long Close waits for the handle's goroutines.
const closeLimit = time.Second

// wait returns when the goroutines of a handle that was closed have ended, or with ctx.
func (h *handle) wait(ctx context.Context) {
	h.mu.Lock()
	h.sealed = true
	h.mu.Unlock()
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

// spawn runs f in a goroutine that wait waits for. f must end with the session
// it works in.
func (h *handle) spawn(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sealed {
		go f() // whoever closed the handle has stopped waiting
		return
	}
	h.running.Go(f)
}

// checkLayout refuses to work on the other of kazoo's two queues: they would not
// see each other's entries. Once it has seen none of the other's nodes it does
// not look again.
func (h *handle) checkLayout(ctx context.Context, s coord.Session) error {
	return h.checking.until(ctx, h.woke, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.checked
	}, func() error { return h.lookAtLayout(ctx, s) })
}

func (h *handle) lookAtLayout(ctx context.Context, s coord.Session) error {
	// Just before the name looked for, so that a listing of one shows it.
	after, plain := priority.EntryPrefix, h.taken == ""
	if plain {
		after = layout.BeforeEntries
	}
	l, err := s.List(ctx, h.root, coord.ListOptions{After: after, Limit: 1})
	if err != nil {
		return fmt.Errorf("look at %s: %w", h.root, err)
	}
	if len(l.Nodes) > 0 {
		name := path.Base(l.Nodes[0].Path)
		if plain && layout.ShowsLocking(name) || !plain && layout.ShowsPlain(name) {
			have, other := "locking", "plain"
			if plain {
				have, other = other, have
			}
			return fmt.Errorf("%s is a %s queue (it holds %s), not a %s one: %w", h.root, other, name, have, ErrLayout)
		}
	}
	h.mu.Lock()
	h.checked, h.timeout = true, s.Timeout()
	h.mu.Unlock()
	return nil
}

// granted is the timeout of the handle's first session, 0 if the service has let it in
// never yet.
func (h *handle) granted() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.timeout
}

// entryNames returns the names of a listing that are entries' names, and warns
// of the others.
func (h *handle) entryNames(nodes []coord.Node) []string {
	names := make([]string, 0, len(nodes))
	for _, n := range nodes {
		name := path.Base(n.Path)
		if _, ok := priority.Parse(name); ok {
			names = append(names, name)
			continue
		}
		// Beside the entries of a plain queue other queues may lie.
		if h.taken != "" || strings.HasPrefix(name, priority.EntryPrefix) {
			h.warnOnce(n.Path, "is not an entry of zkq or kazoo: skipped")
		}
	}
	return names
}

// maxWarned bounds what is remembered of foreign nodes.
const maxWarned = 1000

func (h *handle) warnOnce(node, what string) {
	h.mu.Lock()
	first := h.warn != nil && !h.warned[node] && len(h.warned) < maxWarned
	if first {
		h.warned[node] = true
	}
	h.mu.Unlock()
	if first {
		h.tellWarning(node + " " + what)
	}
}

// tellWarning calls the user's function, whose panic is no reason to end the process: it
// may be called by any goroutine of the handle.
func (h *handle) tellWarning(message string) {
	defer func() {
		if v := recover(); v != nil {
			slog.Error("zkq: the function given to Warn panicked", "panic", fmt.Sprint(v), "message", message)
		}
	}()
	h.warn(message)
}
