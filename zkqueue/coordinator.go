package zkqueue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

// Coordinator is a [coord.Coordinator] that keeps a session with ZooKeeper. It is safe for
// use by several goroutines.
type Coordinator struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc

	sem     chan struct{} // one token: its holder may open a session
	watches watchSupport
	payload payloadLimit

	mu       sync.Mutex
	session  *session
	closed   bool
	sessions sync.WaitGroup // sessions that have not shut down completely
}

var _ coord.Coordinator = (*Coordinator)(nil)

// Open connects to the service and opens the first session. It blocks for at most
// cfg.ConnectTimeout, and returns at once if no server listens at any address. The error
// names each address and its cause. It is [coord.ErrInvalid] if cfg is wrong, and otherwise
// one of [coord.ErrUnreachable], [coord.ErrTLS], [coord.ErrAuth], [coord.ErrForbidden] and
// [coord.ErrFormat]. ctx limits Open only; the coordinator lives until Close.
func Open(ctx context.Context, cfg Config) (*Coordinator, error) {
	if ctx == nil {
		return nil, fmt.Errorf("open: no context: %w", coord.ErrInvalid)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open ZooKeeper: %w", err)
	}
	c := &Coordinator{cfg: cfg, sem: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.ConnectTimeout, errConnectTimeout)
	defer cancel()
	if _, err := c.openSession(ctx, false); err != nil {
		c.Close()
		return nil, fmt.Errorf("open %v: %w", cfg, err)
	}
	return c, nil
}

// errConnectTimeout is the cause of a context that ended with Config.ConnectTimeout.
var errConnectTimeout = errors.New("connect timeout")

// Session returns the live session, or opens a new one; see [coord.Coordinator]. It blocks
// until the service grants a session or ctx ends.
func (c *Coordinator) Session(ctx context.Context) (coord.Session, error) {
	if ctx == nil {
		return nil, fmt.Errorf("session: no context: %w", coord.ErrInvalid)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	if s, err := c.liveSession(); s != nil || err != nil {
		return s, err
	}
	s, err := c.openSession(ctx, true)
	if err != nil {
		return nil, fmt.Errorf("session with %v: %w", c.cfg, err)
	}
	return s, nil
}

// liveSession returns the current session, or nil if there is none or it is over.
func (c *Coordinator) liveSession() (coord.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, coord.ErrClosed
	}
	if c.session == nil || c.session.checkAlive() != nil {
		return nil, nil
	}
	return c.session, nil
}

// openSession opens a session unless another goroutine has opened one meanwhile. A patient
// caller waits for servers that refuse the connection; Open is not patient.
func (c *Coordinator) openSession(ctx context.Context, patient bool) (coord.Session, error) {
	select {
	case c.sem <- struct{}{}:
		defer func() { <-c.sem }()
	case <-ctx.Done(): // another goroutine still tries
		return nil, fmt.Errorf("%w: %w", coord.ErrUnreachable, ctx.Err())
	}
	for {
		if s, err := c.liveSession(); s != nil || err != nil {
			return s, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, err := c.startSession(ctx, patient)
		if errors.Is(err, coord.ErrSessionLost) {
			continue // it ended before the layout was checked
		}
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		c.session = s
		closed := c.closed
		c.mu.Unlock()
		if closed {
			s.end(coord.ErrClosed)
			return nil, coord.ErrClosed
		}
		return s, nil
	}
}

// startSession opens a session and checks the version of the layout in the service.
func (c *Coordinator) startSession(ctx context.Context, patient bool) (*session, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, coord.ErrClosed
	}
	c.sessions.Add(1)
	c.mu.Unlock()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()

	s := newSession(&c.cfg, &c.watches, &c.payload, c.sessions.Done)
	err := s.connect(ctx, patient)
	if err == nil {
		err = coord.CheckFormat(ctx, s)
	}
	if err != nil {
		s.end(coord.ErrClosed)
		if c.ctx.Err() != nil {
			err = coord.ErrClosed
		}
		return nil, err
	}
	return s, nil
}

// Close ends the session, which deletes its ephemeral nodes; see [coord.Coordinator]. It
// blocks for at most two seconds, and may be called more than once.
func (c *Coordinator) Close() error {
	c.mu.Lock()
	c.closed = true
	s := c.session
	c.mu.Unlock()
	c.cancel()
	if s != nil {
		s.end(coord.ErrClosed)
	}
	gone := make(chan struct{})
	go func() {
		c.sessions.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(closeTimeout):
	}
	return nil
}
