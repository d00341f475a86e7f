package zkqueue

import (
	"context"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

// maxRequests bounds what a session has given to go-zookeeper: it takes no context,
// and a request whose caller has gone away stays there until its answer comes or its
// connection ends.
const maxRequests = 1024

// acquireSlot waits for the connection and for room.
func (s *session) acquireSlot(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("no context: %w", coord.ErrInvalid)
	}
	if err := s.checkAlive(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	up := s.connectedCh
	s.mu.Unlock()
	select {
	case <-up:
	case <-s.done:
		return s.cause
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ctx.Err(), s.dialer.failureError())
	}
	select {
	case s.slots <- struct{}{}:
	case <-s.done:
		return s.cause
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.addGoroutine(); err != nil {
		<-s.slots
		return err
	}
	return nil
}

func (s *session) releaseSlot() {
	<-s.slots
	s.goroutines.Done()
}

// newBackoff paces the attempts of a request whose connection ended.
func (s *session) newBackoff() *retry.Backoff {
	return &retry.Backoff{First: time.Millisecond, Max: 100 * time.Millisecond}
}

// reply is what became of one request.
type reply[T any] struct {
	value T
	err   error

	passedOn bool // to go-zookeeper
	answered bool // by go-zookeeper: err, if any, is its own
}

// call makes one request once there is a connection, and waits for what becomes of
// it, for the end of ctx or of the session.
func call[T any](ctx context.Context, s *session, f func(*zk.Conn) (T, error)) reply[T] {
	if err := s.acquireSlot(ctx); err != nil {
		return reply[T]{err: err}
	}
	return callWithSlot(ctx, s, f)
}

// callWithSlot is call when there is a connection and room.
func callWithSlot[T any](ctx context.Context, s *session, f func(*zk.Conn) (T, error)) reply[T] {
	ch := make(chan reply[T], 1)
	go func() {
		defer s.releaseSlot()
		v, err := f(s.zk)
		ch <- reply[T]{value: v, err: err, passedOn: true, answered: true}
	}()
	var err error
	select {
	case r := <-ch:
		return r
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.done:
		err = s.cause
	}
	select {
	case r := <-ch:
		if r.err == nil {
			return r
		}
	default:
	}
	return reply[T]{err: err, passedOn: true}
}

// read makes a request that changes nothing, again if its connection ends.
func read[T any](ctx context.Context, s *session, f func(*zk.Conn) (T, error)) (T, error) {
	for backoff := s.newBackoff(); ; {
		r := call(ctx, s, f)
		if r.err == nil || !r.answered {
			return r.value, r.err
		}
		out, err := classify(r.err)
		switch out {
		case outcomeRefused:
			return r.value, err
		case outcomeExpired:
			s.end(coord.ErrSessionLost)
			return r.value, err
		}
		// go-zookeeper may need a moment to notice that the connection is gone. The next call
		// looks at the context and at the session.
		_ = backoff.Wait(ctx, s.done, nil)
	}
}
