// Package etcdqueue keeps zkq queues in etcd.
//
//	c, err := etcdqueue.Open(ctx, etcdqueue.Config{Endpoints: []string{"localhost:2379"}})
//
// A node is a key: the configured prefix and the node's path. Ephemeral nodes
// hang on the session's lease, and so does the key zkq/sessions/<lease>, which
// every commit compares: what is on its way when the lease ends is not applied.
//
// The service chooses the names of sequential nodes without a counter, at which
// producers would meet:
//
//	entry-100-0000000000000004711-1767225600000-9f86d081-000000
//	          revision + offset   Unix ms       producer number
//
// The revision is that of a linearizable read begun after the commit was called.
// If put A was answered before put B began, B reads a revision at which A's entry
// stands, and its name sorts behind. Where the coordinator was shown a revision a
// moment ago it does without the read: the commit carries the condition that no
// name stands which does not sort before, and if it is refused for that, it reads
// after all. Such a name may sort before those of entries that are gone. The time
// only informs. The offset is a
// number of that name in the JSON of the node <queue>/config: whoever restores a
// queue into a cluster with a lower revision sets it so that new names sort last.
//
// etcd 3.6.9 and newer are supported. Older ones work, but some may answer a read
// from the past after a pause, and then the order of two puts may be turned.
package etcdqueue

import (
	"context"
	"crypto/rand"
	"crypto/tls"
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
	"github.com/zkq/zkq/internal/resolve"
)

const (
	defaultSessionTimeout = 10 * time.Second
	defaultConnectTimeout = 5 * time.Second
	closeTimeout          = time.Second // for the last word of a session
)

var (
	noLeader = text(rpctypes.ErrGRPCNoLeader)
	learner  = text(rpctypes.ErrGRPCNotSupportedForLearner)
)

// Config says where the service is and how to speak with it.
type Config struct {
	// Endpoints are the addresses of the members: "127.0.0.1:2379",
	// "http://host:2379", "https://host:2379", "unix:///dir/sock" or
	// "unixs:///dir/sock". One connection is open at a time, to any of them.
	Endpoints []string

	// Prefix comes before every key: "" or "/a/b".
	Prefix string

	// Username and Password log in. The password appears in no error.
	Username, Password string

	// TLS encrypts the connections to endpoints without a scheme, and to https
	// and unixs; without it those two trust the system's certificates. The name
	// to expect is the endpoint's host, unless it sets one.
	TLS *tls.Config

	// SessionTimeout is how long the service keeps the ephemeral nodes of a
	// silent client: 0 means 10 s. etcd counts in whole seconds and has a least
	// value, so [coord.Session.Timeout] may be more.
	SessionTimeout time.Duration

	// ConnectTimeout is how long Open tries: 0 means 5 s.
	ConnectTimeout time.Duration

	// Warn is told, in a sentence, what works but should be changed. It may be
	// called from any goroutine. nil is silent.
	Warn func(string)

	// Dial makes the connections; nil means a net.Dialer. The address is as it
	// stands in Endpoints. Without it a host name is looked up at each dial, and each of
	// its IP addresses is a server of its own.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// LeaseHook is called with the ID of a session before it exists; what it
	// returns is called when the session is over or could not be had.
	LeaseHook func(id string) (end func(), err error)

	names *resolve.Names
}

// String renders the configuration without the password.
func (cfg Config) String() string {
	return fmt.Sprintf("etcd %s%s (user %q, TLS %t)", strings.Join(cfg.Endpoints, ","), cfg.Prefix, cfg.Username, cfg.TLS != nil)
}

// GoString is String, so that no verb shows the password.
func (cfg Config) GoString() string { return cfg.String() }

func (cfg *Config) setDefaults() {
	if cfg.SessionTimeout == 0 {
		cfg.SessionTimeout = defaultSessionTimeout
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	if cfg.Warn == nil {
		cfg.Warn = func(string) {}
	}
	if cfg.names == nil {
		cfg.names = new(resolve.Names)
	}
	if cfg.LeaseHook == nil {
		cfg.LeaseHook = func(string) (func(), error) { return func() {}, nil }
	}
}

// Coordinator is a connection to an etcd cluster.
type Coordinator struct {
	cfg      Config
	link     *link
	client   *clientv3.Client
	kv       pb.KVClient
	lease    pb.LeaseClient
	producer string // of sequential names
	numbers  numbers
	rounds   rounds
	guesses  guesses
	flights  flights
	shown    shown
	most     atomic.Int64 // ops that a commit may have
	wide     atomic.Int64 // the width that a batch may have
	full     atomic.Int64 // when a batch last found no space, Unix ns
	hub      *hub

	ctx    context.Context // ends, with coord.ErrClosed, when the coordinator is closed
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // of every goroutine that ctx ends

	turn   chan struct{} // a token: whoever holds it may begin a session
	mu     sync.Mutex
	closed bool
	latest *session
	warned map[string]bool

	finish sync.Once
}

// Open connects to the cluster and begins a session. When it does not succeed
// within ConnectTimeout, or it is certain that it never will, the error names
// each endpoint and what was wrong with it, and is [coord.ErrUnreachable],
// [coord.ErrTLS], [coord.ErrAuth], [coord.ErrForbidden] or [coord.ErrFormat].
func Open(ctx context.Context, cfg Config) (*Coordinator, error) {
	if err := checkContext(ctx); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	endpoints, err := cfg.check()
	if err != nil {
		return nil, err
	}
	c := &Coordinator{cfg: cfg, producer: producerID(), turn: make(chan struct{}, 1), warned: make(map[string]bool)}
	c.rounds = rounds{queued: make(map[string]*round), flying: make(map[string]int)}
	c.flights.up = make(map[*flight]struct{})
	c.most.Store(commitOps)
	c.wide.Store(maxOps)
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.hub = newHub(c)
	c.link = newLink(endpoints, cfg.Dial, cfg.names, c.hub.signal)

	// What takes too long and what never will work both end the attempt.
	connect, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-c.link.hopeless:
			cancel()
		case <-connect.Done():
		}
	}()
	err = c.start(connect)
	if err == nil {
		_, err = c.session(connect)
	}
	failed := connect.Err() != nil
	cancel()
	<-watched
	if err != nil {
		err = c.failure(ctx, failed, err)
		c.Close()
		return nil, err
	}
	c.advise(ctx)
	c.spawn(c.guard)
	return c, nil
}

// check says what is wrong with the configuration.
func (cfg *Config) check() ([]endpoint, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, fmt.Errorf("no endpoints: %w", coord.ErrInvalid)
	}
	var endpoints []endpoint
	for _, s := range cfg.Endpoints {
		e, err := parseEndpoint(s, cfg.TLS)
		if err != nil {
			return nil, err
		}
		endpoints = append(endpoints, e)
	}
	if cfg.Prefix != "" {
		if err := coord.CheckPath(cfg.Prefix); err != nil {
			return nil, fmt.Errorf("prefix: %w", err)
		}
	}
	if cfg.SessionTimeout < 0 || cfg.ConnectTimeout < 0 || cfg.SessionTimeout > 24*time.Hour {
		return nil, fmt.Errorf("timeout out of range: %w", coord.ErrInvalid)
	}
	if (cfg.Username == "") != (cfg.Password == "") {
		return nil, fmt.Errorf("a user name and a password go together: %w", coord.ErrInvalid)
	}
	return endpoints, nil
}

func producerID() string {
	var b [4]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// start makes the client. With a password it logs in; otherwise it connects when
// it is first used.
func (c *Coordinator) start(ctx context.Context) error {
	attempt := min(2*time.Second, max(c.cfg.SessionTimeout/4, 500*time.Millisecond))
	config := clientv3.Config{
		Endpoints: []string{"http://zkq"}, // one address; the link knows what it stands for
		Username:  c.cfg.Username,
		Password:  c.cfg.Password,
		Logger:    zap.NewNop(),
		// The client's own retries do not know what was sent.
		MaxUnaryRetries: 1,
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.link.connect(ctx) }),
			grpc.WithAuthority(c.link.endpoints[0].authority()),
			grpc.WithStatsHandler(postmark{}),
			grpc.WithIdleTimeout(0),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 250 * time.Millisecond},
				MinConnectTimeout: attempt,
			}),
		},
	}
	return c.ask(ctx, ctx, func(context.Context) error {
		base, cancel := context.WithCancel(c.ctx)
		stop := context.AfterFunc(ctx, cancel) // New logs in, and takes no other context
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
		c.kv = watchedKV{pb.NewKVClient(client.ActiveConnection()), c}
		c.lease = pb.NewLeaseClient(client.ActiveConnection())
		return nil
	})
}

// failure is the error of an attempt to connect or to begin a session; late says
// that it was cut short.
func (c *Coordinator) failure(ctx context.Context, late bool, err error) error {
	if !late || errors.Is(err, coord.ErrBusy) {
		return fmt.Errorf("etcd at %s: %w", strings.Join(c.cfg.Endpoints, ", "), err)
	}
	why := c.link.explain()
	if why == nil { // it was reached, and did not serve
		why = fmt.Errorf("%s: not answered in time (has it a leader?): %w", strings.Join(c.cfg.Endpoints, ", "), coord.ErrUnreachable)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("etcd at %w: %w", why, ctx.Err())
	}
	return fmt.Errorf("etcd at %w", why)
}

// Session implements [coord.Coordinator].
func (c *Coordinator) Session(ctx context.Context) (coord.Session, error) {
	if err := checkContext(ctx); err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	s, err := c.session(ctx)
	switch {
	case err == nil:
		return s, nil
	case c.ctx.Err() != nil:
		return nil, fmt.Errorf("session: %w", coord.ErrClosed)
	}
	return nil, fmt.Errorf("session: %w", c.failure(ctx, ctx.Err() != nil, err))
}

func (c *Coordinator) session(ctx context.Context) (*session, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-c.ctx.Done():
		return nil, coord.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s := c.newest(); s != nil && s.alive() == nil {
		return s, nil
	}
	return c.begin(ctx)
}

func (c *Coordinator) newest() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latest
}

// admit makes s the newest session, unless the coordinator is closed.
func (c *Coordinator) admit(s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.latest = s
	}
	return !c.closed
}

// spawn runs f in a goroutine that Close waits for. False: it is closed.
func (c *Coordinator) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.wg.Go(f)
	}
	return !c.closed
}

// Close implements [coord.Coordinator].
func (c *Coordinator) Close() error {
	c.finish.Do(func() {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		c.cancel(coord.ErrClosed)
		c.turn <- struct{}{} // a session that is being begun comes to its end first
		if s := c.newest(); s != nil {
			s.close()
		}
		if c.client != nil {
			c.client.Close()
		}
		c.wg.Wait()
	})
	return nil
}

// key is where the node at path is kept.
func (c *Coordinator) key(path string) []byte { return []byte(c.cfg.Prefix + path) }

// base is what the keys of the nodes in dir begin with.
func (c *Coordinator) base(dir string) string {
	if dir == "/" {
		return c.cfg.Prefix + "/"
	}
	return c.cfg.Prefix + dir + "/"
}

// after is the key behind all that begin with base, which ends with a slash.
func after(base string) []byte {
	return []byte(base[:len(base)-1] + string(rune('/'+1)))
}
