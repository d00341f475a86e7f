package zkq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Label is a reader of a log with a place of its own in it, which is kept in the
// service: whoever opens the label of that name reads on from there. It is made by the
// first read. Its methods may be called from several goroutines; to each of them, and
// to readers in other processes, the label's entries are handed until one has moved
// the label on.
type Label struct {
	log   *Log
	name  string
	start Start
}

// Start is where a label begins that is not there yet.
type Start int

// Where a label begins.
const (
	Oldest   Start = iota // with the oldest entry that there is
	Newest                // with the newest entry that there is, or the next if there is none
	FromNext              // with the next entry that is appended
)

// ErrMoved: somebody else has moved the label on since the batch was read, or removed it.
var ErrMoved = errors.New("zkq: label has moved")

// Label returns the label of that name: one segment of a path, of at most
// [MaxSegment] bytes. Nothing is contacted or created; start matters only where there
// is no such label yet.
func (l *Log) Label(name string, start Start) *Label {
	return &Label{log: l, name: name, start: start}
}

func (b *Label) check() error {
	switch {
	case b.log.base.handle.Invalid != nil:
		return b.log.base.handle.Invalid
	case strings.Contains(b.name, "/"), len(b.name) > MaxSegment, coord.CheckPath("/"+b.name) != nil:
		return fmt.Errorf("label %q: not a segment of a path: %w", b.name, ErrInvalidName)
	case b.start < Oldest || b.start > FromNext:
		return fmt.Errorf("label %s: start %d: %w", b.name, b.start, ErrInvalid)
	}
	return nil
}

// logLabels is the node that names the labels. A label's number is never given again,
// so that a cursor's node is never created twice, and a batch of a removed label never
// moves a later one of its name.
type logLabels struct {
	layout.RetainedLabels

	fence coord.Fence
	there bool
}

// cursor is a label's place.
type cursor struct {
	layout.RetainedCursor

	path  string
	fence coord.Fence
}

// Batch is what a label has to read next.
type Batch struct {
	Entries []LogEntry

	// Missed is how many entries stood before or between these that nobody can read
	// any more: they expired, or were removed. A batch may hold nothing else.
	Missed int64

	label *Label
	at    cursor
	next  int64
	turn  chan struct{} // holds one while a commit is under way
	done  bool
	doubt Token // of a commit that was not answered
}

// Read waits until there is something to read and returns up to n entries of it. They
// are read again, by whoever asks, until [Batch.Commit]. Lost connections and sessions
// are waited out.
func (b *Label) Read(ctx context.Context, n int) (*Batch, error) { return b.read(ctx, n, true) }

// TryRead is Read without the waiting: [ErrEmpty] when there is nothing to read.
func (b *Label) TryRead(ctx context.Context, n int) (*Batch, error) { return b.read(ctx, n, false) }

// Next is Read and Commit in one: each entry of the label is returned by one Next at
// most, of any process. After an [ErrUnknown] they come with the error: [Resolve] tells
// whether the label has moved past them.
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
		case errors.Is(err, ErrUnknown):
			return batch, err
		default:
			return nil, err
		}
	}
}

func (b *Label) read(ctx context.Context, n int, wait bool) (batch *Batch, err error) {
	err = b.check()
	if err == nil {
		err = checkCount(n)
	}
	if err == nil {
		err = b.log.base.handle.Bounded(ctx, func(ctx context.Context) error {
			return b.log.patiently(ctx, func(s coord.Session) error {
				batch, err = b.readIn(ctx, s, n)
				if wait && errors.Is(err, ErrEmpty) {
					batch, err = b.await(ctx, s, n)
				}
				return err
			})
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read %s as %q: %w", b.log.base.handle.Root, b.name, err)
	}
	return batch, nil
}

// await subscribes, reads, and waits.
func (b *Label) await(ctx context.Context, s coord.Session, n int) (*Batch, error) {
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	changed, err := s.Watch(watching, b.log.node(layout.RetainedEntriesDir))
	if err != nil {
		return nil, err
	}
	for {
		batch, err := b.readIn(ctx, s, n)
		if !errors.Is(err, ErrEmpty) {
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

// readIn reads what there is. The head is read before the entries: what it had counted
// and is not there is gone.
func (b *Label) readIn(ctx context.Context, s coord.Session, n int) (*Batch, error) {
	at, err := b.cursor(ctx, s)
	if err != nil {
		return nil, err
	}
	head, err := b.log.headIn(ctx, s)
	if err != nil {
		return nil, err
	}
	batch := &Batch{label: b, at: at, next: at.Next, turn: make(chan struct{}, 1)}
	for after := layout.RetainedNumber(at.Next); ; {
		list, err := s.List(ctx, b.log.node(layout.RetainedEntriesDir), coord.ListOptions{After: after, Limit: n, Values: true, Fresh: true})
		if err != nil {
			return nil, err
		}
		numbered, asked := head, false // the head as it was when the listing was made, or later
		for _, node := range list.Nodes {
			after = path.Base(node.Path)
			e, ok := parseLogName(after)
			if ok && e.Number >= numbered.Next && !asked {
				if numbered, err = b.log.headIn(ctx, s); err != nil {
					return nil, err
				}
				asked = true
			}
			switch {
			case !ok, e.Number < batch.next, e.Number >= numbered.Next: // no append numbered it
				b.log.base.handle.WarnOnce(node.Path, "is not an entry of a log: skipped")
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
			return nil, ErrEmpty
		}
		return batch, nil
	}
}

// pass counts what is missing before an entry.
func (b *Batch) pass(number int64) {
	if number > b.next {
		b.Missed += number - b.next
		b.next = number
	}
}

// Commit moves the label past the batch, in one commit and only from where it was read.
// [ErrMoved]: the label is elsewhere already, and this call moved nothing.
// [ErrAlreadyDone]: this batch was committed before. [ErrUnknown]: no answer came before
// ctx ended; Commit may be called again to learn more. After any other error nothing
// was changed.
func (b *Batch) Commit(ctx context.Context) error {
	if b.label == nil {
		return fmt.Errorf("this Batch was not made by a read: %w", ErrInvalid)
	}
	l := b.label.log
	err := l.base.handle.Bounded(ctx, func(ctx context.Context) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		select {
		case b.turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		defer func() { <-b.turn }()
		return b.commit(ctx)
	})
	if err != nil {
		return fmt.Errorf("move %q of %s: %w", b.label.name, l.base.handle.Root, err)
	}
	return nil
}

func (b *Batch) commit(ctx context.Context) error {
	if b.done {
		return ErrAlreadyDone
	}
	l := b.label.log
	if b.doubt != "" {
		o, err := Resolve(ctx, l.base.handle.Coordinator, b.doubt)
		if err != nil && !errors.Is(err, ErrUnknown) {
			err = fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		if err != nil {
			return err
		}
		if b.doubt, b.done = "", o.Applied; b.done {
			return nil
		}
	}
	_, err := l.base.lanes.once(ctx, nil, []coord.Op{coord.Set(b.at.path, layout.RetainedCursor{Next: b.next}.Value(), b.at.fence)})
	if unknown := (*UnknownError)(nil); errors.As(err, &unknown) {
		b.doubt = unknown.Token
	}
	if retry.IsRefused(err) {
		return ErrMoved
	}
	b.done = err == nil
	return err
}

// cursor reads the label's place, and makes it where there is none.
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
				missed = id // it was removed in between, or by hand
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
			return cursor{}, err // if that is unknown, the next look tells
		}
		if retry.RefusedOp(err) == 1 {
			free = id + 1 // a cursor stands there that no label has: somebody else made it
		}
	}
}

// begin is the number of the entry with which a new label begins.
func (b *Label) begin(ctx context.Context, s coord.Session) (int64, error) {
	head, err := b.log.headIn(ctx, s)
	if err != nil || b.start == FromNext {
		return head.Next, err
	}
	o := coord.ListOptions{Fresh: true}
	if b.start == Newest {
		o.After = layout.RetainedNumber(max(head.Next-1, 0))
	}
	for {
		o.Limit = 64
		list, err := s.List(ctx, b.log.node(layout.RetainedEntriesDir), o)
		if err != nil {
			return 0, err
		}
		for _, n := range list.Nodes {
			if e, ok := parseLogName(path.Base(n.Path)); ok && !e.expired() && e.Number < head.Next {
				return e.Number, nil
			}
			o.After = path.Base(n.Path)
		}
		if !list.More {
			return head.Next, nil
		}
	}
}

func (l *Log) cursorPath(id int64) string {
	return l.node(layout.RetainedCursorsDir, layout.RetainedNumber(id))
}

func (l *Log) cursor(ctx context.Context, s coord.Session, id int64) (cursor, error) {
	n, err := s.Get(ctx, l.cursorPath(id))
	if err != nil {
		return cursor{}, err
	}
	at := cursor{path: n.Path, fence: n.Fence}
	if json.Unmarshal(n.Value, &at) != nil || at.Next < 0 {
		return cursor{}, fmt.Errorf("%s holds %.40q, which is not a label's: %w", n.Path, n.Value, ErrInvalid)
	}
	return at, nil
}

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
		return all, fmt.Errorf("%s holds %.40q, which are not a log's labels: %w", n.Path, n.Value, ErrInvalid)
	}
	return all, nil
}

func (a logLabels) write(l *Log) coord.Op {
	if a.there {
		return coord.Set(l.node(layout.RetainedLabelsNode), a.Value(), a.fence)
	}
	return coord.Create(l.node(layout.RetainedLabelsNode), a.Value())
}

// LabelInfo is a label as somebody sees it.
type LabelInfo struct {
	Name   string
	Next   int64 // the number of the entry that it reads next
	Behind int64 // how many numbers were given since, of entries that are gone too
}

// Labels returns the log's labels by name.
func (l *Log) Labels(ctx context.Context) (infos []LabelInfo, err error) {
	err = l.base.handle.Bounded(ctx, func(ctx context.Context) error {
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
		return nil, fmt.Errorf("labels of %s: %w", l.base.handle.Root, err)
	}
	return infos, nil
}

// RemoveLabel removes a label, and says whether there was one. What was read for it can
// no longer be committed, and whoever reads for it again begins anew.
func (l *Log) RemoveLabel(ctx context.Context, name string) (removed bool, err error) {
	err = l.base.handle.Bounded(ctx, func(ctx context.Context) error {
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
				case !errors.Is(err, coord.ErrNotExist): // unless by hand, the commit will be refused
					return err
				}
				_, err = s.Commit(ctx, ops...)
				removed = removed || err == nil || errors.Is(err, ErrUnknown) // the next look tells
				return err
			})
			if !retry.IsRefused(err) {
				return err
			}
		}
	})
	if err != nil {
		return false, fmt.Errorf("remove label %q of %s: %w", name, l.base.handle.Root, err)
	}
	return removed, nil
}
