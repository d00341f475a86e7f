package zkq

import (
	"context"
	"errors"
	"math"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
)

// deadLetters works on the dead entries of a queue: nodes of a directory of their own, named
// by when the entry died and what it was called.
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
				ops := append([]coord.Op{coord.Create(to, text.Envelope(value))}, h.past.removeOps()...)
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
			l, err := s.List(ctx, path.Join(dl.Root, layout.DeadDir), coord.ListOptions{After: after, Limit: handle.NodesPage, Values: true, Fresh: after == ""})
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
	dead := 0
	for page, err := range handle.Pages(ctx, s, path.Join(dl.Root, layout.DeadDir), coord.ListOptions{Limit: handle.NamesPage, Fresh: true}) {
		if err != nil {
			return 0, err
		}
		for _, n := range page {
			name := path.Base(n.Path)
			if _, _, ok := layout.ParseDead(name); ok {
				dead++
			} else {
				dl.WarnOnce(n.Path, "is not a dead entry of zkq: skipped")
			}
		}
	}
	return dead, nil
}

// findDead returns the path of a dead entry, whose name is that among the dead or
// the one it had before.
func (dl *deadLetters) findDead(ctx context.Context, s coord.Session, name string) (string, error) {
	dir := path.Join(dl.Root, layout.DeadDir)
	if _, _, ok := layout.ParseDead(name); ok {
		return path.Join(dir, name), nil
	}
	for page, err := range handle.Pages(ctx, s, dir, coord.ListOptions{Limit: handle.NamesPage, Fresh: true}) {
		if err != nil {
			return "", err
		}
		for _, n := range page {
			deadName := path.Base(n.Path)
			if entry, _, ok := layout.ParseDead(deadName); ok && entry == name {
				return n.Path, nil
			}
		}
	}
	return "", ErrNoEntry
}
