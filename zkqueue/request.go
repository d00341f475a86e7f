package zkqueue

import (
	"context"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

// maxRequests bounds the requests that go-zookeeper holds for a session. It takes no
// context: a request whose caller has gone stays there until its reply comes or its
// connection ends.
const maxRequests = 1024

// acquireSlot waits for the connection and for one of the slots for requests.
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

// releaseSlot ends a request that acquireSlot has begun.
func (s *session) releaseSlot() {
	<-s.slots
	s.goroutines.Done()
}

// newBackoff paces the attempts of a request whose connection ended.
func (s *session) newBackoff() *retry.Backoff {
	return &retry.Backoff{First: time.Millisecond, Max: 100 * time.Millisecond}
}

// reply is the result of one request.
type reply[T any] struct {
	value T
	err   error

	passedOn bool // go-zookeeper has got the request
	answered bool // go-zookeeper has returned; err is its own
}

// call makes one request when there is a connection. It returns when the request is
// answered, when ctx ends or when the session does.
func call[T any](ctx context.Context, s *session, f func(*zk.Conn) (T, error)) reply[T] {
	if err := s.acquireSlot(ctx); err != nil {
		return reply[T]{err: err}
	}
	return callWithSlot(ctx, s, f)
}

// callWithSlot is call for a caller that has acquired a slot.
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

// read makes a request that changes nothing, and repeats it when its connection ends.
func read[T any](ctx context.Context, s *session, f func(*zk.Conn) (T, error)) (value T, err error) {
	s.newBackoff().Repeat(ctx, s.done, func() retry.Decision {
		r := call(ctx, s, f)
		if value, err = r.value, r.err; err == nil || !r.answered {
			return retry.Stop
		}
		var out outcome
		out, err = classify(r.err)
		switch out {
		case outcomeRefused:
			return retry.Stop
		case outcomeExpired:
			s.end(coord.ErrSessionLost)
			return retry.Stop
		}
		// go-zookeeper may need a moment to notice that the connection is gone. The next call
		// looks at the context and at the session.
		return retry.Later
	})
	return value, err
}
