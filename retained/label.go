package retained

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Label is a reader of a log. Its position in the log is kept in the service, so every
// process that opens the label of that name reads on from there. The first read makes the
// label. Its methods may be called from several goroutines. All of them, and readers in
// other processes, get the same entries until one of them has moved the label on.
type Label struct {
	log   *Log
	name  string
	start Start
}

// Start says where a new label begins.
type Start int

// Where a label begins.
const (
	Oldest   Start = iota // with the oldest entry in the log
	Newest                // with the newest entry in the log; the next one if the log is empty
	FromNext              // with the next entry that is appended
)

// ErrMoved: since the batch was read, another reader has moved the label on, or removed it.
var ErrMoved = errors.New("zkq: label has moved")

// Label returns the label of that name: one segment of a path, of at most [zkq.MaxSegment]
// bytes. It contacts no service and creates nothing. start matters only if the label does
// not exist yet.
func (l *Log) Label(name string, start Start) *Label {
	return &Label{log: l, name: name, start: start}
}

// check returns what is wrong with the log's name, the label's name or its start.
func (b *Label) check() error {
	switch {
	case b.log.handle.Invalid != nil:
		return b.log.handle.Invalid
	case strings.Contains(b.name, "/"), len(b.name) > zkq.MaxSegment, coord.CheckPath("/"+b.name) != nil:
		return fmt.Errorf("label %q: not a segment of a path: %w", b.name, zkq.ErrInvalidName)
	case b.start < Oldest || b.start > FromNext:
		return fmt.Errorf("label %s: start %d: %w", b.name, b.start, zkq.ErrInvalid)
	}
	return nil
}

// logLabels is the node that lists the labels, as it was read. Each label has a number that no
// other label gets. So no cursor's node is created twice, and a batch of a removed label never
// moves a later label of the same name.
type logLabels struct {
	layout.RetainedLabels

	fence coord.Fence
	there bool // the node exists
}

// cursor is a label's position as it was read. A batch moves it only if its node still has this
// fence: then no other reader has moved the label.
type cursor struct {
	layout.RetainedCursor

	path  string
	fence coord.Fence
}

// Batch is the entries that a label reads next.
type Batch struct {
	Entries []Entry

	// Missed is how many entries before or between these cannot be read any more: they
	// expired, or were removed. A batch may have missed entries and no others.
	Missed int64

	label *Label
	at    cursor        // the label's position before the batch
	next  int64         // the label's position behind it
	sem   chan struct{} // one-token lock of Commit; guards the fields below
	done  bool          // the batch was committed
	doubt zkq.Token     // token of the commit whose outcome is unknown; "" if none
}

// Read waits until there is an entry to read, and returns up to n entries. Every reader of
// the label gets them again until [Batch.Commit]. Read goes on after lost connections and
// sessions.
func (b *Label) Read(ctx context.Context, n int) (*Batch, error) { return b.read(ctx, n, true) }

// TryRead is Read without waiting: it returns [zkq.ErrEmpty] when there is nothing to read.
func (b *Label) TryRead(ctx context.Context, n int) (*Batch, error) { return b.read(ctx, n, false) }

// Next is Read and Commit in one: at most one Next, of all processes, returns an entry of
// the label. After an [zkq.ErrUnknown] the batch comes with the error, and [zkq.Resolve]
// tells whether the label has moved past it.
func (b *Label) Next(ctx context.Context, n int) (*Batch, error) {
	for {
		batch, err := b.Read(ctx, n)
		if err != nil {
			return nil, err
		}
		switch err := batch.Commit(ctx); {
		case err == nil:
			return batch, nil
		case errors.Is(err, ErrMoved):
		case errors.Is(err, zkq.ErrUnknown):
			return batch, err
		default:
			return nil, err
		}
	}
}

// read is Read with wait, otherwise TryRead.
func (b *Label) read(ctx context.Context, n int, wait bool) (batch *Batch, err error) {
	err = b.check()
	if err == nil {
		err = checkCount(n)
	}
	if err == nil {
		err = b.log.handle.Bounded(ctx, func(ctx context.Context) error {
			return b.log.patiently(ctx, func(s coord.Session) error {
				batch, err = b.readIn(ctx, s, n)
				if wait && errors.Is(err, zkq.ErrEmpty) {
					batch, err = b.await(ctx, s, n)
				}
				return err
			})
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read %s as %q: %w", b.log.handle.Root, b.name, err)
	}
	return batch, nil
}

// await waits for an entry in the session s and returns the batch. It sets the watch before it
// reads, so that it misses no append.
func (b *Label) await(ctx context.Context, s coord.Session, n int) (*Batch, error) {
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	changed, err := s.Watch(watching, b.log.node(layout.RetainedEntriesDir))
	if err != nil {
		return nil, err
	}
	for {
		batch, err := b.readIn(ctx, s, n)
		if !errors.Is(err, zkq.ErrEmpty) {
			return batch, err
		}
		select {
		case <-changed:
		case <-s.Done():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// readIn reads up to n entries in the session s. It returns [zkq.ErrEmpty] if there are none, and
// none were missed. It reads the head before the entries: an entry that the head has numbered
// and the listing does not show is gone, and counts as missed.
func (b *Label) readIn(ctx context.Context, s coord.Session, n int) (*Batch, error) {
	at, err := b.cursor(ctx, s)
	if err != nil {
		return nil, err
	}
	head, err := b.log.headIn(ctx, s)
	if err != nil {
		return nil, err
	}
	batch := &Batch{label: b, at: at, next: at.Next, sem: make(chan struct{}, 1)}
	for after := layout.RetainedNumber(at.Next); ; {
		list, err := s.List(ctx, b.log.node(layout.RetainedEntriesDir), coord.ListOptions{After: after, Limit: n, Values: true, Fresh: true})
		if err != nil {
			return nil, err
		}
		numbered, asked := head, false // asked: numbered is the head as it was after the listing
		for _, node := range list.Nodes {
			after = path.Base(node.Path)
			e, ok := parseName(after)
			if ok && e.Number >= numbered.Next && !asked {
				if numbered, err = b.log.headIn(ctx, s); err != nil {
					return nil, err
				}
				asked = true
			}
			switch {
			case !ok, e.Number < batch.next, e.Number >= numbered.Next: // no append numbered it
				b.log.handle.WarnOnce(node.Path, "is not an entry of a log: skipped")
				continue
			case len(batch.Entries) == n:
				return batch, nil
			}
			batch.pass(e.Number)
			batch.next++
			if e.expired() {
				batch.Missed++
				continue
			}
			e.Value = node.Value
			batch.Entries = append(batch.Entries, e)
		}
		if list.More && len(batch.Entries) < n {
			continue
		}
		if !list.More {
			batch.pass(head.Next)
		}
		if len(batch.Entries) == 0 && batch.Missed == 0 {
			return nil, zkq.ErrEmpty
		}
		return batch, nil
	}
}

// pass moves the batch's end to the entry of that number. The entries before it that were not
// listed count as missed.
func (b *Batch) pass(number int64) {
	if number > b.next {
		b.Missed += number - b.next
		b.next = number
	}
}

// Commit moves the label past the batch, in one commit, and only from the position at which
// the batch was read. [ErrMoved]: the label is elsewhere already, and this call moved
// nothing. [zkq.ErrAlreadyDone]: this batch was committed before. [zkq.ErrUnknown]: no
// answer came before ctx ended; call Commit again to learn more. After any other error
// nothing was changed.
func (b *Batch) Commit(ctx context.Context) error {
	if b.label == nil {
		return fmt.Errorf("this Batch was not made by a read: %w", zkq.ErrInvalid)
	}
	l := b.label.log
	err := l.handle.Bounded(ctx, func(ctx context.Context) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		select {
		case b.sem <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		defer func() { <-b.sem }()
		return b.commit(ctx)
	})
	if err != nil {
		return fmt.Errorf("move %q of %s: %w", b.label.name, l.handle.Root, err)
	}
	return nil
}

// commit is Commit for the caller that has sem. It first asks for the outcome of an earlier
// commit, if that is unknown.
func (b *Batch) commit(ctx context.Context) error {
	if b.done {
		return zkq.ErrAlreadyDone
	}
	l := b.label.log
	if b.doubt != "" {
		o, err := zkq.Resolve(ctx, l.handle.Coordinator, b.doubt)
		if err != nil && !errors.Is(err, zkq.ErrUnknown) {
			err = fmt.Errorf("%w: %w", zkq.ErrUnknown, err)
		}
		if err != nil {
			return err
		}
		if b.doubt, b.done = "", o.Applied; b.done {
			return nil
		}
	}
	_, err := l.commitOnce(ctx, []coord.Op{coord.Set(b.at.path, layout.RetainedCursor{Next: b.next}.Value(), b.at.fence)})
	if unknown := (*zkq.UnknownError)(nil); errors.As(err, &unknown) {
		b.doubt = unknown.Token
	}
	if retry.IsRefused(err) {
		return ErrMoved
	}
	b.done = err == nil
	return err
}

// cursor returns the label's position. It creates the label if there is none. Other processes
// may create or remove it meanwhile.
func (b *Label) cursor(ctx context.Context, s coord.Session) (cursor, error) {
	missed, free := int64(-1), int64(0)
	for {
		all, err := b.log.labels(ctx, s)
		if err != nil {
			return cursor{}, err
		}
		id, there := all.Labels[b.name]
		if there {
			at, err := b.log.cursor(ctx, s, id)
			if errors.Is(err, coord.ErrNotExist) && id != missed {
				missed = id // removed since: read the labels again; a second time is an error
				continue
			}
			return at, err
		}
		from, err := b.begin(ctx, s)
		if err != nil {
			return cursor{}, err
		}
		id = max(all.Next, free)
		all.Labels[b.name] = id
		all.Next = id + 1
		_, err = s.Commit(ctx, all.write(b.log), coord.Create(b.log.cursorPath(id), layout.RetainedCursor{Next: from}.Value()))
		if err != nil && !retry.IsRefused(err) {
			return cursor{}, err // after an unknown outcome the caller reads the labels again
		}
		if retry.RefusedOp(err) == 1 {
			free = id + 1 // the node of the number exists without a label: another client made it
		}
	}
}

// begin returns the number of the entry with which a new label begins.
func (b *Label) begin(ctx context.Context, s coord.Session) (int64, error) {
	head, err := b.log.headIn(ctx, s)
	if err != nil || b.start == FromNext {
		return head.Next, err
	}
	o := coord.ListOptions{Limit: 64, Fresh: true}
	if b.start == Newest {
		o.After = layout.RetainedNumber(max(head.Next-1, 0))
	}
	for page, err := range handle.Pages(ctx, s, b.log.node(layout.RetainedEntriesDir), o) {
		if err != nil {
			return 0, err
		}
		for _, n := range page {
			if e, ok := parseName(path.Base(n.Path)); ok && !e.expired() && e.Number < head.Next {
				return e.Number, nil
			}
		}
	}
	return head.Next, nil
}

// cursorPath returns the path of the node with the position of the label of that number.
func (l *Log) cursorPath(id int64) string {
	return l.node(layout.RetainedCursorsDir, layout.RetainedNumber(id))
}

// cursor reads the position of the label of that number.
func (l *Log) cursor(ctx context.Context, s coord.Session, id int64) (cursor, error) {
	n, err := s.Get(ctx, l.cursorPath(id))
	if err != nil {
		return cursor{}, err
	}
	at := cursor{path: n.Path, fence: n.Fence}
	if json.Unmarshal(n.Value, &at) != nil || at.Next < 0 {
		return cursor{}, fmt.Errorf("%s holds %.40q, which is not a label's: %w", n.Path, n.Value, zkq.ErrInvalid)
	}
	return at, nil
}

// labels reads the labels, none if there is no node.
func (l *Log) labels(ctx context.Context, s coord.Session) (logLabels, error) {
	all := logLabels{RetainedLabels: layout.RetainedLabels{Labels: make(map[string]int64)}}
	n, err := s.Get(ctx, l.node(layout.RetainedLabelsNode))
	if errors.Is(err, coord.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return all, err
	}
	all.fence, all.there = n.Fence, true
	if json.Unmarshal(n.Value, &all) != nil || all.Labels == nil || all.Next < 0 || all.Next > layout.LastNumber {
		return all, fmt.Errorf("%s holds %.40q, which are not a log's labels: %w", n.Path, n.Value, zkq.ErrInvalid)
	}
	return all, nil
}

// write returns the op that writes the labels. It is refused if they have changed since they
// were read.
func (a logLabels) write(l *Log) coord.Op {
	if a.there {
		return coord.Set(l.node(layout.RetainedLabelsNode), a.Value(), a.fence)
	}
	return coord.Create(l.node(layout.RetainedLabelsNode), a.Value())
}

// LabelInfo describes a label.
type LabelInfo struct {
	Name   string
	Next   int64 // the number of the entry that it reads next
	Behind int64 // how many entries the label has not read, those that are gone included
}

// Labels returns the log's labels by name.
func (l *Log) Labels(ctx context.Context) (infos []LabelInfo, err error) {
	err = l.handle.Bounded(ctx, func(ctx context.Context) error {
		return l.patiently(ctx, func(s coord.Session) error {
			infos = nil
			all, err := l.labels(ctx, s)
			if err != nil {
				return err
			}
			for _, name := range slices.Sorted(maps.Keys(all.Labels)) {
				at, err := l.cursor(ctx, s, all.Labels[name])
				if errors.Is(err, coord.ErrNotExist) {
					continue
				}
				if err != nil {
					return err
				}
				infos = append(infos, LabelInfo{Name: name, Next: at.Next})
			}
			head, err := l.headIn(ctx, s)
			for i := range infos {
				infos[i].Behind = head.Next - infos[i].Next
			}
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("labels of %s: %w", l.handle.Root, err)
	}
	return infos, nil
}

// RemoveLabel removes a label and reports whether there was one. Batches that were read for
// it can no longer be committed. A later read makes the label anew.
func (l *Log) RemoveLabel(ctx context.Context, name string) (removed bool, err error) {
	err = l.handle.Bounded(ctx, func(ctx context.Context) error {
		for {
			err := l.patiently(ctx, func(s coord.Session) error {
				all, err := l.labels(ctx, s)
				if err != nil {
					return err
				}
				id, there := all.Labels[name]
				if !there {
					return nil
				}
				delete(all.Labels, name)
				ops := []coord.Op{all.write(l)}
				at, err := l.cursor(ctx, s, id)
				switch {
				case err == nil:
					ops = append(ops, coord.Delete(at.path, at.fence))
				case !errors.Is(err, coord.ErrNotExist): // without a cursor only the name is removed
					return err
				}
				_, err = s.Commit(ctx, ops...)
				removed = removed || err == nil || errors.Is(err, zkq.ErrUnknown) // if unknown, the next attempt finds out
				return err
			})
			if !retry.IsRefused(err) {
				return err
			}
		}
	})
	if err != nil {
		return false, fmt.Errorf("remove label %q of %s: %w", name, l.handle.Root, err)
	}
	return removed, nil
}

// checkCount returns an error unless n is a number of entries to read.
func checkCount(n int) error {
	if n < 1 {
		return fmt.Errorf("read %d entries: allowed are 1 and more: %w", n, zkq.ErrInvalid)
	}
	return nil
}
