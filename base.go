package zkq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// base is what both queues are made of, and the methods that they share. Each part does one
// thing with the queue's nodes; newBase says which part needs which.
type base struct {
	options
	handle *handle.Handle
	busy   *handle.BusyLog

	lanes      lanes
	settings   *settings
	lister     head.Lister
	restricted *head.Restricted
	history    *histories
	traces     *traces
	finder     *finder
	keys       *keys
	delayed    *delayedPuts
	expiry     *lifetimes
	dead       *deadLetters
	inspect    *inspector
	removal    *remover
	puts       *putter
}

func newBase(c coord.Coordinator, name string, plain bool, opts []Option) *base {
	if c == nil {
		panic("zkq: a queue needs a coordinator")
	}
	b := &base{busy: new(handle.BusyLog)}
	for _, set := range opts {
		set(&b.options)
	}
	if b.window == 0 {
		b.window = head.DefaultWindow
	}
	if b.options.duePage == 0 {
		b.options.duePage = duePage
	}
	cfg := handle.Config{Coordinator: c, Plain: plain, Woke: b.woke, Warn: b.warn, Observer: b.busy}
	cfg.Root, cfg.Invalid = CheckName(name)
	if cfg.Invalid == nil {
		cfg.Invalid = b.options.check()
	}
	b.busy.Queue = cfg.Root
	if b.log != nil {
		b.busy.Logger = b.log
	}
	h := handle.New(cfg)
	b.handle = h
	b.lanes = newLanes(h, b.producer)
	b.settings = &settings{Handle: h, lanes: b.lanes}
	b.settings.reading.Mu = &b.settings.mu
	h.OnSession = b.settings.followSession
	b.lister = head.Lister{Entries: h.Entries, Taken: h.Taken, EntryNames: h.EntryNames}
	b.restricted = head.NewRestricted()
	b.history = &histories{Handle: h}
	b.traces = &traces{h}
	b.finder = &finder{h, b.lister, b.restricted}
	b.keys = &keys{h}
	b.delayed = &delayedPuts{h, b.keys, b.lanes}
	b.expiry = &lifetimes{h, b.settings}
	b.dead = &deadLetters{h}
	b.inspect = &inspector{h, b.dead, b.delayed, b.expiry, b.finder, b.history}
	b.removal = &remover{Handle: h, delayed: b.delayed, expiry: b.expiry, history: b.history, inspect: b.inspect, keys: b.keys, finder: b.finder, traces: b.traces}
	b.puts = &putter{h, b.dead, b.delayed, b.expiry, b.inspect, b.keys, b.lanes, b.removal, b.settings}
	return b
}

// headConfig is what the head of the queue needs in both layouts.
func (b *base) headConfig() head.Config {
	return head.Config{
		Lister:         b.lister,
		Session:        b.handle.Session,
		Woke:           b.handle.Woke,
		Backoff:        func() *retry.Backoff { return b.handle.Backoff(actTake) },
		Restricted:     b.restricted,
		Strict:         b.strict,
		Window:         b.window,
		SkipUnreadable: b.finder.skipUnreadable,
	}
}

// Name is the queue's name with its leading slash.
func (b *base) Name() string { return b.handle.Root }

// Remove removes an entry that nobody works on; [ErrHeld] for one that is held,
// unless force is set: then its holder's finish will say [ErrLockLost].
// [ErrNoEntry] if there is none of that name. A dead entry is named as Entries
// calls it.
func (b *base) Remove(ctx context.Context, name string, force bool) error {
	return b.removal.remove(ctx, name, force)
}

// close ends the handle's background work. What is left after a second ends with its
// session, or in a day.
func (b *base) close() {
	ctx, cancel := context.WithTimeout(context.Background(), handle.CloseLimit)
	defer cancel()
	b.lanes.Close(ctx)
	b.handle.Wait(ctx)
}

// Purge removes the entries that are in the state when it comes by, and returns
// how many it removed. Entries put meanwhile may stay. Holders of entries removed
// as [StateHeld] get [ErrLockLost]. The queue itself stays.
func (b *base) Purge(ctx context.Context, state State) (int, error) {
	removed := 0
	_, err := ParseState(string(state))
	if err != nil {
		return 0, fmt.Errorf("purge %s: %w", b.handle.Root, err)
	}
	if state == StateDead {
		removed, err = b.removal.purgeDead(ctx, 0)
	} else {
		err = b.handle.Do(ctx, func(ctx context.Context, s coord.Session) error {
			locks, err := b.inspect.locks(ctx, s)
			if err != nil {
				return err
			}
			var names []string
			err = b.inspect.eachName(ctx, s, func(name string) error {
				e := Entry{State: StateReady}
				if lk, ok := locks[name]; ok {
					e = e.locked(lk)
				}
				if e.State == state {
					names = append(names, name)
				}
				return nil
			})
			for _, name := range names {
				if err != nil {
					break
				}
				err = b.removal.removeWhere(ctx, name, func(now State) bool { return now == state })
				switch {
				case err == nil:
					removed++
				case errors.Is(err, ErrNoEntry), errors.Is(err, ErrHeld), errors.Is(err, errUnreadable):
					err = nil
				}
			}
			if err == nil && state == StateDelayed {
				var later int
				later, err = b.removal.purgeLater(ctx, s)
				removed += later
			}
			if err == nil && b.handle.Taken != "" {
				b.history.sweepHistories(ctx, s)
			}
			return err
		})
	}
	if err != nil {
		return removed, fmt.Errorf("purge %s: %w", b.handle.Root, err)
	}
	return removed, nil
}

// Entries looks at the entries in take order, those of the given states or all,
// and takes nothing. Values are not filled in, though they are read for their
// size. It reads page by page: what changes meanwhile may be seen or not, but
// what stays is seen exactly once. An error is yielded with a zero Entry and
// ends the loop. After those that have a place come the delayed puts, as they fall due,
// and the dead.
func (b *base) Entries(ctx context.Context, states ...State) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range b.EntriesWithValues(ctx, states...) {
			e.Value = nil
			if !yield(e, err) {
				return
			}
		}
	}
}

// EntriesWithValues is Entries with the values filled in.
func (b *base) EntriesWithValues(ctx context.Context, states ...State) iter.Seq2[Entry, error] {
	want := func(s State) bool { return len(states) == 0 || slices.Contains(states, s) }
	return func(yield func(Entry, error) bool) {
		var err error
		for _, s := range states {
			if _, err = ParseState(string(s)); err != nil {
				break
			}
		}
		if err == nil {
			err = b.inspect.entriesPaged(ctx, func(e Entry) bool {
				return !want(e.State) || e.expired() || yield(e, nil)
			})
		}
		if err == nil && want(StateDelayed) {
			err = b.delayed.walk(ctx, func(e Entry) bool { return e.expired() || yield(e, nil) })
		}
		if err == nil && want(StateDead) && b.handle.Taken != "" {
			err = b.dead.deadPaged(ctx, func(e Entry) bool { return yield(e, nil) })
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(Entry{}, fmt.Errorf("list %s: %w", b.handle.Root, err))
		}
	}
}

// FindNames returns, for each tail, the names of the entries that end in "-" and that
// tail, in take order: of those that have a place, of delayed puts and of the dead. It
// costs a listing of each.
func (b *base) FindNames(ctx context.Context, tails ...string) (map[string][]string, error) {
	found := make(map[string][]string)
	match := func(name string) error {
		for _, tail := range tails {
			if strings.HasSuffix(name, "-"+tail) && !slices.Contains(found[tail], name) {
				found[tail] = append(found[tail], name)
			}
		}
		return nil
	}
	err := b.handle.Do(ctx, func(ctx context.Context, s coord.Session) error {
		if err := b.inspect.eachName(ctx, s, match); err != nil || b.handle.Taken == "" {
			return err
		}
		for _, dir := range []string{layout.DelayedDir, layout.DeadDir} {
			l, err := s.List(ctx, path.Join(b.handle.Root, dir), coord.ListOptions{Fresh: true})
			if err != nil {
				return err
			}
			for _, n := range l.Nodes {
				name := path.Base(n.Path)
				if _, _, dead := layout.ParseDead(name); b.delayed.isDelayedPut(name) || dead && dir == layout.DeadDir {
					match(name)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find names in %s: %w", b.handle.Root, err)
	}
	return found, nil
}

// Peek returns an entry with its value and takes nothing: the one of that name,
// [ErrNoEntry] if there is none, or for "" the next that would be taken,
// [ErrEmpty] if there is none. An entry that has expired is none, unless it is held. A dead
// entry is named as Entries calls it.
func (b *base) Peek(ctx context.Context, name string) (Entry, error) {
	e, err := b.inspect.peek(ctx, name)
	if err != nil {
		return Entry{}, fmt.Errorf("peek at %s: %w", b.handle.Root, err)
	}
	return e, nil
}

// Stat counts the entries by state, from the names alone: it costs a listing of
// the whole queue, and reads all of it where entries may expire. At rest the numbers are exact; while the queue is in use each
// is right for some instant of the call.
func (b *base) Stat(ctx context.Context) (Stat, error) {
	var st Stat
	err := b.handle.Do(ctx, func(ctx context.Context, s coord.Session) (err error) {
		st, err = b.inspect.stat(ctx, s)
		return err
	})
	if err != nil {
		return Stat{}, fmt.Errorf("count %s: %w", b.handle.Root, err)
	}
	return st, nil
}

// WaitEmpty returns when there is no entry that is ready, held or delayed: when
// there was such an instant during the call. It ends with ctx's error.
func (b *base) WaitEmpty(ctx context.Context) error {
	err := b.handle.Do(ctx, func(ctx context.Context, s coord.Session) error {
		watching, cancel := context.WithCancel(ctx)
		defer cancel()
		dirs := []string{b.handle.Entries}
		if b.handle.Taken != "" {
			dirs = append(dirs, path.Join(b.handle.Root, layout.DelayedDir))
		}
		changed, err := s.Watch(watching, dirs...)
		if err != nil {
			return err
		}
		for {
			left, until, err := b.inspect.waiting(ctx, s)
			if err != nil || !left {
				return err
			}
			var told bool // there are no news but changes
			if err := waitUntil(ctx, s, changed, nil, until, &told); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w", b.handle.Root, err)
	}
	return nil
}

// NewToken returns a token for a put that is to be made with [WithToken]. A program that
// stores it before the put can find out after a crash whether the put was made, or make it
// again: at most one put with the token is ever applied. It costs a commit and a node,
// which goes after a day or two, or with [Forget].
func (b *base) NewToken(ctx context.Context) (Token, error) {
	var t string
	err := b.handle.Bounded(ctx, func(ctx context.Context) (err error) {
		t, err = b.lanes.Open(ctx)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("new token for %s: %w", b.handle.Root, err)
	}
	return Token(t), nil
}
