package zkq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// deadLetters are the dead entries.
type deadLetters struct{ *handle.Handle }

// deadEntry is the entry in a node of the dead.
func deadEntry(n coord.Node) (Entry, bool) {
	name := path.Base(n.Path)
	_, parsed, ok := layout.ParseDead(name)
	if !ok {
		return Entry{}, false
	}
	text, body := layout.Unwrap(n.Value)
	h := layout.DeadHeadersOf(text)
	n.Value = body
	e := newEntry(name, parsed, n)
	e.State, e.Deliveries, e.Failures, e.Reason = StateDead, max(h.Deliveries, 0), max(h.Failures, 0), h.Reason
	ms, _, _ := layout.CutMillis(name)
	e.Since = time.UnixMilli(ms)
	return e, true
}

// Bury gives the entry up: it is moved to the dead, with the beginning of the
// reason, and this delivery counts as a failure. One commit removes it here and
// creates it there. Errors are those of Consume; after [ErrUnknown] it is among
// the dead or will be handed out again. [ErrTooLarge]: somebody with higher limits
// put it, and it cannot be written once more; it is still held.
func (h *Held) Bury(ctx context.Context, reason string) error {
	return h.bury(ctx, 1, reason)
}

// bury counts this delivery, and a failure, if counted is 1, and not if it is 0.
func (h *Held) bury(ctx context.Context, counted int, reason string) error {
	return h.finish(ctx, h.burial(counted, reason, func(ctx context.Context) ([]byte, error) {
		n, err := h.lock.Session().Get(ctx, h.entry) // Held.Value is the caller's to change
		if err != nil && !errors.Is(err, coord.ErrNotExist) {
			return nil, err
		}
		return n.Value, nil // if it is another's by now, or gone, the commit will be refused
	}))
}

// burial is the finish that moves the entry to the dead. value reads the value of its node.
func (h *Held) burial(counted int, reason string, value func(context.Context) ([]byte, error)) finish {
	entry := coord.Delete(h.entry, h.at())
	return finish{
		act: "bury", entry: entry, wasApplied: h.wasRemoved,
		beside: func(ctx context.Context) ([]coord.Op, error) {
			s := h.lock.Session()
			value, err := value(ctx)
			if err != nil {
				return nil, err
			}
			to := path.Join(h.claimer.Root, layout.DeadDir, layout.DeadName(time.Now(), h.Name))
			text := layout.Headers{Reason: layout.CutText(reason, layout.MaxReason), Failures: h.past.Failures + counted, Deliveries: h.deliveries() - 1 + counted}
			for {
				ops := append([]coord.Op{coord.Create(to, text.Envelope(value))}, h.past.forget()...)
				var limit *coord.LimitError
				err := coord.CheckOps(s.Limits(), append([]coord.Op{entry, h.lock.GiveBack()}, ops...))
				if text.Reason == "" || !errors.As(err, &limit) {
					return ops, nil
				}
				text = text.Shorten(limit.Size - limit.Limit)
			}
		},
	}
}

// moveToDead is the commit that moves an entry, by its size, but for the headers.
func (dl *deadLetters) moveToDead(name string, value []byte) []coord.Op {
	return []coord.Op{
		coord.Delete(path.Join(dl.Entries, name), 1),
		coord.Delete(path.Join(dl.Taken, name), 1),
		coord.Create(path.Join(dl.Root, layout.DeadDir, layout.DeadName(time.UnixMilli(0), name)), value),
		coord.Delete(path.Join(dl.Root, layout.HistoryDir, name), 1),
	}
}

// deadHeaders is the size of the longest headers without a reason.
var deadHeaders = len(layout.Headers{Failures: math.MaxInt, Deliveries: math.MaxInt}.Envelope(nil))

// deadPaged walks the dead entries, oldest first.
func (dl *deadLetters) deadPaged(ctx context.Context, f func(Entry) bool) error {
	after := ""
	return dl.Do(ctx, func(ctx context.Context, s coord.Session) error {
		for {
			l, err := s.List(ctx, path.Join(dl.Root, layout.DeadDir), coord.ListOptions{After: after, Limit: nodesPage, Values: true, Fresh: after == ""})
			if err != nil {
				return err
			}
			for _, n := range l.Nodes {
				after = path.Base(n.Path)
				if e, ok := deadEntry(n); ok && !f(e) {
					return errStop
				}
			}
			if !l.More {
				return nil
			}
		}
	})
}

// countDead counts the dead entries, and warns of what is none.
func (dl *deadLetters) countDead(ctx context.Context, s coord.Session) (int, error) {
	dead, after := 0, ""
	for {
		l, err := s.List(ctx, path.Join(dl.Root, layout.DeadDir), coord.ListOptions{After: after, Limit: namesPage, Fresh: after == ""})
		if err != nil {
			return 0, err
		}
		for _, n := range l.Nodes {
			after = path.Base(n.Path)
			if _, _, ok := layout.ParseDead(after); ok {
				dead++
			} else {
				dl.WarnOnce(n.Path, "is not a dead entry of zkq: skipped")
			}
		}
		if !l.More {
			return dead, nil
		}
	}
}

// findDead returns the path of a dead entry, whose name is that among the dead or
// the one it had before.
func (dl *deadLetters) findDead(ctx context.Context, s coord.Session, name string) (string, error) {
	dir := path.Join(dl.Root, layout.DeadDir)
	if _, _, ok := layout.ParseDead(name); ok {
		return path.Join(dir, name), nil
	}
	for after := ""; ; {
		l, err := s.List(ctx, dir, coord.ListOptions{After: after, Limit: namesPage, Fresh: after == ""})
		if err != nil {
			return "", err
		}
		for _, n := range l.Nodes {
			after = path.Base(n.Path)
			if entry, _, ok := layout.ParseDead(after); ok && entry == name {
				return n.Path, nil
			}
		}
		if !l.More {
			return "", ErrNoEntry
		}
	}
}

// Requeue makes a dead entry ready again, behind those that are there and of its
// priority, as one that was never delivered. name is what Entries calls it, or what
// it was called before it died; the result is its new name, as [LockingQueue.Put]
// tells it: no name is given twice. [ErrNoEntry]: no dead entry has that name. It
// becomes one entry, or none, whatever answers are lost. It stands for no unique key any
// more, and does not expire. Errors are those of Put.
func (q *LockingQueue) Requeue(ctx context.Context, name string) (string, error) {
	_, _, dead := layout.ParseDead(name)
	if !dead {
		if err := checkEntryName(name); err != nil {
			return "", fmt.Errorf("requeue in %s: %w", q.handle.Root, err)
		}
	}
	for {
		var ops []coord.Op
		err := q.handle.Do(ctx, func(ctx context.Context, s coord.Session) (err error) {
			ops, err = q.rising(ctx, s, name)
			return err
		})
		var ready string
		if err == nil {
			err = q.handle.Bounded(ctx, func(ctx context.Context) (err error) {
				ready, err = q.rise(ctx, ops)
				return err
			})
		}
		switch {
		case err == nil:
			return ready, nil
		case !retry.IsRefused(err): // otherwise somebody else has it
			return "", fmt.Errorf("requeue %s in %s: %w", name, q.handle.Root, err)
		}
	}
}

// rising are the ops that make a dead entry ready.
func (q *LockingQueue) rising(ctx context.Context, s coord.Session, name string) ([]coord.Op, error) {
	at, err := q.dead.findDead(ctx, s, name)
	if err != nil {
		return nil, err
	}
	n, err := s.Get(ctx, at)
	if errors.Is(err, coord.ErrNotExist) {
		return nil, ErrNoEntry
	}
	if err != nil {
		return nil, err
	}
	_, parsed, _ := layout.ParseDead(path.Base(at))
	_, guard, err := q.puts.room(ctx, s, demand{entries: 1})
	if err != nil {
		return nil, err
	}
	_, body := layout.Unwrap(n.Value)
	ops := []coord.Op{
		coord.Delete(at, n.Fence),
		coord.CreateSequential(path.Join(q.handle.Entries, priority.Prefix(parsed.Priority)), layout.Requeued(body)),
	}
	return append(ops, guard...), nil
}

// rise commits them, once, and returns the entry's name.
func (q *LockingQueue) rise(ctx context.Context, ops []coord.Op) (string, error) {
	done, err := q.lanes.once(ctx, nil, ops)
	switch {
	case err != nil:
		return "", err
	case done.Results != nil:
		return path.Base(done.Results[1].Path), nil
	}
	return strings.Join(q.puts.namesOf(ctx, done.Revision, ops[1:2]), ""), nil
}

// removeBeside removes a dead entry or a delayed put, from the directory of these.
func (rm *remover) removeBeside(ctx context.Context, dir, name string) error {
	unknown := false // an attempt was not answered, in this session or an earlier one
	err := rm.Do(ctx, func(ctx context.Context, s coord.Session) error {
		return rm.removeBesideIn(ctx, s, dir, name, &unknown)
	})
	if unknown {
		return stillUnknown(err)
	}
	return err
}

// removeBesideIn is removeBeside in one session.
func (rm *remover) removeBesideIn(ctx context.Context, s coord.Session, dir, name string, unknown *bool) error {
	for backoff := new(retry.Backoff); ; {
		n, err := s.Get(ctx, path.Join(rm.Root, dir, name))
		switch {
		case errors.Is(err, coord.ErrNotExist) && *unknown:
			return nil
		case errors.Is(err, coord.ErrNotExist):
			return ErrNoEntry
		case err != nil:
			return err
		}
		key, err := rm.keys.dropKey(ctx, s, n)
		if err != nil {
			return err
		}
		_, err = s.Commit(ctx, append(key, coord.Delete(n.Path, n.Fence))...)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, coord.ErrUnknown):
			*unknown = true
		case !retry.IsRefused(err):
			return err
		}
		if err := backoff.Wait(ctx, s.Done(), nil); err != nil {
			return err
		}
	}
}

// PurgeDead removes the dead entries but for those that died last, keep of them, and
// returns how many it removed.
func (q *LockingQueue) PurgeDead(ctx context.Context, keep int) (int, error) {
	if keep < 0 {
		return 0, fmt.Errorf("purge %s: keep %d: allowed are 0 and more: %w", q.handle.Root, keep, ErrInvalid)
	}
	n, err := q.removal.purgeDead(ctx, keep)
	if err != nil {
		return n, fmt.Errorf("purge %s: %w", q.handle.Root, err)
	}
	return n, nil
}

// purgeDead removes the dead entries, less the newest.
func (rm *remover) purgeDead(ctx context.Context, keep int) (int, error) {
	var names []string // the oldest first
	err := rm.Do(ctx, func(ctx context.Context, s coord.Session) error {
		names = nil
		for after := ""; ; {
			l, err := s.List(ctx, path.Join(rm.Root, layout.DeadDir), coord.ListOptions{After: after, Limit: namesPage, Fresh: true})
			if err != nil {
				return err
			}
			for _, n := range l.Nodes {
				after = path.Base(n.Path)
				if _, _, ok := layout.ParseDead(after); ok {
					names = append(names, after)
				}
			}
			if !l.More {
				return nil
			}
		}
	})
	removed := 0
	for _, name := range names[:max(len(names)-keep, 0)] {
		if err != nil {
			break
		}
		if err = rm.removeBeside(ctx, layout.DeadDir, name); err == nil {
			removed++
		} else if errors.Is(err, ErrNoEntry) {
			err = nil
		}
	}
	return removed, err
}
