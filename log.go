package zkq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/lane"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Log keeps entries after they were read: any number of labels go through all of
// them, each at its own pace ([Log.Label]). An entry goes when its time is over, when
// there are more behind it than are to be kept, or by [Log.Truncate]. It has one
// priority, and nothing in it is locked: to share work among workers, use a
// [LockingQueue]. A log and a locking queue may have the same name.
//
// Every append numbers its entries by a node that all appends write, so the numbers
// are in the order of commits on every service, without a gap, and an append that was
// slow on its way can never come to stand behind a label that has passed. The price is
// that appends follow one another: one commit is under way at a time, of all processes.
// Append many values at once.
//
// Its methods may be called from several goroutines.
type Log struct {
	base   *base // not embedded: its methods are those of a queue
	config LogConfig
	turn   chan struct{} // holds one while somebody appends

	head    logHead // as the last append of this handle left it
	trimmed time.Time
}

// LogConfig says what this handle's appends keep, and for how long. Others may do it in another way.
type LogConfig struct {
	// TTL is how long an entry can be read that this handle appends, by its clock,
	// and judged by the reader's; 0 means for ever. It is never handed out later, and
	// removed by a later append, or by [Log.Trim].
	TTL time.Duration

	// Keep has an append remove the oldest entries when there are more than so many;
	// 0 means that none are. There may be a few more for a while.
	Keep int
}

// LogEntry is an entry of a log.
type LogEntry struct {
	Number  int64 // 0 for the first that was ever appended; each has one more than the one before
	Value   []byte
	Put     time.Time // by the appender's clock
	Expires time.Time // zero: never
}

// logHead is the node that every append writes.
type logHead struct {
	layout.RetainedHead

	fence coord.Fence
	there bool
}

// NewLog returns a handle to the log of that name. Nothing is contacted or created;
// a name that [CheckName] refuses is reported by every method.
func NewLog(c coord.Coordinator, name string, config LogConfig, opts ...Option) *Log {
	l := &Log{base: newBase(c, name, false, opts), config: config, turn: make(chan struct{}, 1)}
	if l.base.handle.Invalid == nil && (config.TTL < 0 || config.Keep < 0) {
		l.base.handle.Invalid = fmt.Errorf("log %s: TTL %v, keep %d: allowed are 0 and more: %w", l.base.handle.Root, config.TTL, config.Keep, ErrInvalid)
	}
	return l
}

// Name is the log's name with its leading slash.
func (l *Log) Name() string { return l.base.handle.Root }

func (l *Log) node(names ...string) string {
	return path.Join(append([]string{l.base.handle.Root, layout.RetainedDir}, names...)...)
}

func (e LogEntry) node() string {
	return layout.RetainedEntry{Number: e.Number, Put: e.Put, Expires: e.Expires}.Name()
}

// parseLogName is the entry of a node of that name, without its value.
func parseLogName(name string) (e LogEntry, ok bool) {
	n, ok := layout.ParseRetained(name)
	return LogEntry{Number: n.Number, Put: n.Put, Expires: n.Expires}, ok
}

func (e LogEntry) expired() bool { return !e.Expires.IsZero() && !time.Now().Before(e.Expires) }

// Append puts the values at the end of the log, all or none, next to each other, and
// returns the number of the first. A lost answer is asked for until ctx ends, and they
// are appended once; when there is none in time the error is an [*UnknownError], for
// [Resolve]. After any other error nothing was appended. More than one commit can take
// is [ErrTooLarge].
func (l *Log) Append(ctx context.Context, values ...[]byte) (first int64, err error) {
	err = l.base.handle.Bounded(ctx, func(ctx context.Context) error {
		if l.base.handle.Invalid != nil || len(values) == 0 {
			return l.base.handle.Invalid
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		select {
		case l.turn <- struct{}{}:
			defer func() { <-l.turn }()
		case <-ctx.Done():
			return ctx.Err()
		}
		first, err = l.append(ctx, values)
		if err == nil {
			l.trimNowAndThen(ctx)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("append to %s: %w", l.base.handle.Root, err)
	}
	return first, nil
}

func (l *Log) append(ctx context.Context, values [][]byte) (int64, error) {
	for i, value := range values {
		if len(value) > MaxValue {
			return 0, fmt.Errorf("value %d of %d: %w", i+1, len(values),
				&coord.LimitError{What: "value", Unit: "bytes", Size: len(value), Limit: MaxValue})
		}
	}
	head := l.head
	for {
		var err error
		if !head.there { // it may be: look
			if head, err = l.readHead(ctx); err != nil {
				return 0, err
			}
		}
		done, err := l.base.lanes.once(ctx, nil, l.appendOps(head, values))
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
		head = logHead{} // another was faster, and numbered his first
	}
}

func (l *Log) appendOps(head logHead, values [][]byte) []coord.Op {
	next := layout.RetainedHead{Next: head.Next + int64(len(values))}.Value()
	ops := []coord.Op{coord.Create(l.node(layout.RetainedHeadNode), next)}
	if head.there {
		ops[0] = coord.Set(l.node(layout.RetainedHeadNode), next, head.fence)
	}
	e := LogEntry{Put: time.Now()}
	if l.config.TTL > 0 {
		e.Expires = e.Put.Add(l.config.TTL)
	}
	for i, value := range values {
		e.Number = head.Next + int64(i)
		// A copy: a commit that got no answer may be sent when the caller has gone on.
		ops = append(ops, coord.Create(l.node(layout.RetainedEntriesDir, e.node()), bytes.Clone(value)))
	}
	return ops
}

// readHead reads where the log has come to.
func (l *Log) readHead(ctx context.Context) (head logHead, err error) {
	err = l.patiently(ctx, func(s coord.Session) error {
		head, err = l.headIn(ctx, s)
		return err
	})
	return head, err
}

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
		return logHead{}, fmt.Errorf("%s holds %.40q, which is not a log's: %w", n.Path, n.Value, ErrInvalid)
	}
	return h, nil
}

// patiently runs f in a live session, again in the next one, and again when the
// service was busy. f must be one that can be run again.
func (l *Log) patiently(ctx context.Context, f func(coord.Session) error) error {
	for backoff := l.base.handle.Backoff(actLog); ; {
		s, err := l.base.handle.Session(ctx)
		if err == nil {
			err = f(s)
		}
		if err == nil {
			backoff.Succeeded()
			return nil
		}
		if !lane.Again(ctx, err, backoff) {
			return retry.WithDeadline(ctx, err)
		}
	}
}

// Len returns the number of entries, expired ones that were not removed yet included.
func (l *Log) Len(ctx context.Context) (n int, err error) {
	err = l.base.handle.Do(ctx, func(ctx context.Context, s coord.Session) error {
		n, err = s.Count(ctx, l.node(layout.RetainedEntriesDir))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", l.base.handle.Root, err)
	}
	return n, nil
}

// trimEvery is how often an append looks for what is to go.
const trimEvery = time.Second

// trimNowAndThen trims a little, if it is time. What goes wrong is left for the next.
func (l *Log) trimNowAndThen(ctx context.Context) {
	if l.config.TTL == 0 && l.config.Keep == 0 || time.Since(l.trimmed) < trimEvery {
		return
	}
	if s, err := l.base.handle.Session(ctx); err == nil {
		if _, more, err := l.trimPage(ctx, s, l.unkept); err == nil && !more {
			l.trimmed = time.Now()
		}
	}
}

// unkept says whether an entry is to go, when the log has come to next.
func (l *Log) unkept(e LogEntry, next int64) bool {
	return e.expired() || l.config.Keep > 0 && e.Number < next-int64(l.config.Keep)
}

// Trim removes the oldest entries as long as they have expired, or are more than
// [LogConfig] has this handle keep, and says how many. What is read does not depend on
// it; it makes room where nobody appends.
func (l *Log) Trim(ctx context.Context) (int, error) {
	n, err := l.trimAll(ctx, l.unkept)
	if err != nil {
		return n, fmt.Errorf("trim %s: %w", l.base.handle.Root, err)
	}
	return n, nil
}

// Truncate removes the entries whose numbers are less than before, and says how many.
// Labels that had not read them go on behind them: see [Batch.Missed].
func (l *Log) Truncate(ctx context.Context, before int64) (int, error) {
	n, err := l.trimAll(ctx, func(e LogEntry, _ int64) bool { return e.Number < before })
	if err != nil {
		return n, fmt.Errorf("truncate %s: %w", l.base.handle.Root, err)
	}
	return n, nil
}

func (l *Log) trimAll(ctx context.Context, goes func(LogEntry, int64) bool) (removed int, err error) {
	err = l.base.handle.Bounded(ctx, func(ctx context.Context) error {
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

// trimPage removes entries from the beginning on, in one commit, up to the first that
// stays; more says that there may be more of them.
func (l *Log) trimPage(ctx context.Context, s coord.Session, goes func(LogEntry, int64) bool) (n int, more bool, err error) {
	head, err := l.headIn(ctx, s)
	if err != nil {
		return 0, false, err
	}
	// What is not ours and sorts before our numbers is not looked at.
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
			e, ok := parseLogName(o.After)
			if !ok {
				l.base.handle.WarnOnce(node.Path, "is not an entry of a log: skipped")
				continue
			}
			if !goes(e, head.Next) {
				more = false
				break
			}
			ops = append(ops, coord.Delete(node.Path, node.Fence))
		}
		if more && len(ops) == 0 {
			if o.After, more, err = l.foreign(ctx, s, o.After); err != nil {
				return 0, false, err
			}
		}
	}
	if len(ops) == 0 {
		return 0, false, nil
	}
	if _, err = s.Commit(ctx, ops...); err != nil {
		if retry.IsRefused(err) { // somebody else trims
			return 0, true, nil
		}
		return 0, false, err
	}
	return len(ops), more, nil
}

// foreign is the last name before the next entry behind a name; more says that there is one.
func (l *Log) foreign(ctx context.Context, s coord.Session, after string) (before string, more bool, err error) {
	for {
		list, err := s.List(ctx, l.node(layout.RetainedEntriesDir), coord.ListOptions{After: after, Limit: namesPage})
		if err != nil {
			return after, false, err
		}
		for _, node := range list.Nodes {
			name := path.Base(node.Path)
			if _, ok := parseLogName(name); ok {
				return after, true, nil
			}
			after = name
		}
		if !list.More {
			return after, false, nil
		}
	}
}

// Close ends waiting reads with [ErrClosed] and returns when the handle's goroutines
// have ended. A second Close does nothing.
func (l *Log) Close() error {
	l.base.handle.End()
	l.base.close()
	return nil
}
