package zkq

import (
	"context"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/head"
	"github.com/zkq/zkq/internal/retry"
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
	h.OnSession = b.settings.follow
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
