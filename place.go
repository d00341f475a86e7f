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
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// place is where a queue's nodes lie, and the way there. Both queues are built
// on one.
type place struct {
	coordinator coord.Coordinator
	root        string // "/jobs"
	entries     string // "/jobs/entries", or the root in the plain layout
	taken       string // "/jobs/taken", or "" in the plain layout
	invalid     error  // what was wrong with the name, or with an option

	// removeReady removes an entry that nobody holds; nil in the plain layout, where
	// there is nothing to hold.
	removeReady func(context.Context, coord.Session, string) error

	// clearReady removes entries that have expired, as they were read; nil in the plain
	// layout, where none do.
	clearReady func(context.Context, coord.Session, []coord.Node) error
	options

	life    context.Context // ends with Close
	end     context.CancelFunc
	running sync.WaitGroup // undoings of claims, and the sweep of lanes
	lanes   lanes

	settings settings

	checking shared // of the layout

	lister     head.Lister
	restricted head.Restricted

	busy busyWaits

	mu      sync.Mutex
	sealed  bool          // no goroutine may be started any more
	checked bool          // the layout was
	timeout time.Duration // of the session in which it was
	warned  map[string]bool
}

func newPlace(c coord.Coordinator, name string, plain bool, opts []Option) *place {
	if c == nil {
		panic("zkq: a queue needs a coordinator")
	}
	p := &place{coordinator: c, warned: make(map[string]bool)}
	for _, set := range opts {
		set(&p.options)
	}
	if p.window == 0 {
		p.window = head.DefaultWindow
	}
	if p.duePage == 0 {
		p.duePage = duePage
	}
	if p.woke == nil {
		p.woke = func(context.Context) {}
	}
	p.lanes.sem = make(chan struct{}, mostLanes)
	p.life, p.end = context.WithCancel(context.Background())
	p.root, p.invalid = CheckName(name)
	p.busy.queue, p.busy.own = p.root, p.log
	if p.lanes.series = p.producer; p.producer != "" && p.invalid == nil {
		if _, _, err := token(p.producer+"-00", 1).parse(); err != nil {
			p.invalid = fmt.Errorf("producer %q: not 16 lowercase hexadecimal digits: %w", p.producer, ErrInvalid)
		}
	}
	if p.holder != "" && !layout.IsHolder(string(p.holder)) && p.invalid == nil {
		p.invalid = fmt.Errorf("holder %q: not 32 lowercase hexadecimal digits: %w", string(p.holder), ErrInvalid)
	}
	if plain {
		p.entries = p.root
	} else {
		p.entries, p.taken = path.Join(p.root, layout.EntriesDir), path.Join(p.root, layout.TakenDir)
	}
	p.lister = head.Lister{Entries: p.entries, Taken: p.taken, EntryNames: p.entryNames}
	return p
}

// headConfig is what the head of the queue needs in both layouts.
func (p *place) headConfig(resting *head.Resting) head.Config {
	return head.Config{
		Lister:         p.lister,
		Session:        p.session,
		Woke:           p.woke,
		Backoff:        func() *retry.Backoff { return p.backoff(actTake) },
		Resting:        resting,
		Restricted:     &p.restricted,
		Strict:         p.strict,
		Window:         p.window,
		SkipUnreadable: p.skipUnreadable,
	}
}

// Name is the queue's name with its leading slash.
func (p *place) Name() string { return p.root }

// session returns the live session once the name, the handle and the layout are
// known to be good.
func (p *place) session(ctx context.Context) (coord.Session, error) {
	if p.invalid != nil {
		return nil, p.invalid
	}
	if p.closed() {
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for {
		s, err := p.coordinator.Session(ctx)
		if err != nil {
			return nil, err
		}
		if err = p.checkLayout(ctx, s); err == nil {
			err = p.follow(ctx, s)
		}
		if !retry.NothingSent(err) {
			return s, err
		}
	}
}

// bounded runs f no longer than the handle is open.
func (p *place) bounded(ctx context.Context, f func(context.Context) error) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", ErrInvalid)
	}
	bound, cancel := p.bound(ctx)
	defer cancel()
	return p.ended(ctx, f(bound))
}

// do runs f in a live session, and again in the next one if the session was over
// before f could send anything.
func (p *place) do(ctx context.Context, f func(context.Context, coord.Session) error) error {
	return p.bounded(ctx, func(ctx context.Context) error {
		for {
			s, err := p.session(ctx)
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

func (p *place) closed() bool { return p.life.Err() != nil }

// bound ends ctx also with the handle, so that Close waits for no call. The error
// of a call that ended so is made ErrClosed by ended.
func (p *place) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(p.life, cancel)
	if p.closed() { // and nobody need wait for the function above to run
		cancel()
	}
	return ctx, func() { stop(); cancel() }
}

// ended says ErrClosed where a call was ended by Close and not by its caller.
func (p *place) ended(ctx context.Context, err error) error {
	if err != nil && p.closed() && ctx.Err() == nil && errors.Is(err, context.Canceled) {
		if errors.Is(err, ErrUnknown) {
			return fmt.Errorf("%w: %w", ErrClosed, err)
		}
		return ErrClosed
	}
	return err
}

// endClose removes the handle's lanes and returns when its goroutines have ended,
// or after a second: what is then left ends with its session, or in a day.
func (p *place) endClose() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p.closeLanes(ctx)
	p.mu.Lock()
	p.sealed = true
	p.mu.Unlock()
	done := make(chan struct{})
	go func() {
		p.running.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// spawn runs f in a goroutine that endClose waits for. f must end with the session
// it works in.
func (p *place) spawn(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sealed {
		go f() // whoever closed the handle has stopped waiting
		return
	}
	p.running.Go(f)
}

// checkLayout refuses to work on the other of kazoo's two queues: they would not
// see each other's entries. Once it has seen none of the other's nodes it does
// not look again.
func (p *place) checkLayout(ctx context.Context, s coord.Session) error {
	return p.checking.until(ctx, p.woke, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.checked
	}, func() error { return p.lookAtLayout(ctx, s) })
}

func (p *place) lookAtLayout(ctx context.Context, s coord.Session) error {
	// Just before the name looked for, so that a listing of one shows it.
	after, plain := priority.EntryPrefix, p.taken == ""
	if plain {
		after = layout.BeforeEntries
	}
	l, err := s.List(ctx, p.root, coord.ListOptions{After: after, Limit: 1})
	if err != nil {
		return fmt.Errorf("look at %s: %w", p.root, err)
	}
	if len(l.Nodes) > 0 {
		name := path.Base(l.Nodes[0].Path)
		if plain && layout.ShowsLocking(name) || !plain && layout.ShowsPlain(name) {
			have, other := "locking", "plain"
			if plain {
				have, other = other, have
			}
			return fmt.Errorf("%s is a %s queue (it holds %s), not a %s one: %w", p.root, other, name, have, ErrLayout)
		}
	}
	p.mu.Lock()
	p.checked, p.timeout = true, s.Timeout()
	p.mu.Unlock()
	return nil
}

// granted is the timeout of the handle's first session, 0 if the service has let it in
// never yet.
func (p *place) granted() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.timeout
}

// entryNames returns the names of a listing that are entries' names, and warns
// of the others.
func (p *place) entryNames(nodes []coord.Node) []string {
	names := make([]string, 0, len(nodes))
	for _, n := range nodes {
		name := path.Base(n.Path)
		if _, ok := priority.Parse(name); ok {
			names = append(names, name)
			continue
		}
		// Beside the entries of a plain queue other queues may lie.
		if p.taken != "" || strings.HasPrefix(name, priority.EntryPrefix) {
			p.warnOnce(n.Path, "is not an entry of zkq or kazoo: skipped")
		}
	}
	return names
}

// maxWarned bounds what is remembered of foreign nodes.
const maxWarned = 1000

func (p *place) warnOnce(node, what string) {
	p.mu.Lock()
	first := p.warn != nil && !p.warned[node] && len(p.warned) < maxWarned
	if first {
		p.warned[node] = true
	}
	p.mu.Unlock()
	if first {
		p.tellWarning(node + " " + what)
	}
}

// tellWarning calls the user's function, whose panic is no reason to end the process: it
// may be called by any goroutine of the handle.
func (p *place) tellWarning(message string) {
	defer func() {
		if v := recover(); v != nil {
			slog.Error("zkq: the function given to Warn panicked", "panic", fmt.Sprint(v), "message", message)
		}
	}()
	p.warn(message)
}
