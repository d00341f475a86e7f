package zkq

import (
	"cmp"
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
// thing with the queue's nodes; newBase says which part needs which. The parts share nothing
// but the handle, and each guards its own state.
type base struct {
	options
	handle *handle.Handle
	busy   *handle.BusyLog // logs which operations wait for a busy service

	lanes      lanes            // commits exactly once, for puts and requeues
	settings   *settings        // the configuration that is stored with the queue
	lister     head.Lister      // lists the entries that have no lock
	restricted *head.Restricted // entries that this process may not read or write
	history    *histories       // what earlier deliveries of the entries came to
	traces     *traces          // which entries an operator took from their holders
	finder     *finder          // entries that can be taken now
	keys       *keys            // unique keys
	delayed    *delayedPuts     // puts with a delay, and the index of entries that rest
	expiry     *lifetimes       // which entries have a time to live
	dead       *deadLetters     // the dead entries
	inspect    *inspector       // reads entries, and takes none
	removal    *remover         // removes entries for an operator
	puts       *putter          // puts entries, within the queue's bounds
}

// newBase builds a queue handle's parts. It contacts nothing: a wrong name or option is an
// error of every later call. Without a coordinator it panics.
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
	if b.watchers == 0 {
		b.watchers = head.DefaultWatchers
	}
	b.movePage = cmp.Or(b.options.duePage, movePage)
	b.options.duePage = cmp.Or(b.options.duePage, duePage)
	cfg := handle.Config{Coordinator: c, Plain: plain, Woke: b.woke, Warn: b.warn, Observer: b.busy}
	cfg.Root, cfg.Invalid = CheckName(name)
	if cfg.Invalid == nil {
		cfg.Invalid = b.options.check()
	}
	b.busy.Queue = cfg.Root
	if b.log != nil {
		b.busy.Logger = b.log
	}
	// A part gets the parts that it calls, so those come first.
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
	b.removal = &remover{Handle: h, bulk: b.bulk, delayed: b.delayed, expiry: b.expiry, history: b.history, inspect: b.inspect, keys: b.keys, finder: b.finder, traces: b.traces}
	b.puts = &putter{h, b.dead, b.delayed, b.expiry, b.inspect, b.keys, b.lanes, b.removal, b.settings, nil}
	b.puts.shared = b.puts.sharePuts()
	return b
}

// headConfig returns what the head of the queue needs in both layouts. A LockingQueue adds
// the rest.
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

// Name returns the queue's name with its leading slash, also for a closed queue.
func (b *base) Name() string { return b.handle.Root }

// Remove removes an entry that no process holds: a ready, a delayed or a dead one. With force
// it removes a held one, too, and the holder's finish will return [ErrLockLost]. name is the
// name that Entries yields.
//
// The error is [ErrHeld] if a process holds the entry and force is not set, [ErrNoEntry] if
// there is no such entry, and [ErrUnknown] if the entry may have been removed.
func (b *base) Remove(ctx context.Context, name string, force bool) error {
	return b.removal.remove(ctx, name, force)
}

// close ends the handle's background work, and removes its lanes. It takes a second at most.
// A lane that is left then is swept by another process after a day.
func (b *base) close() {
	ctx, cancel := context.WithTimeout(context.Background(), handle.CloseLimit)
	defer cancel()
	b.puts.shared.End(ErrClosed)
	b.lanes.Close(ctx)
	b.handle.Spawn(b.puts.shared.Wait)
	b.handle.Wait(ctx)
}

// Purge removes the entries in a state, and returns how many it removed, also with an error.
// An entry that leaves the state before its turn stays, and an entry that was put meanwhile
// may stay. With [StateHeld] the holders' finishes will return [ErrLockLost]. The queue's
// configuration stays.
//
// Purge removes up to 60 entries in a commit, and several commits are under way. It never removes
// a ready entry that another process has claimed meanwhile. An interrupted purge can be repeated.
func (b *base) Purge(ctx context.Context, state State) (removed int, err error) {
	for n, err := range b.PurgeInSteps(ctx, state, 0) {
		if err != nil {
			return removed, err
		}
		removed += n
	}
	return removed, nil
}

// PurgeInSteps is [LockingQueue.Purge], and yields how many entries each of its steps removed, so
// that the caller can show progress. Of the dead it keeps the given number of those that died
// last; in another state keep must be 0. An error is yielded with 0 and ends the loop. If the
// caller ends the loop, PurgeInSteps waits for the commits that are under way.
func (b *base) PurgeInSteps(ctx context.Context, state State, keep int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		_, err := ParseState(string(state))
		switch {
		case err != nil:
		case keep < 0, keep > 0 && state != StateDead:
			err = fmt.Errorf("keep %d of the %s entries: allowed are 0 and more, and 0 of those that are not dead: %w", keep, state, ErrInvalid)
		default:
			err = b.removal.purge(ctx, state, keep, func(n int) bool { return yield(n, nil) })
		}
		if notStop(err) != nil {
			yield(0, fmt.Errorf("purge %s: %w", b.handle.Root, err))
		}
	}
}

// RemoveAll is [LockingQueue.Remove] for several entries, and takes a commit for up to 60 of them.
// It yields each name, in the order given, with the error of its removal, or nil. After an error
// that is neither [ErrNoEntry] nor [ErrHeld] it begins no other commit. It yields what those under
// way came to, then that error, and each entry of which it is unknown whether it was removed. If
// the caller ends the loop, RemoveAll waits for the commits that are under way.
func (b *base) RemoveAll(ctx context.Context, names []string, force bool) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		manyInParts(b.bulk, names, func(part []string) []partOutcome[string] { return b.removal.removeMany(ctx, part, force) }, yield)
	}
}

// Entries iterates over the entries of the given states, or over all, and takes none. First
// come ready and held entries and those that rest, in take order. Then come the delayed puts,
// in the order in which they fall due, and then the dead, those that died first in front.
//
// It reads page by page. An entry that stays is yielded exactly once; an entry that is put,
// taken or removed meanwhile may be yielded or not. An expired entry is not yielded, unless a
// process holds it. An error is yielded with a zero Entry and ends the loop. Values are not
// filled in, though they are read for their size.
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

// EntriesWithValues is [LockingQueue.Entries] with the values filled in.
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

// FindNames returns, for each tail, the names of the entries that end in "-" and the tail:
// of ready and held ones in take order, then of delayed puts and of the dead. A tail that no
// name has is not in the map. It lists all names of the queue, and reads no values.
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

// Peek returns an entry with its value, and takes nothing. name is the name that Entries
// yields; "" stands for the entry that a take would get next. Another process may take the
// entry before the caller uses it.
//
// The error is [ErrNoEntry] if there is no entry of that name, and [ErrEmpty] if there is no
// next one. An entry that has expired does not count, unless a process holds it.
func (b *base) Peek(ctx context.Context, name string) (Entry, error) {
	e, err := b.inspect.peek(ctx, name)
	if err != nil {
		return Entry{}, fmt.Errorf("peek at %s: %w", b.handle.Root, err)
	}
	return e, nil
}

// Stat counts the entries by state. While the queue is not in use the numbers are exact.
// While it is, each number is right for some instant of the call. Stat lists all names of the
// queue. It reads the values, too, if entries of the queue may expire.
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

// WaitEmpty blocks until there is no ready, held or delayed entry. It returns nil if there
// was such an instant during the call; entries may have been put since. Dead entries do not
// count. If ctx ends first, WaitEmpty returns its error.
func (b *base) WaitEmpty(ctx context.Context) error {
	err := b.handle.Do(ctx, func(ctx context.Context, s coord.Session) error {
		// Subscribe, then look, then wait: so no change is missed.
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
			var told bool // only changes wake it, so told is ignored
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
// stores the token before the put can find out after a crash whether the put was applied
// ([Resolve]), or make it again: at most one put with the token is ever applied. A token
// costs one commit, and one node that goes with [Forget] or after a day or two.
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
