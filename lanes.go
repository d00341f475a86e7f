package zkq

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// A lane is a line of commits that follow one another, and a node that counts
// them. A commit that may be applied once only carries a write of that node at
// the fence which the one before it left: so it can be sent again and again until
// there is an answer, and afterwards the node tells whether it was applied. Lanes
// serve the queues of both layouts.

// lane is a lane of this handle, or of a token. It has one commit at a time.
type lane struct {
	name  string
	n     uint64      // of the last commit that was decided
	fence coord.Fence // of the node
	wrote time.Time   // the node was last written then, or later
}

// at is where the lane stands after a write of its node that began then.
func (l *lane) at(n uint64, f coord.Fence, began time.Time) {
	// Without the clock that stands still while the machine sleeps.
	l.n, l.fence, l.wrote = n, f, began.Round(0)
}

// restLane is how long a lane may have been idle when it is used again. It may be
// swept a day after it was last written, and with it what tells of a put that was
// asked for since then and never arrived.
const restLane = 30 * time.Minute

func (l *lane) path() string { return path.Join(layout.ProducersDir, l.name) }

// lanes are those of a handle that no put uses right now: as many as there were puts at
// once, and at most mostLanes.
type lanes struct {
	*handle

	mu     sync.Mutex
	series string // names them, and changes after a hundred
	used   int
	ids    int
	idle   []*lane
	sweep  time.Time // when this handle looks for abandoned ones again

	sem chan struct{} // holds one for each lane that is in use
}

// mostLanes bounds the lanes of a handle, and so its puts that are under way at a time:
// others wait for one of these. Each lane is a node for the life of the handle. Of 5,000 puts
// at once, 128 lanes made twice as many a second as a lane for each, on ZooKeeper and etcd;
// with 32 or fewer they were slower than with 128.
const mostLanes = 128

// newLanes are those of a handle; series "" has them make up a name of their own.
func newLanes(h *handle, series string) *lanes {
	ls := &lanes{handle: h, series: series}
	ls.sem = make(chan struct{}, mostLanes)
	return ls
}

// take returns the lane that was used last, or nil.
func (ls *lanes) take() *lane {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if len(ls.idle) == 0 {
		return nil
	}
	l := ls.idle[len(ls.idle)-1]
	ls.idle = ls.idle[:len(ls.idle)-1]
	return l
}

func (ls *lanes) give(l *lane) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.idle = append(ls.idle, l)
}

// next is a name that no lane has had.
func (ls *lanes) next() string {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.begin(); ls.used == 100 {
		next := sha256.Sum256([]byte(ls.series))
		ls.series, ls.used = hex.EncodeToString(next[:8]), 0
	}
	ls.used++
	return layout.LaneName(ls.series, ls.used-1)
}

// id is a text that no two calls return, of any handle.
func (ls *lanes) id() string {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.ids++
	return fmt.Sprintf("%s %d", ls.begin(), ls.ids)
}

// begin is the series.
func (ls *lanes) begin() string {
	if ls.series == "" {
		var b [8]byte
		rand.Read(b[:]) // never fails
		ls.series = hex.EncodeToString(b[:])
	}
	return ls.series
}

// due says that it is time to look for abandoned lanes: after an hour of a handle's
// life, and then every day.
func (ls *lanes) due() bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	now := time.Now()
	switch {
	case ls.sweep.IsZero():
		ls.sweep = now.Add(time.Hour)
	case now.After(ls.sweep):
		ls.sweep = now.Add(keepLanes)
		return true
	}
	return false
}

// UnknownError is an [ErrUnknown] of a put, or of a simple queue's get: no answer
// came while there was time. [Resolve] tells what became of it.
type UnknownError struct {
	Token Token
	Err   error
}

func (e *UnknownError) Error() string {
	if errors.Is(e.Err, ErrUnknown) {
		return fmt.Sprintf("%v (token %s)", e.Err, e.Token)
	}
	return fmt.Sprintf("%v (token %s): %v", ErrUnknown, e.Token, e.Err)
}

// Unwrap makes it [ErrUnknown], and what its cause is.
func (e *UnknownError) Unwrap() []error { return []error{ErrUnknown, e.Err} }

// applied is a commit that was applied once.
type applied struct {
	results  []coord.Result // of its ops; nil when the answer was lost
	revision int64
}

// errLaneGone says that a lane cannot be used any more and that nothing was
// committed in it.
var errLaneGone = errors.New("lane is gone")

// once commits the ops exactly once, in whichever lane is idle. Its errors: an
// [*UnknownError], or nothing was changed.
func (ls *lanes) once(ctx context.Context, note []byte, ops []coord.Op) (applied, error) {
	ls.sweepLanes()
	if err := ls.enterLane(ctx); err != nil {
		return applied{}, err
	}
	defer func() { <-ls.sem }()
	for {
		l := ls.take()
		switch {
		case l == nil:
			var err error
			if l, err = ls.openLane(ctx); err != nil {
				return applied{}, err
			}
		case time.Since(l.wrote) > restLane && !ls.freshen(ctx, l):
			continue
		}
		done, err := ls.commitIn(ctx, l, note, ops)
		if errors.Is(err, errLaneGone) {
			continue
		}
		// A lane with a commit in doubt takes no other: it is left for Resolve.
		if unknown := (*UnknownError)(nil); !errors.As(err, &unknown) {
			ls.give(l)
		}
		return done, err
	}
}

// enterLane waits until fewer than mostLanes are in use.
func (ls *lanes) enterLane(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case ls.sem <- struct{}{}:
		return nil
	default:
	}
	entered := false
	select {
	case ls.sem <- struct{}{}:
		entered = true
	case <-ctx.Done():
	}
	ls.woke(ctx)
	err := ctx.Err()
	if entered && err != nil {
		<-ls.sem
	}
	return err
}

// sweepLanes removes abandoned lanes behind the caller, if it is time.
func (ls *lanes) sweepLanes() {
	if ls.due() {
		ls.spawn(func() { _ = Sweep(ls.life, ls.coordinator) }) // or another does
	}
}

// freshen writes a lane that was idle, so that it is kept as long as what is told
// of the next commit. One that could not be written is left to be swept.
func (ls *lanes) freshen(ctx context.Context, l *lane) bool {
	began := time.Now()
	s, err := ls.session(ctx)
	if err != nil {
		return false
	}
	rs, err := s.Commit(ctx, coord.Set(l.path(), layout.Marker{N: l.n}.Value(), l.fence))
	if err != nil {
		return false
	}
	l.at(l.n, rs[0].Fence, began)
	return true
}

// onceAs commits the ops exactly once in the lane of a token.
// What they are is asked just before.
func (ls *lanes) onceAs(ctx context.Context, t Token, note []byte, build func(context.Context) ([]coord.Op, error)) (applied, error) {
	name, n, err := t.parse()
	if err != nil {
		return applied{}, err
	}
	ls.sweepLanes()
	l := &lane{name: name, n: n - 1}
	for backoff := ls.backoff(actPut); ; {
		var node coord.Node
		var m layout.Marker
		s, err := ls.session(ctx)
		if err == nil {
			node, m, err = readMarker(ctx, s, l.path())
		}
		switch {
		case err != nil:
			if !ls.again(ctx, err, backoff) {
				return applied{}, err
			}
			continue
		case m.N == n && m.Void:
			return applied{}, fmt.Errorf("token %s: %w", t, ErrTokenVoid)
		case m.N == n:
			return applied{revision: node.Revision}, nil
		case m.N > n:
			return applied{}, fmt.Errorf("token %s: its producer has put again since, and is at number %d: %w", t, m.N, ErrTokenExpired)
		case m.N+1 < n:
			return applied{}, fmt.Errorf("token %s: its producer has only come to number %d: %w", t, m.N, ErrInvalid)
		}
		l.fence = node.Fence
		ops, err := build(ctx)
		if err != nil {
			return applied{}, err
		}
		if done, err := ls.commitIn(ctx, l, note, ops); !errors.Is(err, errLaneGone) {
			return done, err
		}
	}
}

// openLane makes a lane. It stands before it is used, so that every token that is
// ever handed out can be resolved by others.
func (ls *lanes) openLane(ctx context.Context) (*lane, error) {
	began := time.Now()
	for backoff := ls.backoff(actPut); ; {
		// A new name each time: an attempt without an answer may still be under way,
		// and no name is created twice.
		l := &lane{name: ls.next()}
		s, err := ls.session(ctx)
		if err == nil {
			var rs []coord.Result
			if rs, err = s.Commit(ctx, coord.Create(l.path(), layout.Marker{}.Value())); err == nil {
				l.at(0, rs[0].Fence, began)
				backoff.Succeeded()
				return l, nil
			}
		}
		if !errors.Is(err, coord.ErrExist) && !ls.again(ctx, err, backoff) {
			return nil, fmt.Errorf("open a lane: %w", retry.WithDeadline(ctx, retry.NotApplied(ctx, err)))
		}
	}
}

// commitIn commits the ops as the lane's next, again and again until it is known
// what became of them.
func (ls *lanes) commitIn(ctx context.Context, l *lane, note []byte, ops []coord.Op) (applied, error) {
	next := layout.Marker{N: l.n + 1, Note: note}
	all := append([]coord.Op{coord.Set(l.path(), next.Value(), l.fence)}, ops...)
	doubt, began := false, time.Now() // in doubt: an attempt was not answered
	for backoff := ls.backoff(actPut); ; {
		s, err := ls.session(ctx)
		if err == nil {
			var rs []coord.Result
			if rs, err = s.Commit(ctx, all...); err == nil {
				l.at(next.N, rs[0].Fence, began)
				backoff.Succeeded()
				return applied{rs[1:], rs[0].Revision}, nil
			}
			if retry.RefusedOp(err) == 0 {
				var done applied
				if done, err = ls.settled(ctx, s, l, next.N, doubt, began); err == nil || errors.Is(err, errLaneGone) {
					return done, err
				}
			}
		}
		switch {
		case errors.Is(err, coord.ErrUnknown):
			doubt = true
		case retry.RefusedOp(err) > 0 && doubt && errors.Is(err, coord.ErrExist):
			// What is there may go before an attempt that is still under way
			// arrives: the lane moves on, so that it never can be applied.
			refusal := shifted(err)
			var rs []coord.Result
			if rs, err = s.Commit(ctx, coord.Set(l.path(), layout.Marker{N: next.N, Void: true}.Value(), l.fence)); err == nil {
				l.at(next.N, rs[0].Fence, began)
				return applied{}, refusal
			}
			if retry.IsRefused(err) {
				continue // and hear what the lane says
			}
		case retry.RefusedOp(err) > 0:
			// What stood in the way stays: an attempt that is still under way will
			// be refused for it too.
			return applied{}, shifted(err)
		}
		if !ls.again(ctx, err, backoff) {
			if doubt {
				return applied{}, &UnknownError{token(l.name, next.N), retry.WithDeadline(ctx, err)}
			}
			return applied{}, shifted(err)
		}
	}
}

// settled reads what a lane says after it refused its next commit, because of an
// earlier attempt at it or because somebody else has written to the lane.
func (ls *lanes) settled(ctx context.Context, s coord.Session, l *lane, n uint64, doubt bool, began time.Time) (applied, error) {
	node, err := s.Get(ctx, l.path())
	if errors.Is(err, coord.ErrNotExist) {
		if doubt {
			return applied{}, fmt.Errorf("lane %s: %w", l.name, ErrTokenExpired)
		}
		return applied{}, errLaneGone
	}
	if err != nil {
		return applied{}, err
	}
	m, ok := layout.ParseMarker(node.Value)
	switch {
	case !doubt:
		return applied{}, errLaneGone
	case !ok || m.N != n:
		return applied{}, fmt.Errorf("lane %s says %.40q: %w", l.name, node.Value, ErrTokenExpired)
	case m.Void:
		return applied{}, errLaneGone
	}
	l.at(n, node.Fence, began)
	return applied{revision: node.Revision}, nil
}

// again says whether a commit that failed with err is to be tried again, and
// waits a little before.
func (h *handle) again(ctx context.Context, err error, backoff *retry.Backoff) bool {
	switch {
	case errors.Is(err, ErrClosed), errors.Is(err, coord.ErrClosed), errors.Is(err, ErrTokenExpired):
		return false
	case retry.NothingSent(err):
		return ctx.Err() == nil
	}
	return (errors.Is(err, coord.ErrUnknown) || errors.Is(err, coord.ErrBusy)) && backoff.Wait(ctx, nil, err) == nil
}

// shifted is an error of a commit in a lane with the index that the op has without
// the lane's.
func shifted(err error) error {
	var r *coord.Refusal
	if !errors.As(err, &r) || r.Index == 0 {
		return err
	}
	return &coord.Refusal{Index: r.Index - 1, Op: r.Op, Err: r.Err}
}

// closeLanes removes the lanes that are idle. One that is in doubt stays for a
// day.
func (ls *lanes) closeLanes(ctx context.Context) {
	ls.mu.Lock()
	idle := ls.idle
	ls.idle = nil
	ls.mu.Unlock()
	if len(idle) == 0 {
		return
	}
	s, err := ls.coordinator.Session(ctx)
	for err == nil && len(idle) > 0 {
		some := min(len(idle), s.Limits().CommitOps)
		ops := make([]coord.Op, some)
		for i, l := range idle[:some] {
			ops[i] = coord.Delete(l.path(), l.fence)
		}
		if _, err = s.Commit(ctx, ops...); err == nil {
			idle = idle[some:]
		} else if i := retry.RefusedOp(err); i >= 0 {
			idle, err = slices.Delete(idle, i, i+1), nil // swept already
		}
	}
}
