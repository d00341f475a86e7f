package zkqueue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/boottime"
	"github.com/zkq/zkq/internal/group"
	"github.com/zkq/zkq/internal/liveness"
)

// session is one session with ZooKeeper and the [zk.Conn] that serves it. It never moves to
// another ZooKeeper session: when that one expires, this session is over, and no request
// that was queued before is sent on a new one.
//
// The session ends by the first of three events: the service reports its expiry, deadline
// passes without a sign of life from the service, or Close is called. From then on all
// calls return cause, and shutDown releases what belongs to the session.
type session struct {
	cfg *Config
	zk  *zk.Conn
	// Closed when go-zookeeper's goroutines have ended.
	events <-chan zk.Event
	dialer *dialer
	cache  dirCache
	// One token per request that go-zookeeper holds.
	slots chan struct{}

	watches    *watchSupport
	multiReads multiReadSupport
	counters   sequenceCounters
	payload    *payloadLimit
	// Merges and sends the commits.
	group *group.Runner

	// Ends with the session.
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	// Closed when zk is set, or will not be.
	opened chan struct{}
	// Called when nothing of the session is left.
	onGone func()

	id      string
	timeout time.Duration
	// When this process stops to rely on the session, by boottime.
	deadline *liveness.Deadline

	mu sync.Mutex
	// Why the session is over; nil while it is not.
	cause error
	// The newest connection.
	conn *conn
	// Closed while the session is connected.
	connectedCh chan struct{}
	isConnected bool
	// Of requests and watches; none is added after the end.
	goroutines sync.WaitGroup
}

// closeTimeout bounds Close. The service gets half of it to answer.
const closeTimeout = 2 * time.Second

// newSession returns a session that is not connected yet. gone is called when nothing of it
// is left.
func newSession(cfg *Config, watches *watchSupport, payload *payloadLimit, onGone func()) *session {
	s := &session{
		cfg: cfg, watches: watches, onGone: onGone, payload: payload,
		slots:       make(chan struct{}, maxRequests),
		done:        make(chan struct{}),
		opened:      make(chan struct{}),
		connectedCh: make(chan struct{}),
	}
	s.deadline = liveness.New(boottime.Now, func() { s.end(coord.ErrSessionLost) })
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.dialer = newDialer(s)
	s.cache = newDirCache(s)
	s.group = group.NewRunner(batchLimits, maxInFlight, s.sendBatch)
	return s
}

// discardLogger drops go-zookeeper's log lines: the dialer keeps what is worth knowing.
type discardLogger struct{}

func (discardLogger) Printf(string, ...any) {}

// connect connects and waits until the service grants the session. Only a patient caller
// keeps waiting when no server can be of use.
func (s *session) connect(ctx context.Context, patient bool) error {
	defer close(s.opened)
	var err error
	s.zk, s.events, err = zk.Connect(s.cfg.Servers, s.cfg.SessionTimeout,
		zk.WithDialer(s.dialer.dial), zk.WithHostProvider(s.dialer),
		zk.WithEventCallback(s.handleEvent), zk.WithLogger(discardLogger{}), zk.WithLogInfo(false))
	if err != nil {
		return fmt.Errorf("%w: %w", coord.ErrInvalid, err)
	}
	warning := liveness.NewOutageWarning(s.cfg.String(), s.cfg.Warn)
	var due <-chan time.Time
	if patient {
		due = warning.Due()
	}
	for {
		s.mu.Lock()
		connected := s.connectedCh
		s.mu.Unlock()
		select {
		case <-due:
			warning.Waiting(s.dialer.failureError())
		case <-connected:
			warning.Ended()
			if granted := s.timeout; granted != s.cfg.SessionTimeout {
				s.cfg.Warn(fmt.Sprintf("ZooKeeper granted a session timeout of %v instead of %v", granted, s.cfg.SessionTimeout))
			}
			return nil
		case <-s.done:
			return s.cause
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errConnectTimeout) {
				return s.dialer.failureError()
			}
			return fmt.Errorf("%w: %w", ctx.Err(), s.dialer.failureError())
		case <-s.dialer.newCause:
			if patient {
				continue
			}
			if err := s.dialer.permanentError(); err != nil {
				return err
			}
		}
	}
}

// ID returns the session's ID in hexadecimal, as ZooKeeper prints it.
func (s *session) ID() string { return s.id }

// Timeout returns the session timeout that the service granted.
func (s *session) Timeout() time.Duration { return s.timeout }

// Done returns a channel that is closed when the session is over.
func (s *session) Done() <-chan struct{} { return s.done }

// Limits returns the largest commit and value; see [coord.Session]. ZooKeeper closes the
// connection over a larger request, so that all other requests on it go without answers.
// Commit also measures the encoded request.
func (s *session) Limits() coord.Limits { return limits }

// limits are ZooKeeper's, with the default jute.maxbuffer. A value may be 1,045,504 bytes
// long.
var limits = coord.Limits{ValueBytes: 1<<20 - 3<<10, CommitBytes: maxFrame, CommitOps: 128, Creates: 4096}

// fullPath returns the path with the chroot, as the service knows it.
func (s *session) fullPath(path string) string {
	if path == "/" && s.cfg.Chroot != "" {
		return s.cfg.Chroot
	}
	return s.cfg.Chroot + path
}

// node reads the node at path as the connected server has it.
func (s *session) node(ctx context.Context, path string) (coord.Node, error) {
	d, err := s.data(ctx, s.fullPath(path))
	if err != nil {
		return coord.Node{}, err
	}
	return d.node(path), nil
}

func sessionID(id int64) string { return "0x" + strconv.FormatUint(uint64(id), 16) }

// connected reports whether there is a connection with the session.
func (s *session) connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isConnected
}

// addGoroutine counts a goroutine that the session's shutdown waits for. It returns an
// error if the session is over.
func (s *session) addGoroutine() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil {
		s.goroutines.Add(1)
	}
	return s.cause
}

// handleEvent is called by go-zookeeper when the connection comes or goes.
func (s *session) handleEvent(e zk.Event) {
	switch e.State {
	case zk.StateHasSession:
		s.mu.Lock()
		if !s.isConnected {
			s.isConnected = true
			close(s.connectedCh)
		}
		s.mu.Unlock()
		s.cache.onReconnect()
	case zk.StateDisconnected:
		s.mu.Lock()
		if s.isConnected {
			s.isConnected = false
			s.connectedCh = make(chan struct{})
		}
		s.mu.Unlock()
		s.cache.onDisconnect()
	}
}

// setConn makes c the connection that is closed when the session ends.
func (s *session) setConn(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = c
	return s.cause
}

// takeGrant takes the service's answer to a connect request, sent at that time by boottime.
// An answer for another session means that this one has expired.
func (s *session) takeGrant(id int64, timeout, sent time.Duration) error {
	s.mu.Lock()
	cause := s.cause
	if cause == nil && id != 0 && s.id == "" {
		s.id, s.timeout = sessionID(id), timeout
		s.deadline.Start(timeout, sent)
	}
	known := s.id
	s.mu.Unlock()
	if cause != nil {
		return cause
	}
	if id == 0 || sessionID(id) != known {
		s.end(coord.ErrSessionLost)
		return coord.ErrSessionLost
	}
	s.deadline.Extend(sent)
	return nil
}

// checkAlive returns why the session is over, or nil. It looks at the clock too, as a timer
// fires late on a machine that slept.
func (s *session) checkAlive() error {
	select {
	case <-s.done:
		return s.cause
	default:
	}
	if s.deadline.Passed() {
		s.end(coord.ErrSessionLost)
		return s.cause
	}
	return nil
}

// checkSend refuses all frames after the session is over. The frames that Close still sends
// are allowed.
func (s *session) checkSend() error {
	if err := s.checkAlive(); err != coord.ErrClosed {
		return err
	}
	return nil
}

// end ends the session. The cause is [coord.ErrSessionLost] or [coord.ErrClosed]; only the
// first call counts.
func (s *session) end(cause error) {
	s.mu.Lock()
	if s.cause != nil {
		s.mu.Unlock()
		return
	}
	s.cause = cause
	s.deadline.Stop()
	// Only a connected session can tell the service that it ends.
	orderly := cause == coord.ErrClosed && s.isConnected
	s.mu.Unlock()
	close(s.done)
	s.cancel()
	s.group.End(cause)
	go s.shutDown(orderly)
}

// shutDown stops everything that belongs to the session, and then calls onGone. An orderly
// shutdown tells the service, which then deletes the ephemeral nodes at once; otherwise the
// service deletes them when its session timeout has passed.
func (s *session) shutDown(orderly bool) {
	defer s.onGone()
	s.cache.close()
	defer s.group.Wait()
	<-s.opened
	if s.zk == nil {
		return
	}
	// go-zookeeper's Close sends a last request and waits a second for the answer. If it cannot
	// send, it waits as long, unless it finds go-zookeeper dialing.
	if orderly {
		defer time.AfterFunc(closeTimeout/2, s.closeConn).Stop()
	} else {
		s.closeConn()
		select {
		case <-s.dialer.parked:
		case <-time.After(closeTimeout / 2):
		}
	}
	s.zk.Close()
	s.closeConn()
	for range s.events {
	}
	s.goroutines.Wait()
}

// closeConn closes the current connection.
func (s *session) closeConn() {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if c != nil {
		c.Close()
	}
}
