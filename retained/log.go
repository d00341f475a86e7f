package retained

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/lane"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Log is a handle to a log: entries that stay after they were read. Its methods may be
// called from several goroutines.
type Log struct {
	config Config
	handle *handle.Handle
	busy   handle.BusyLog // logs waits for a busy service
	lanes  *lane.Set      // make the commits that must be applied exactly once

	sem     chan struct{} // one-token lock of Append; guards the fields below
	head    logHead       // as the last append of this handle left it
	trimmed time.Time     // when an append last left nothing to remove
}

// Config says what the appends of a handle keep, and for how long. Other handles of the
// same log may have another.
type Config struct {
	// TTL is how long an entry can be read that this handle appends; 0 means for ever.
	// The time begins by the appender's clock and is judged by the reader's. A later
	// append, or [Log.Trim], removes the entry.
	TTL time.Duration

	// Keep is the number of entries above which an append removes the oldest; 0 means
	// that it removes none. There may be a few more for a while.
	Keep int

	// Warn is called once for each node among the entries that is not an entry; nil: it
	// is skipped in silence. See [zkq.Warn].
	Warn func(message string)

	// Logger gets a message when a call has waited for a second because the service is busy
	// or out of space, and another when it goes on. See [zkq.LogTo].
	Logger zkq.Logger

	// Producer sets the 16 lowercase hexadecimal digits that begin the handle's tokens.
	// Leave it empty outside tests: no two handles may share them. See [zkq.Producer].
	Producer string
}

// Entry is an entry of a log.
type Entry struct {
	Number  int64 // 0 for the first entry ever appended; each has one more than the one before
	Value   []byte
	Put     time.Time // by the appender's clock
	Expires time.Time // zero: never
}

// logHead is the node that every append writes, as it was read or written last.
type logHead struct {
	layout.RetainedHead

	fence coord.Fence
	there bool // the node exists
}

// NewLog returns a handle to the log of that name. It contacts no service and creates
// nothing. Every method of a handle whose name [zkq.CheckName] refuses returns that error.
func NewLog(c coord.Coordinator, name string, config Config) *Log {
	if c == nil {
		panic("retained: a log needs a coordinator")
	}
	l := &Log{config: config, sem: make(chan struct{}, 1)}
	root, err := zkq.CheckName(name)
	if err == nil {
		err = config.check(root)
	}
	l.busy.Queue = root
	if config.Logger != nil {
		l.busy.Logger = config.Logger
	}
	l.handle = handle.New(handle.Config{Coordinator: c, Root: root, Invalid: err, Warn: config.Warn, Observer: &l.busy})
	l.lanes = lane.NewSet(lane.Config{
		Series:      config.Producer,
		Coordinator: c,
		Session:     l.handle.Session,
		Backoff:     func() *retry.Backoff { return l.handle.Backoff(actLog) },
		Spawn:       func(f func(context.Context)) { l.handle.Spawn(func() { f(l.handle.Life) }) },
		Woke:        l.handle.Woke,
	})
	return l
}

// check returns an error for a field without an allowed value.
func (c Config) check(root string) error {
	switch {
	case c.Producer != "" && !layout.IsLane(layout.LaneName(c.Producer, 0)):
		return fmt.Errorf("producer %q: not 16 lowercase hexadecimal digits: %w", c.Producer, zkq.ErrInvalid)
	case c.TTL < 0 || c.Keep < 0:
		return fmt.Errorf("log %s: TTL %v, keep %d: allowed are 0 and more: %w", root, c.TTL, c.Keep, zkq.ErrInvalid)
	}
	return nil
}

// actLog names a log's requests in messages about a busy service.
const actLog = "use of the log"

// Name returns the log's name, with its leading slash.
func (l *Log) Name() string { return l.handle.Root }

// node returns the path of a node of the log.
func (l *Log) node(names ...string) string {
	return path.Join(append([]string{l.handle.Root, layout.RetainedDir}, names...)...)
}

// commitOnce commits the ops exactly once. Its error is a [*zkq.UnknownError], or nothing
// was changed.
func (l *Log) commitOnce(ctx context.Context, ops []coord.Op) (lane.Applied, error) {
	done, err := l.lanes.Commit(ctx, nil, ops, nil)
	if unknown := (*lane.UnknownError)(nil); errors.As(err, &unknown) {
		err = &zkq.UnknownError{Token: zkq.Token(unknown.Token), Err: unknown.Err}
	}
	return done, err
}

// node returns the name of the entry's node, which holds everything but the value.
func (e Entry) node() string {
	return layout.RetainedEntry{Number: e.Number, Put: e.Put, Expires: e.Expires}.Name()
}

// parseName returns the entry of a node of that name, without its value. ok is false if the node
// is no entry.
func parseName(name string) (e Entry, ok bool) {
	n, ok := layout.ParseRetained(name)
	return Entry{Number: n.Number, Put: n.Put, Expires: n.Expires}, ok
}

// expired reports whether the entry's time is over, by this process's clock.
func (e Entry) expired() bool { return !e.Expires.IsZero() && !time.Now().Before(e.Expires) }

// Append puts the values at the end of the log, all or none and next to each other, and
// returns the number of the first. They are appended once: when an answer is lost, Append
// asks for the outcome until ctx ends. If it is still unknown then, the error is a
// [*zkq.UnknownError], for [zkq.Resolve]. After any other error nothing was appended.
// [zkq.ErrTooLarge]: the values are more than one commit can take.
func (l *Log) Append(ctx context.Context, values ...[]byte) (first int64, err error) {
	err = l.handle.Bounded(ctx, func(ctx context.Context) error {
		if l.handle.Invalid != nil || len(values) == 0 {
			return l.handle.Invalid
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		select {
		case l.sem <- struct{}{}:
			defer func() { <-l.sem }()
		case <-ctx.Done():
			return ctx.Err()
		}
		first, err = l.append(ctx, values)
		if err == nil {
			l.trimIfDue(ctx)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("append to %s: %w", l.handle.Root, err)
	}
	return first, nil
}

// append is Append for the caller that has sem. It tries again while other appends take the
// numbers before it.
func (l *Log) append(ctx context.Context, values [][]byte) (int64, error) {
	for i, value := range values {
		if len(value) > zkq.MaxValue {
			return 0, fmt.Errorf("value %d of %d: %w", i+1, len(values),
				&coord.LimitError{What: "value", Unit: "bytes", Size: len(value), Limit: zkq.MaxValue})
		}
	}
	head := l.head
	for {
		var err error
		if !head.there { // as far as this handle knows
			if head, err = l.readHead(ctx); err != nil {
				return 0, err
			}
		}
		done, err := l.commitOnce(ctx, l.appendOps(head, values))
		switch {
		case err == nil:
			l.head = logHead{}
			if len(done.Results) > 0 {
				l.head = logHead{layout.RetainedHead{Next: head.Next + int64(len(values))}, done.Results[0].Fence, true}
			}
			return head.Next, nil
		case retry.RefusedOp(err) != 0:
			l.head = logHead{}
			return 0, err
		}
		head = logHead{} // another append was faster, and took the numbers
	}
}

// appendOps returns the ops of an append: one writes the head, which is refused if another append
// was faster, the others create the entries.
func (l *Log) appendOps(head logHead, values [][]byte) []coord.Op {
	next := layout.RetainedHead{Next: head.Next + int64(len(values))}.Value()
	ops := []coord.Op{coord.Create(l.node(layout.RetainedHeadNode), next)}
	if head.there {
		ops[0] = coord.Set(l.node(layout.RetainedHeadNode), next, head.fence)
	}
	e := Entry{Put: time.Now()}
	if l.config.TTL > 0 {
		e.Expires = e.Put.Add(l.config.TTL)
	}
	for i, value := range values {
		e.Number = head.Next + int64(i)
		// A copy: a commit without an answer may be sent again after Append has returned.
		ops = append(ops, coord.Create(l.node(layout.RetainedEntriesDir, e.node()), bytes.Clone(value)))
	}
	return ops
}

// readHead reads the head in a live session, and retries for as long as it can.
func (l *Log) readHead(ctx context.Context) (head logHead, err error) {
	err = l.patiently(ctx, func(s coord.Session) error {
		head, err = l.headIn(ctx, s)
		return err
	})
	return head, err
}

// headIn reads the head in the session s. The head of a log without appends is zero.
func (l *Log) headIn(ctx context.Context, s coord.Session) (logHead, error) {
	n, err := s.Get(ctx, l.node(layout.RetainedHeadNode))
	if errors.Is(err, coord.ErrNotExist) {
		return logHead{}, nil
	}
	if err != nil {
		return logHead{}, err
	}
	h := logHead{fence: n.Fence, there: true}
	if json.Unmarshal(n.Value, &h) != nil || h.Next < 0 || h.Next > layout.LastNumber {
		return logHead{}, fmt.Errorf("%s holds %.40q, which is not a log's: %w", n.Path, n.Value, zkq.ErrInvalid)
	}
	return h, nil
}

// patiently runs f in a live session. It runs f again in the next session, and when the
// service was busy, so f must be a function that can be run twice.
func (l *Log) patiently(ctx context.Context, f func(coord.Session) error) error {
	backoff := l.handle.Backoff(actLog)
	err, _ := backoff.Do(ctx, nil, func() (retry.Decision, error) {
		s, err := l.handle.Session(ctx)
		if err == nil {
			err = f(s)
		}
		return retry.Decide(err), err
	})
	if err != nil {
		return retry.WithDeadline(ctx, err)
	}
	backoff.Succeeded()
	return nil
}

// Len returns the number of entries. It counts expired entries that were not removed yet.
func (l *Log) Len(ctx context.Context) (n int, err error) {
	err = l.handle.Do(ctx, func(ctx context.Context, s coord.Session) error {
		n, err = s.Count(ctx, l.node(layout.RetainedEntriesDir))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", l.handle.Root, err)
	}
	return n, nil
}

// trimEvery is how often an append looks for entries to remove.
const trimEvery = time.Second

// trimIfDue removes some entries, if it is time. After an error, a later append tries again.
func (l *Log) trimIfDue(ctx context.Context) {
	if l.config.TTL == 0 && l.config.Keep == 0 || time.Since(l.trimmed) < trimEvery {
		return
	}
	if s, err := l.handle.Session(ctx); err == nil {
		if _, more, err := l.trimPage(ctx, s, l.isUnkept); err == nil && !more {
			l.trimmed = time.Now()
		}
	}
}

// isUnkept reports whether an entry is one to remove: it has expired, or is older than the last
// entries that the handle keeps. next is the number of the next append.
func (l *Log) isUnkept(e Entry, next int64) bool {
	return e.expired() || l.config.Keep > 0 && e.Number < next-int64(l.config.Keep)
}

// Trim removes the oldest entries as long as they have expired, or are more than this
// handle keeps ([Config]), and returns how many. Appends do so too: Trim makes room in a log
// to which no process appends. It does not change what readers get.
func (l *Log) Trim(ctx context.Context) (int, error) {
	n, err := l.trimAll(ctx, l.isUnkept)
	if err != nil {
		return n, fmt.Errorf("trim %s: %w", l.handle.Root, err)
	}
	return n, nil
}

// Truncate removes the entries whose numbers are less than before, and returns how many.
// Labels that had not read them go on behind them, and count them as missed ([Batch]).
func (l *Log) Truncate(ctx context.Context, before int64) (int, error) {
	n, err := l.trimAll(ctx, func(e Entry, _ int64) bool { return e.Number < before })
	if err != nil {
		return n, fmt.Errorf("truncate %s: %w", l.handle.Root, err)
	}
	return n, nil
}

// trimAll removes the oldest entries as long as goes says so, and returns how many.
func (l *Log) trimAll(ctx context.Context, goes func(Entry, int64) bool) (removed int, err error) {
	err = l.handle.Bounded(ctx, func(ctx context.Context) error {
		return l.patiently(ctx, func(s coord.Session) error {
			for {
				n, more, err := l.trimPage(ctx, s, goes)
				removed += n
				if err != nil || !more {
					return err
				}
			}
		})
	})
	return removed, err
}

// trimPage removes the oldest entries in one commit, as long as goes returns true. It stops at
// the first entry that stays. goes gets the entry and the number of the next append. more reports
// whether there may be more to remove.
func (l *Log) trimPage(ctx context.Context, s coord.Session, goes func(Entry, int64) bool) (n int, more bool, err error) {
	head, err := l.headIn(ctx, s)
	if err != nil {
		return 0, false, err
	}
	// Names that sort before all numbers are another client's, and are not listed.
	o := coord.ListOptions{After: "0", Limit: min(64, s.Limits().CommitOps), Values: true, Fresh: true}
	var ops []coord.Op
	for more = true; more && len(ops) == 0; {
		list, err := s.List(ctx, l.node(layout.RetainedEntriesDir), o)
		if err != nil {
			return 0, false, err
		}
		more = list.More
		for _, node := range list.Nodes {
			o.After = path.Base(node.Path)
			e, ok := parseName(o.After)
			if !ok {
				l.handle.WarnOnce(node.Path, "is not an entry of a log: skipped")
				continue
			}
			if !goes(e, head.Next) {
				more = false
				break
			}
			ops = append(ops, coord.Delete(node.Path, node.Fence))
		}
		if more && len(ops) == 0 {
			if o.After, more, err = l.skipForeign(ctx, s, o.After); err != nil {
				return 0, false, err
			}
		}
	}
	if len(ops) == 0 {
		return 0, false, nil
	}
	if _, err = s.Commit(ctx, ops...); err != nil {
		if retry.IsRefused(err) { // another process trims
			return 0, true, nil
		}
		return 0, false, err
	}
	return len(ops), more, nil
}

// skipForeign skips nodes that are no entries, of which there may be thousands. It returns the
// last of them that follows the name after; more reports whether an entry comes then.
func (l *Log) skipForeign(ctx context.Context, s coord.Session, after string) (before string, more bool, err error) {
	for page, err := range handle.Pages(ctx, s, l.node(layout.RetainedEntriesDir), coord.ListOptions{After: after, Limit: handle.NamesPage}) {
		if err != nil {
			return after, false, err
		}
		for _, node := range page {
			name := path.Base(node.Path)
			if _, ok := parseName(name); ok {
				return after, true, nil
			}
			after = name
		}
	}
	return after, false, nil
}

// Close ends waiting reads with [zkq.ErrClosed] and returns when the handle's goroutines
// have ended, or after a second. A second Close does nothing.
func (l *Log) Close() error {
	l.handle.End()
	ctx, cancel := context.WithTimeout(context.Background(), handle.CloseLimit)
	defer cancel()
	l.lanes.Close(ctx)
	l.handle.Wait(ctx)
	return nil
}
