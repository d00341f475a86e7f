package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// An entry's headers may say when it expires. Who claims it after that removes it, and
// whoever looks passes it over; until somebody claims it the node stands. The queue's
// configuration says whether there ever was such an entry: where there was none, nobody
// reads values to find out.

// expiresIn is when something expires that is to live for d: no later than that.
func expiresIn(d time.Duration) (ms int64, err error) {
	ms = time.Now().Add(d).UnixMilli()
	if ms > layout.LastMillis || ms < 1 {
		return 0, fmt.Errorf("a time to live of %v: it must end before the year 2286: %w", d, ErrInvalid)
	}
	return ms, nil
}

func expired(at time.Time) bool { return !at.IsZero() && !time.Now().Before(at) }

// markExpiring notes with the queue that entries of it may expire, once.
func (lt *lifetimes) markExpiring(ctx context.Context, s coord.Session) error {
	if c, err := lt.settings.config(ctx, s); err != nil || c.Expires {
		return err
	}
	return retry.NotApplied(ctx, lt.settings.changeConfig(ctx, func(c *config) error {
		if c.Expires {
			return errUnchanged
		}
		c.Expires = true
		return nil
	}))
}

// discard removes a claimed entry that has expired: errCleared then, or errUnavailable if the lock
// was lost.
func (h *Held) discard(ctx context.Context) error {
	switch err := h.Consume(ctx); {
	case err == nil:
		return errCleared
	case errors.Is(err, ErrLockLost):
		return errUnavailable
	default:
		return err
	}
}

// lifetimes knows which entries of a queue expire. The queue's configuration says whether any
// entry ever had a time to live: where none had, no value is read to find out.
type lifetimes struct {
	*handle.Handle
	settings *settings
}

// lifetime is what there is to know of an entry that may expire.
type lifetime struct {
	node      coord.Node
	name      string
	expires   time.Time // zero: never
	isHeld    bool      // it does not expire while it is
	isDelayed bool      // it is put aside until it is due
}

func (l lifetime) hasExpired() bool { return !l.isHeld && expired(l.expires) }

// lifetimes calls f with those of the entries.
func (lt *lifetimes) lifetimes(ctx context.Context, s coord.Session, locks map[string]coord.Node, f func(lifetime) error) error {
	for page, err := range handle.Pages(ctx, s, lt.Entries, coord.ListOptions{Limit: handle.NodesPage, Values: true, Fresh: true}) {
		if err != nil {
			return err
		}
		for _, n := range page {
			name := path.Base(n.Path)
			if _, ok := priority.Parse(name); !ok {
				continue
			}
			one := lifetime{node: n, name: name, expires: layout.HeadersOf(n.Value).Expires()}
			if lk, locked := locks[name]; locked {
				one.isDelayed = lock.Read(lk).Kind == lock.Aside
				one.isHeld = !one.isDelayed
			}
			if err := f(one); err != nil {
				return err
			}
		}
	}
	return nil
}

// lapsedNames are the entries that have expired.
func (lt *lifetimes) lapsedNames(ctx context.Context, s coord.Session, locks map[string]coord.Node) (map[string]bool, error) {
	if may, err := lt.expires(ctx, s); err != nil || !may {
		return nil, err
	}
	names := make(map[string]bool)
	err := lt.lifetimes(ctx, s, locks, func(l lifetime) error {
		if l.hasExpired() {
			names[l.name] = true
		}
		return nil
	})
	return names, err
}

// mayExpire says whether some entries of the queue may have a time to live.
func (lt *lifetimes) mayExpire(ctx context.Context) (may bool, err error) {
	err = lt.Do(ctx, func(ctx context.Context, s coord.Session) error {
		may, err = lt.expires(ctx, s)
		return err
	})
	return may, err
}

// expires is mayExpire in a session. Another process may have put the first such entry a
// moment ago: only a yes that was heard before will do.
func (lt *lifetimes) expires(ctx context.Context, s coord.Session) (bool, error) {
	c, err := lt.settings.config(ctx, s)
	if err == nil && !c.Expires && lt.Taken != "" {
		c, err = lt.settings.refreshConfig(ctx, s)
	}
	return c.Expires, err
}
