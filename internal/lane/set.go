package lane

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// Config is what a set of lanes needs to know of its handle.
type Config struct {
	// Series begins the names of the lanes: 16 hexadecimal digits. With "" they are random.
	Series string

	Coordinator coord.Coordinator

	// Session returns a live session in which the handle may work.
	Session func(context.Context) (coord.Session, error)

	// Backoff returns the back-off for one commit.
	Backoff func() *retry.Backoff

	// Spawn runs f in the background, with a context that ends with the handle.
	Spawn func(f func(context.Context))

	// Woke is called by a goroutine that waited for another one of the handle, before it
	// goes on.
	Woke func(context.Context)
}

// Set is the lanes of one handle. It has as many as there were commits at once, at most
// mostLanes. A commit uses a lane that is idle.
type Set struct {
	config Config

	// sem has a token for each lane in use.
	sem chan struct{}

	mu        sync.Mutex
	series    string // changes after a hundred lanes
	named     int    // lanes of the series so far
	ids       int    // given out by ID so far
	idle      []*lane
	nextSweep time.Time // when this handle looks for abandoned lanes again
}

// mostLanes bounds the lanes of a handle, and so its commits that are under way at a time:
// further ones wait. Each lane is a node for the life of the handle. Of 5,000 puts at once,
// 128 lanes made twice as many a second as a lane for each, on ZooKeeper and etcd; with 32
// or fewer they were slower than with 128.
const mostLanes = 128

const (
	// maxIdle is how long a lane may have been idle when it is used again without a write
	// first. Sweep counts a lane's age from its last write. So without this limit it could
	// remove the lane, and the outcome of its next commit, too soon after that commit.
	maxIdle = 30 * time.Minute

	// keep is the age at which Sweep removes a lane that no handle uses. It is a day, for
	// which outcomes are promised, and the time between the last write and the commit.
	keep = 24*time.Hour + 2*maxIdle
)

// NewSet returns the lanes of a handle. Nothing is sent.
func NewSet(c Config) *Set {
	return &Set{config: c, series: c.Series, sem: make(chan struct{}, mostLanes)}
}

// ID returns a text that no other call returns, of any handle.
func (s *Set) ID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids++
	return fmt.Sprintf("%s %d", s.seriesLocked(), s.ids)
}

// seriesLocked returns the series. It chooses a random one if there is none yet.
func (s *Set) seriesLocked() string {
	if s.series == "" {
		var b [8]byte
		rand.Read(b[:]) // never fails
		s.series = hex.EncodeToString(b[:])
	}
	return s.series
}

// newName returns a name that no lane has had.
func (s *Set) newName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seriesLocked(); s.named == 100 {
		next := sha256.Sum256([]byte(s.series))
		s.series, s.named = hex.EncodeToString(next[:8]), 0
	}
	s.named++
	return layout.LaneName(s.series, s.named-1)
}

// takeIdle returns the lane that was used last, or nil if none is idle.
func (s *Set) takeIdle() *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) == 0 {
		return nil
	}
	l := s.idle[len(s.idle)-1]
	s.idle = s.idle[:len(s.idle)-1]
	return l
}

// putBack makes a lane idle again: the outcome of its last commit is known.
func (s *Set) putBack(l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, l)
}

// sweepIfDue removes abandoned lanes in the background: after an hour of a handle's life,
// and then every day.
func (s *Set) sweepIfDue() {
	s.mu.Lock()
	now := time.Now()
	isDue := false
	switch {
	case s.nextSweep.IsZero():
		s.nextSweep = now.Add(time.Hour)
	case now.After(s.nextSweep):
		s.nextSweep = now.Add(keep)
		isDue = true
	}
	s.mu.Unlock()
	if isDue {
		s.config.Spawn(func(ctx context.Context) { _ = Sweep(ctx, s.config.Coordinator) }) // or another handle does
	}
}

// Open makes a lane for one commit, and returns the token of that commit. Any process can
// make the commit with [Set.CommitAs].
func (s *Set) Open(ctx context.Context) (token string, err error) {
	s.sweepIfDue()
	l, err := s.open(ctx)
	if err != nil {
		return "", err
	}
	return layout.FormatToken(l.name, 1), nil
}

// open makes a lane. Its node exists before it is used, so that other processes can
// resolve every token that is ever handed out.
func (s *Set) open(ctx context.Context) (*lane, error) {
	began := time.Now()
	var l *lane
	backoff := s.config.Backoff()
	err, _ := backoff.Do(ctx, nil, func() (retry.Decision, error) {
		// A new name for each attempt: one without an answer may still be under way, and
		// no name is created twice.
		l = &lane{name: s.newName()}
		session, err := s.config.Session(ctx)
		if err == nil {
			var rs []coord.Result
			if rs, err = session.Commit(ctx, coord.Create(l.path(), layout.Marker{}.Value())); err == nil {
				l.advance(0, rs[0].Fence, began)
				return retry.Stop, nil
			}
		}
		if errors.Is(err, coord.ErrExist) {
			return retry.Now, err
		}
		return retry.Decide(err), err
	})
	if err != nil {
		return nil, fmt.Errorf("open a lane: %w", retry.WithDeadline(ctx, retry.NotApplied(ctx, err)))
	}
	backoff.Succeeded()
	return l, nil
}

// enter waits until fewer than mostLanes are in use.
func (s *Set) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.sem <- struct{}{}:
		return nil
	default:
	}
	entered := false
	select {
	case s.sem <- struct{}{}:
		entered = true
	case <-ctx.Done():
	}
	s.config.Woke(ctx)
	err := ctx.Err()
	if entered && err != nil {
		<-s.sem
	}
	return err
}

// refresh writes a lane that was idle, so that it is kept as long as the next commit's
// outcome is promised. A lane that could not be written is left to be swept.
func (s *Set) refresh(ctx context.Context, l *lane) bool {
	began := time.Now()
	session, err := s.config.Session(ctx)
	if err != nil {
		return false
	}
	rs, err := session.Commit(ctx, coord.Set(l.path(), layout.Marker{N: l.n}.Value(), l.fence))
	if err != nil {
		return false
	}
	l.advance(l.n, rs[0].Fence, began)
	return true
}

// Close removes the lanes that are idle. A lane whose last commit has an unknown outcome
// stays for a day.
func (s *Set) Close(ctx context.Context) {
	s.mu.Lock()
	idle := s.idle
	s.idle = nil
	s.mu.Unlock()
	if len(idle) == 0 {
		return
	}
	session, err := s.config.Coordinator.Session(ctx)
	for err == nil && len(idle) > 0 {
		some := min(len(idle), session.Limits().CommitOps)
		ops := make([]coord.Op, some)
		for i, l := range idle[:some] {
			ops[i] = coord.Delete(l.path(), l.fence)
		}
		if _, err = session.Commit(ctx, ops...); err == nil {
			idle = idle[some:]
		} else if i := retry.RefusedOp(err); i >= 0 {
			idle, err = slices.Delete(idle, i, i+1), nil // swept already
		}
	}
}
