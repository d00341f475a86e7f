package zkq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
	"github.com/zkq/zkq/internal/handle"
	"github.com/zkq/zkq/internal/lane"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/priority"
)

// putter puts values into a queue, each exactly once even if answers are lost: a put is one
// commit in a lane. The commit also keeps the queue's bounds and unique keys. The fields are
// the parts of the queue that a put may have to touch.
type putter struct {
	*handle.Handle
	dead     *deadLetters
	delayed  *delayedPuts
	expiry   *lifetimes
	inspect  *inspector
	keys     *keys
	lanes    lanes
	removal  *remover
	settings *settings
	shared   *group.Runner // commits that puts share where a bound is exact
}

// put puts one value and returns the name of its entry.
func (pt *putter) put(ctx context.Context, value []byte, opts []PutOption) (string, error) {
	names, err := pt.putAll(ctx, [][]byte{value}, opts)
	if err != nil {
		return "", err
	}
	return names[0], nil
}

// putAll puts the values in one commit, exactly once. It returns a name for each value. The
// names are empty where an answer was lost and the entries were taken before their names
// could be read.
func (pt *putter) putAll(ctx context.Context, values [][]byte, opts []PutOption) ([]string, error) {
	return pt.putValues(ctx, values, opts, false)
}

// putSome is putAll for as many of the first values as there is room for: [ErrFull] only
// if there is room for none.
func (pt *putter) putSome(ctx context.Context, values [][]byte, opts []PutOption) ([]string, error) {
	return pt.putValues(ctx, values, opts, true)
}

// putValues is putAll, or putSome with partial. Its errors name the queue.
func (pt *putter) putValues(ctx context.Context, values [][]byte, opts []PutOption, partial bool) ([]string, error) {
	if pt.Invalid != nil { // this error names the queue already
		return nil, pt.Invalid
	}
	o, err := newPut(opts)
	if err != nil {
		return nil, err
	}
	b, err := pt.newBatch(o, values)
	if err == nil && partial && o.token != nil {
		err = fmt.Errorf("a token for a put of which only some may be made: %w", ErrInvalid)
	}
	if err != nil {
		return nil, fmt.Errorf("put %s: %w", pt.Root, err)
	}
	b.partial = partial
	var names []string
	err = pt.Bounded(ctx, func(ctx context.Context) error {
		note := o.noteOf(batches{b})
		if err := checkNote(note); err != nil {
			return err
		}
		if err := pt.checkFits(ctx, note, b.sizeOps(), len(values)); err != nil || len(values) == 0 {
			return err
		}
		done, err := pt.apply(ctx, o, batches{b})
		if err != nil {
			return err
		}
		names = make([]string, b.n)
		b.names(ctx, done, 0, names)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("put %s: %w", pt.Root, err)
	}
	return names, nil
}

// names stores the names of the batch's entries in names. first is the index of its first
// result in the commit. Where the answer was lost there are no results, and the names are
// looked up.
func (b *batch) names(ctx context.Context, done lane.Applied, first int, names []string) {
	switch {
	case done.Results != nil:
		for i, r := range done.Results[first : first+len(names)] {
			names[i] = path.Base(r.Path)
		}
	case b.o.delay > 0 && b.o.token == nil:
		for i, op := range b.creates[:b.n] {
			names[i] = path.Base(op.Path)
		}
	case b.o.delay > 0:
		copy(names, b.p.delayed.namesOfToken(ctx, b.creates[:b.n]))
	default:
		copy(names, b.p.namesOf(ctx, done.Revision, b.creates[:b.n]))
	}
}

// namesOf returns the names of the entries that ops created at a revision, or nil if some
// of them are gone. The put is done, so a failed lookup is not an error. The commit may
// contain puts of other callers, which are told apart by their values. For an equal value it
// may return the name of such a put.
func (pt *putter) namesOf(ctx context.Context, revision int64, ops []coord.Op) []string {
	l, err := pt.ListPatiently(ctx, actPut, pt.Entries, coord.ListOptions{Born: revision, Values: true})
	if err != nil {
		return nil
	}
	return pt.namesAmong(l.Nodes, ops)
}

// namesAmong returns the names of the nodes that ops created, or nil if it does not find
// exactly those. The nodes are in the order in which the service named them.
func (pt *putter) namesAmong(nodes []coord.Node, ops []coord.Op) []string {
	ours := make(map[string]bool, len(ops))
	for _, op := range ops {
		ours[string(op.Value)] = true
	}
	var own []coord.Node
	for _, n := range nodes {
		if strings.HasPrefix(n.Path, ops[0].Path) && ours[string(n.Value)] {
			own = append(own, n)
		}
	}
	if len(own) != len(ops) {
		return nil
	}
	for i, n := range own {
		if !bytes.Equal(n.Value, ops[i].Value) {
			return nil
		}
	}
	return pt.EntryNames(own)
}

// checkFits returns an [ErrTooLarge] for a put of n entries that is too much for one commit.
// It returns one too for a value with which no later claim would fit a commit. Nothing has
// been sent by then.
func (pt *putter) checkFits(ctx context.Context, note []byte, ops []coord.Op, n int) error {
	var s coord.Session
	err := retry.AcrossSessions(func() (err error) {
		s, err = pt.Session(ctx)
		return err
	})
	if err != nil {
		return err
	}
	all := append([]coord.Op{coord.Set(lane.Path("0000000000000000-00"), layout.Marker{N: 1 << 62, Note: note}.Value(), 1)}, ops...)
	if err = coord.CheckOps(s.Limits(), all); err != nil {
		return inEntries(err, n)
	}
	return pt.checkClaimable(s, ops)
}

// inEntries turns an error about too many ops into one about too many entries, for a commit
// that puts n entries. The commit's other ops, for the lane, an exact bound and keys, make the
// limit smaller.
func inEntries(err error, n int) error {
	var limit *coord.LimitError
	if !errors.As(err, &limit) || limit.Unit != "ops" {
		return err
	}
	return &coord.LimitError{What: "batch", Unit: "entries", Size: n, Limit: limit.Limit - (limit.Size - n)}
}

// checkClaimable returns an [ErrTooLarge] for a value that would fit a put, but not the
// claim or the move to the dead: both send the value again, with more beside it. Such an
// entry could never be taken.
func (pt *putter) checkClaimable(s coord.Session, ops []coord.Op) error {
	if pt.Taken == "" {
		return nil
	}
	limits := s.Limits()
	wrapped := limits
	wrapped.ValueBytes -= deadHeaders
	wrapped.CommitBytes -= deadHeaders
	for _, op := range ops {
		if op.Kind == coord.KindCreate && !pt.delayed.isDelayedPut(path.Base(op.Path)) {
			continue // the node of a unique key, which no claim sends
		}
		name := priority.Prefix(priority.Max) + longestSequence
		claim := []coord.Op{
			coord.Touch(path.Join(pt.Entries, name), op.Value, 1),
			coord.CreateEphemeral(path.Join(pt.Taken, name), make([]byte, 32)),
		}
		var limit *coord.LimitError
		err := coord.CheckOps(limits, claim)
		if err == nil {
			err = coord.CheckOps(wrapped, pt.dead.moveToDeadOps(name, op.Value))
		}
		if errors.As(err, &limit) {
			over := limit.Size - limit.Limit
			return &coord.LimitError{What: "value", Unit: "bytes", Size: len(op.Value), Limit: len(op.Value) - over}
		}
	}
	return nil
}

// longestSequence is as long as any sequence that a coordinator appends.
const longestSequence = "0000000000000000000-0000000000000-00000000-000000"

// refusedKey finds out why a put was refused whose unique key was in use. It returns an
// [*ExistsError] that names the entry with the key, or nil if the key is free by now and the
// put can be made again. A key without an entry, and an entry that has expired, are removed
// on the way. Other processes may free the key or use it again in between.
func (pt *putter) refusedKey(ctx context.Context, key string) error {
	sum := path.Base(key)
	return pt.Do(ctx, func(ctx context.Context, s coord.Session) error {
		err, interrupted := pt.Backoff(actPut).Do(ctx, s.Done(), func() (retry.Decision, error) {
			n, err := pt.keys.keyNode(ctx, s, sum)
			if err != nil || n.Path == "" {
				return retry.Stop, err
			}
			name, err := pt.keys.findKeyOwner(ctx, s, n)
			var now coord.Node
			if err == nil && name == "" {
				now, err = pt.keys.keyNode(ctx, s, sum)
			}
			if err == nil && now.Revision == n.Revision && now.Path != "" {
				// A client that knows no keys, like kazoo, removed the entry and left its key.
				name, err = pt.keys.removeOrphan(ctx, s, now)
			}
			if err == nil && name != "" {
				var gone bool
				if gone, err = pt.dropExpired(ctx, name); err == nil && !gone {
					return retry.Stop, &ExistsError{name}
				}
				if gone {
					return retry.Stop, nil
				}
			}
			if err != nil && !retry.IsRefused(err) && !errors.Is(err, coord.ErrUnknown) && !errors.Is(err, coord.ErrBusy) {
				return retry.Stop, err
			}
			return retry.Later, err
		})
		if interrupted != nil {
			return retry.BusyUntil(interrupted, err)
		}
		return err
	})
}

// dropExpired removes the entry or delayed put of that name if it has expired and no process
// holds it. gone reports that it does not exist any more, whichever process removed it.
func (pt *putter) dropExpired(ctx context.Context, name string) (gone bool, err error) {
	e, err := pt.inspect.find(ctx, name)
	if err == nil && e.expired() {
		gone = true
		err = pt.removal.remove(ctx, name, false)
	}
	switch {
	case errors.Is(err, ErrNoEntry):
		return true, nil
	case errors.Is(err, ErrHeld):
		return false, nil
	}
	return gone, err
}

// batch is what one put writes to one queue. The ops that create its entries are made once;
// those that depend on the state of the queue are made anew for each attempt (extraOps).
// A commit may consist of several batches, even for the same queue. Then only the first of
// that queue counts entries against the bound.
type batch struct {
	p       *putter
	o       putOptions
	largest int        // size of the largest value, in bytes
	creates []coord.Op // one for each value
	partial bool       // where there is no room for all, put as many of the first as fit
	n       int        // how many of creates the commit makes
	removed int        // entries of this queue that the same commit removes
	others  int        // entries that other batches of the commit put into this queue
	counted bool       // another counts these entries: an earlier batch of the commit, or sendShared
	key     string     // path of the unique key's node; "" if the put has no key
	count   string     // path of the node that guards an exact bound
}

// newBatch returns the batch of a put. It copies the values: a commit without an answer may
// be sent again after the caller has its error and uses the slices for something else.
func (pt *putter) newBatch(o putOptions, values [][]byte) (*batch, error) {
	if pt.Invalid != nil {
		return nil, pt.Invalid
	}
	b := &batch{p: pt, o: o, count: path.Join(pt.Root, layout.CountNode)}
	if pt.Taken == "" && (o.delay > 0 || o.ttl > 0 || o.unique != nil || o.wait > 0) {
		return nil, fmt.Errorf("a plain queue has no delays, times to live, unique keys or bounds: %w", ErrInvalid)
	}
	h, err := o.headers()
	if err != nil {
		return nil, err
	}
	if o.unique != nil {
		if len(values) > 1 {
			return nil, fmt.Errorf("a unique key is for one entry, not for %d: %w", len(values), ErrInvalid)
		}
		b.key = pt.keys.uniquePath(h.Unique)
	}
	create, err := pt.creator(o)
	if err != nil {
		return nil, err
	}
	for i, value := range values {
		if len(value) > MaxValue {
			return nil, fmt.Errorf("value %d of %d: %w", i+1, len(values),
				&coord.LimitError{What: "value", Unit: "bytes", Size: len(value), Limit: MaxValue})
		}
		b.largest = max(b.largest, len(value))
		b.creates = append(b.creates, create(i, h.Seal(bytes.Clone(value))))
	}
	b.n = len(b.creates)
	return b, nil
}

// creator returns the function that makes the op for the i-th value: an entry, or a delayed
// put where the options have a delay. All values of a delayed put are due at the same time.
func (pt *putter) creator(o putOptions) (func(i int, value []byte) coord.Op, error) {
	if o.delay <= 0 {
		prefix := path.Join(pt.Entries, priority.Prefix(o.priority))
		return func(_ int, value []byte) coord.Op { return coord.CreateSequential(prefix, value) }, nil
	}
	due, err := dueIn(o.delay)
	if err != nil {
		return nil, err
	}
	id := pt.delayed.putID(o.token)
	return func(i int, value []byte) coord.Op { return pt.delayed.createOp(o, due, id, i, value) }, nil
}

// sizeOps returns the ops that the put has in any state of the queue, by which its size is
// checked.
func (b *batch) sizeOps() []coord.Op {
	ops := b.creates[:len(b.creates):len(b.creates)]
	if b.key != "" {
		ops = append(ops, coord.Create(b.key, b.o.unique))
	}
	return ops
}

// extraOps returns the ops that go with the creates, as the queue is now: for an exact bound
// and for a unique key. It sets n to the number of entries that there is room for. [ErrFull]:
// too little room. [ErrTooLarge]: a value exceeds the queue's limit.
func (b *batch) extraOps(ctx context.Context) ([]coord.Op, error) {
	p := b.p
	s, err := p.Session(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.checkSize(ctx, s, b.largest); err != nil {
		return nil, err
	}
	var ops []coord.Op
	if !b.counted {
		var n int
		n, ops, err = p.roomFor(ctx, s, demand{entries: len(b.creates) + b.others, removed: b.removed, partial: b.partial})
		b.n = n - b.others
	}
	if err == nil && b.o.ttl > 0 {
		err = p.expiry.markExpiring(ctx, s)
	}
	if b.key != "" {
		ops = append(ops, coord.Create(b.key, b.o.unique))
	}
	return ops, err
}

// batches are the puts of one commit, into one queue or several.
type batches []*batch

// ops returns the ops of the commit. Those that create entries come first, in the order of
// the batches, so that their results do too.
func (bs batches) ops(ctx context.Context) ([]coord.Op, error) {
	var extra []coord.Op
	for _, b := range bs {
		ops, err := b.extraOps(ctx)
		if err != nil {
			return nil, err
		}
		extra = append(extra, ops...)
	}
	var ops []coord.Op
	for _, b := range bs {
		ops = append(ops, b.creates[:b.n]...)
	}
	return append(ops, extra...), nil
}

// entries returns how many entries the commit creates.
func (bs batches) entries() int {
	n := 0
	for _, b := range bs {
		n += b.n
	}
	return n
}

// decide returns how a put goes on that failed with err, and the error of the put if it stops.
// Where an exact bound's count has moved on, it goes on a little later.
func (bs batches) decide(ctx context.Context, err error) (retry.Decision, error) {
	var r *coord.Refusal
	if retry.IsBusy(err) {
		return retry.Later, err
	}
	if !errors.Is(err, coord.ErrUnknown) && errors.As(err, &r) {
		for _, b := range bs {
			switch r.Op.Path {
			case b.count: // another process has put since the configuration was read
				b.p.settings.expire()
				return retry.Later, err
			case b.key:
				return decideAfterWait(ctx, b.p.refusedKey(ctx, b.key))
			}
		}
	}
	return decideAfterWait(ctx, inEntries(err, bs.entries()))
}

// decideAfterWait returns how a put goes on after a wait for what was in its way, which ended
// with err: at once if there was no error, or if only the session ended.
func decideAfterWait(ctx context.Context, err error) (retry.Decision, error) {
	switch {
	case err == nil:
		return retry.Now, nil
	case !retry.NothingSent(err):
		return retry.Stop, err
	case ctx.Err() != nil:
		return retry.Stop, ctx.Err()
	}
	return retry.Now, err
}

// apply puts the batches in one commit, exactly once. It sends the commit again while the
// service is busy or the state of a queue has changed, and waits for room if o asks for that.
// After an error other than [ErrUnknown] nothing was changed.
func (pt *putter) apply(ctx context.Context, o putOptions, bs batches) (lane.Applied, error) {
	w := waitRoom{until: o.until()}
	defer w.close()
	var done lane.Applied
	err, interrupted := pt.Backoff(actPut).Do(ctx, nil, func() (retry.Decision, error) {
		var err error
		done, err = pt.attempt(ctx, o, bs)
		switch {
		case err == nil:
			return retry.Stop, nil
		case errors.Is(err, ErrFull) && o.wait > 0:
			full := (*fullError)(nil)
			errors.As(err, &full)
			return decideAfterWait(ctx, w.waitForRoom(ctx, full.puts, err))
		}
		return bs.decide(ctx, err)
	})
	switch {
	case interrupted != nil:
		return lane.Applied{}, retry.BusyUntil(interrupted, err)
	case err != nil:
		return lane.Applied{}, err
	}
	return done, nil
}

// attempt makes one attempt at a put.
func (pt *putter) attempt(ctx context.Context, o putOptions, bs batches) (lane.Applied, error) {
	send, err := pt.senderFor(ctx, bs)
	if err != nil {
		return lane.Applied{}, err
	}
	if len(bs) == 1 {
		bs[0].counted = send != nil
	}
	if o.token != nil {
		return pt.lanes.commitOnceAs(ctx, *o.token, o.noteOf(bs), bs.ops, send)
	}
	ops, err := bs.ops(ctx)
	if err != nil {
		return lane.Applied{}, err
	}
	return pt.lanes.commitOnce(ctx, o.noteOf(bs), ops, send)
}

// noteOf returns the note to keep with the put's outcome. The function of a partial put's
// note is told how many entries there was room for.
func (o putOptions) noteOf(bs batches) []byte {
	if o.noteFor == nil {
		return o.note
	}
	return o.noteFor(bs.entries())
}
