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

// deadLetters works on the dead entries of a queue. They are nodes in a directory of their
// own, so takes never see them. A node's name begins with the time at which the entry died,
// so a listing shows them in that order, and ends with the name that the entry had.
type deadLetters struct{ *handle.Handle }

// deadEntry returns the dead entry that a node holds, or false if the node's name is not that
// of a dead entry.
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

// Bury gives the entry up: no worker gets it again, unless an operator calls
// [LockingQueue.Requeue]. It is moved to the dead entries, with the reason, and this delivery
// counts as a failure. A long reason is cut. One commit removes the entry and creates the dead
// one, so other processes see one of them at any time.
//
// Errors are those of Consume. After [ErrUnknown] the entry is dead, or it will be handed out
// again. After [ErrTooLarge] the caller still holds it: a client with higher limits put the
// entry, and this one cannot write it again.
func (h *Held) Bury(ctx context.Context, reason string) error {
	return h.bury(ctx, 1, reason)
}

// bury moves the entry to the dead. If counted is 1, the dead entry's counts include this
// delivery and a failure; if it is 0, they include neither.
func (h *Held) bury(ctx context.Context, counted int, reason string) error {
	return h.finish(ctx, h.burial(counted, reason, func(ctx context.Context) ([]byte, error) {
		n, err := h.lock.Session().Get(ctx, h.entry) // not Held.Value, which the caller may have changed
		if err != nil && !errors.Is(err, coord.ErrNotExist) {
			return nil, err
		}
		return n.Value, nil // if the entry was lost meanwhile, its fence has moved, and the commit will be refused
	}))
}

// burial returns the finish that moves the entry to the dead. value reads the value of the
// entry's node, headers included. If the commit would exceed the service's limits, burial cuts
// the reason; the value is never cut.
func (h *Held) burial(counted int, reason string, value func(context.Context) ([]byte, error)) finish {
	entry := coord.Delete(h.entry, h.at())
	return finish{
		act: "bury", entry: entry, wasApplied: h.wasRemoved,
		extraOps: func(ctx context.Context) ([]coord.Op, error) {
			s := h.lock.Session()
			value, err := value(ctx)
			if err != nil {
				return nil, err
			}
			to := path.Join(h.claimer.Root, layout.DeadDir, layout.DeadName(time.Now(), h.Name))
			text := layout.Headers{Reason: layout.CutText(reason, layout.MaxReason), Failures: h.past.Failures + counted, Deliveries: h.deliveries() - 1 + counted}
			for { // until the commit fits, with a shorter reason each time
				ops := append([]coord.Op{coord.Create(to, text.Envelope(value))}, h.past.removeOps()...)
				var limit *coord.LimitError
				err := coord.CheckOps(s.Limits(), append([]coord.Op{entry, h.lock.ReleaseOp()}, ops...))
				if text.Reason == "" || !errors.As(err, &limit) {
					return ops, nil // if it is too large even so, the finish returns that error
				}
				text = text.Shorten(limit.Size - limit.Limit)
			}
		},
	}
}

// moveToDeadOps returns ops of the size of those that move an entry to the dead, without the
// headers of the dead entry. They are never committed: a put checks with them that the entry
// could be moved later.
func (dl *deadLetters) moveToDeadOps(name string, value []byte) []coord.Op {
	return []coord.Op{
		coord.Delete(path.Join(dl.Entries, name), 1),
		coord.Delete(path.Join(dl.Taken, name), 1),
		coord.Create(path.Join(dl.Root, layout.DeadDir, layout.DeadName(time.UnixMilli(0), name)), value),
		coord.Delete(path.Join(dl.Root, layout.HistoryDir, name), 1),
	}
}

// deadHeaders is the size in bytes of a dead entry's headers without a reason, with the
// largest counts.
var deadHeaders = len(layout.Headers{Failures: math.MaxInt, Deliveries: math.MaxInt}.Envelope(nil))

// deadPaged calls f with the dead entries, those that died first in front, until f returns
// false: then it returns errStop. If the session is lost, it goes on in the next one behind
// the last entry.
func (dl *deadLetters) deadPaged(ctx context.Context, f func(Entry) bool) error {
	after := ""
	return dl.Do(ctx, func(ctx context.Context, s coord.Session) error {
		o := coord.ListOptions{After: after, Limit: handle.NodesPage, Values: true, Fresh: after == ""}
		for page, err := range handle.Pages(ctx, s, path.Join(dl.Root, layout.DeadDir), o) {
			if err != nil {
				return err
			}
			for _, n := range page {
				after = path.Base(n.Path)
				if e, ok := deadEntry(n); ok && !f(e) {
					return errStop
				}
			}
		}
		return nil
	})
}

// countDead returns the number of dead entries, and warns once about each other node among
// them.
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

// findDead returns the path of a dead entry. name is its name among the dead, which findDead
// does not look up, or the name that it had before it died. The error is [ErrNoEntry] if no
// dead entry had that name.
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
