package zkq

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
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
	if ms > lastDue || ms < 1 {
		return 0, fmt.Errorf("a time to live of %v: it must end before the year 2286: %w", d, ErrInvalid)
	}
	return ms, nil
}

// expires is when the entry with these headers does; zero: never.
func (h headers) expires() time.Time {
	if h.ExpiresMS <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(h.ExpiresMS)
}

func expired(at time.Time) bool { return !at.IsZero() && !time.Now().Before(at) }

// expired says whether the entry's time to live is over: nobody is handed it any more.
func (e Entry) expired() bool {
	return expired(e.Expires) && e.State != StateHeld && e.State != StateDead
}

// markExpiring notes with the queue that entries of it may expire, once.
func (p *place) markExpiring(ctx context.Context, s coord.Session) error {
	if c, err := p.config(ctx, s); err != nil || c.Expires {
		return err
	}
	return notApplied(ctx, p.changeConfig(ctx, func(c *config) error {
		if c.Expires {
			return errDone
		}
		c.Expires = true
		return nil
	}))
}

// discard removes a claimed entry that has expired: errGone then.
func (h *Held) discard(ctx context.Context) error {
	err := h.Consume(ctx)
	if err == nil || errors.Is(err, ErrLockLost) {
		return errGone
	}
	return err
}

// lapsed calls f with the entries: whether each has expired, and when it does; zero is
// never, and of one that is held.
func (p *place) lapsed(ctx context.Context, s coord.Session, locks map[string]coord.Node, f func(name string, gone bool, expires time.Time) error) error {
	for after := ""; ; {
		l, err := s.List(ctx, p.entries, coord.ListOptions{After: after, Limit: nodesPage, Values: true, Fresh: after == ""})
		if err != nil {
			return err
		}
		for _, n := range l.Nodes {
			name := path.Base(n.Path)
			after = name
			if _, ok := priority.Parse(name); !ok {
				continue
			}
			at := headersOf(n.Value).expires()
			lk, locked := locks[name]
			held := locked && lock.Read(lk).Kind != lock.Aside
			if held {
				at = time.Time{}
			}
			if err := f(name, expired(at), at); err != nil {
				return err
			}
		}
		if !l.More {
			return nil
		}
	}
}

// lapsedNames are the entries that have expired.
func (p *place) lapsedNames(ctx context.Context, s coord.Session, locks map[string]coord.Node) (map[string]bool, error) {
	c, err := p.config(ctx, s)
	if err != nil || !c.Expires {
		return nil, err
	}
	names := make(map[string]bool)
	err = p.lapsed(ctx, s, locks, func(name string, gone bool, _ time.Time) error {
		if gone {
			names[name] = true
		}
		return nil
	})
	return names, err
}

// nextLiving is the first entry that is ready and has not expired, of a queue in which
// some may have.
func (p *place) nextLiving(ctx context.Context) (next Entry, err error) {
	err = p.entriesPaged(ctx, func(e Entry) bool {
		if e.State != StateReady || e.expired() || e.Unreadable {
			return true
		}
		next = e
		return false
	})
	if err = notStop(err); err == nil && next.Name == "" {
		err = ErrEmpty
	}
	return next, err
}

// mayExpire says whether some entries of the queue may have a time to live.
func (p *place) mayExpire(ctx context.Context) (may bool, err error) {
	err = p.do(ctx, func(ctx context.Context, s coord.Session) error {
		c, err := p.config(ctx, s)
		may = c.Expires
		return err
	})
	return may, err
}

// removeExpired removes what has expired and what nobody holds.
func (p *place) removeExpired(ctx context.Context, s coord.Session) error {
	locks, err := p.locks(ctx, s)
	if err != nil {
		return err
	}
	var names []string
	err = p.lapsed(ctx, s, locks, func(name string, gone bool, _ time.Time) error {
		if gone {
			names = append(names, name)
		}
		return nil
	})
	if err == nil {
		err = p.eachLater(ctx, s, func(name string) error {
			e, err := p.peekLater(ctx, name)
			if err == nil && e.expired() {
				names = append(names, name)
			}
			if errors.Is(err, ErrNoEntry) {
				err = nil
			}
			return err
		})
	}
	for _, name := range names {
		if err != nil {
			break
		}
		if err = p.Remove(ctx, name, false); errors.Is(err, ErrNoEntry) || errors.Is(err, ErrHeld) {
			err = nil
		}
	}
	return err
}
