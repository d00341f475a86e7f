package etcdqueue

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/zkq/zkq/coord"
)

const (
	defaultSessionTimeout = 10 * time.Second
	defaultConnectTimeout = 5 * time.Second
	closeTimeout          = time.Second // for revoking the lease of a session
)

// Texts of errors that say that a member cannot serve now.
var (
	textNoLeader = errorText(rpctypes.ErrGRPCNoLeader)
	textLearner  = errorText(rpctypes.ErrGRPCNotSupportedForLearner)
)

// Coordinator is a [coord.Coordinator] that keeps a connection to an etcd cluster and a
// session with it. It is safe for use by several goroutines.
//
// What is learned about the service outlives a session and so is kept here: its latest
// revision, its limits, what makes names optimistic, and the watches.
type Coordinator struct {
	cfg    Config
	dialer *dialer
	client *clientv3.Client
	kv     pb.KVClient
	lease  pb.LeaseClient
	// In the names of sequential nodes.
	producer      string
	nameCounter   nameCounter
	revisionReads revisionReads
	optimistic    optimisticNames
	inFlight      inFlightCommits
	revisions     revisionTracker
	// Ops that a commit may have.
	opLimit atomic.Int64
	// Ops that a batch may have, see countedOps.
	batchOpLimit atomic.Int64
	// When a batch last met a service without space, Unix ns.
	lastFull atomic.Int64
	watches  *watchHub

	// Ends with coord.ErrClosed when the coordinator is closed.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// The goroutines that ctx ends.
	wg sync.WaitGroup

	// One token: its holder may open a session.
	sem    chan struct{}
	mu     sync.Mutex
	closed bool
	latest *session
	// The warnings about versions so far.
	warned map[string]bool

	closeOnce sync.Once
}

// Open connects to the cluster and opens a session. It blocks for at most
// cfg.ConnectTimeout, and returns sooner when waiting longer is of no use. The error names
// each endpoint and its cause, and is one of [coord.ErrUnreachable], [coord.ErrTLS],
// [coord.ErrAuth], [coord.ErrForbidden] and [coord.ErrFormat]; it is [coord.ErrInvalid] if
// cfg is wrong. ctx limits Open only; the coordinator lives until Close.
func Open(ctx context.Context, cfg Config) (*Coordinator, error) {
	if err := checkContext(ctx); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	endpoints, err := cfg.check()
	if err != nil {
		return nil, err
	}
	c := &Coordinator{cfg: cfg, producer: producerID(), sem: make(chan struct{}, 1), warned: make(map[string]bool)}
	c.revisionReads = revisionReads{queued: make(map[string]*revisionRead), running: make(map[string]int)}
	c.inFlight.all = make(map[*inFlightCommit]struct{})
	c.opLimit.Store(maxCommitOps)
	c.batchOpLimit.Store(maxOps)
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.watches = newWatchHub(c)
	c.dialer = newDialer(endpoints, cfg.Dial, cfg.names, c.watches.signalAll)

	// Two things end the attempt: the timeout, and a failure of every server that will not pass.
	connect, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-c.dialer.permanentFailure:
			cancel()
		case <-connect.Done():
		}
	}()
	err = c.startClient(connect)
	if err == nil {
		_, err = c.liveSession(connect)
	}
	failed := connect.Err() != nil
	cancel()
	<-watched
	if err != nil {
		err = c.connectError(ctx, failed, err)
		c.Close()
		return nil, err
	}
	c.checkMember(ctx)
	c.startGoroutine(c.monitorConnection)
	return c, nil
}

// producerID returns a random name for this coordinator.
func producerID() string {
	var b [4]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// startClient makes the gRPC client. With a password it logs in at once; otherwise the
// client connects when it is first used.
func (c *Coordinator) startClient(ctx context.Context) error {
	attempt := min(2*time.Second, max(c.cfg.SessionTimeout/4, 500*time.Millisecond))
	config := clientv3.Config{
		Endpoints: []string{"http://zkq"}, // one address for gRPC; the dialer knows the real ones
		Username:  c.cfg.Username,
		Password:  c.cfg.Password,
		Logger:    zap.NewNop(),
		// The client would send requests again that may have been applied.
		MaxUnaryRetries: 1,
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.dialer.dialAny(ctx) }),
			grpc.WithAuthority(c.dialer.endpoints[0].authority()),
			grpc.WithStatsHandler(sentMarker{}),
			grpc.WithIdleTimeout(0),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 250 * time.Millisecond},
				MinConnectTimeout: attempt,
			}),
		},
	}
	return c.doRepeatable(ctx, ctx, func(context.Context) error {
		base, cancel := context.WithCancel(c.ctx)
		stop := context.AfterFunc(ctx, cancel) // New logs in, and takes its context from config
		config.Context = base
		client, err := clientv3.New(config)
		if !stop() && err == nil {
			client.Close()
			err = context.Cause(ctx)
		}
		if err != nil {
			cancel()
			return err
		}
		c.client = client
		c.kv = trackingKV{pb.NewKVClient(client.ActiveConnection()), c}
		c.lease = pb.NewLeaseClient(client.ActiveConnection())
		return nil
	})
}

// connectError returns the error of a failed attempt to connect or to open a session. An
// attempt that was cut short gets the causes of all endpoints.
func (c *Coordinator) connectError(ctx context.Context, cutShort bool, err error) error {
	if !cutShort || errors.Is(err, coord.ErrBusy) {
		return fmt.Errorf("etcd at %s: %w", strings.Join(c.cfg.Endpoints, ", "), err)
	}
	why := c.dialer.failureError()
	if why == nil { // a member was reached, but did not answer
		why = fmt.Errorf("%s: no answer in time; does the cluster have a leader?: %w", strings.Join(c.cfg.Endpoints, ", "), coord.ErrUnreachable)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("etcd at %w: %w", why, ctx.Err())
	}
	return fmt.Errorf("etcd at %w", why)
}

// Session returns the live session, or opens a new one; see [coord.Coordinator]. It blocks
// until the service grants a session or ctx ends.
func (c *Coordinator) Session(ctx context.Context) (coord.Session, error) {
	if err := checkContext(ctx); err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	s, err := c.liveSession(ctx)
	switch {
	case err == nil:
		return s, nil
	case c.ctx.Err() != nil:
		return nil, fmt.Errorf("session: %w", coord.ErrClosed)
	}
	return nil, fmt.Errorf("session: %w", c.connectError(ctx, ctx.Err() != nil, err))
}

// liveSession returns the live session, or opens one unless another goroutine does.
func (c *Coordinator) liveSession(ctx context.Context) (*session, error) {
	select {
	case c.sem <- struct{}{}:
		defer func() { <-c.sem }()
	case <-c.ctx.Done():
		return nil, coord.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s := c.latestSession(); s != nil && s.checkAlive() == nil {
		return s, nil
	}
	return c.openSession(ctx)
}

// latestSession returns the newest session, which may be over; nil if there was none.
func (c *Coordinator) latestSession() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latest
}

// setLatest makes s the newest session. It returns false if the coordinator is closed.
func (c *Coordinator) setLatest(s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.latest = s
	}
	return !c.closed
}

// startGoroutine runs f in a goroutine that Close waits for. It returns false, and does
// nothing, if the coordinator is closed.
func (c *Coordinator) startGoroutine(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.wg.Go(f)
	}
	return !c.closed
}

// Close ends the session, which deletes its ephemeral nodes, and closes the connection; see
// [coord.Coordinator]. It waits up to a second for the service, and may be called more than
// once.
func (c *Coordinator) Close() error {
	c.closeOnce.Do(func() {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		c.cancel(coord.ErrClosed)
		c.sem <- struct{}{} // wait for a session that is being opened
		if s := c.latestSession(); s != nil {
			s.close()
		}
		if c.client != nil {
			c.client.Close()
		}
		c.wg.Wait()
	})
	return nil
}

// key returns the key of the node at path.
func (c *Coordinator) key(path string) []byte { return []byte(c.cfg.Prefix + path) }

// dirPrefix returns what the keys of all nodes below dir begin with.
func (c *Coordinator) dirPrefix(dir string) string {
	if dir == "/" {
		return c.cfg.Prefix + "/"
	}
	return c.cfg.Prefix + dir + "/"
}

// prefixEnd returns the key after all keys that begin with base, which ends with a slash.
func prefixEnd(base string) []byte {
	return []byte(base[:len(base)-1] + string(rune('/'+1)))
}
