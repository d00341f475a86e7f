package zkqueue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/boottime"
	"github.com/zkq/zkq/internal/group"
	"github.com/zkq/zkq/internal/liveness"
)

// session is one life with ZooKeeper, and one [zk.Conn].
type session struct {
	cfg    *Config
	zk     *zk.Conn
	events <-chan zk.Event // closed when zk's goroutines have ended
	dialer *dialer
	dirs   directories
	slots  chan struct{} // holds one for each request that go-zookeeper has

	watches *serverWatches
	reads   serverReads
	numbers numbers
	width   *width
	group   *group.Runner // sends the commits

	quit    context.Context // ends with the session
	quitNow context.CancelFunc
	done    chan struct{}
	opened  chan struct{} // closed when zk is set
	gone    func()        // called when nothing is left

	id       string
	timeout  time.Duration
	deadline *liveness.Deadline // by boottime

	mu      sync.Mutex
	over    error // why, when it is
	conn    *conn // the last one
	up      chan struct{}
	isUp    bool
	running sync.WaitGroup // requests and watches; grows only while not over
}

// mostRequests bounds what a session has given to go-zookeeper: it takes no context,
// and a request whose caller has gone away stays there until its answer comes or its
// connection ends.
const mostRequests = 1024

// closeTimeout bounds Close: half of it is given to the service.
const closeTimeout = 2 * time.Second

func newSession(cfg *Config, watches *serverWatches, width *width, gone func()) *session {
	s := &session{
		cfg: cfg, watches: watches, gone: gone, width: width,
		slots:  make(chan struct{}, mostRequests),
		done:   make(chan struct{}),
		opened: make(chan struct{}),
		up:     make(chan struct{}),
	}
	s.deadline = liveness.New(boottime.Now, func() { s.end(coord.ErrSessionLost) })
	s.quit, s.quitNow = context.WithCancel(context.Background())
	s.dialer = newDialer(s)
	s.dirs = newDirectories(s)
	s.group = group.NewRunner(batches, flights, s.deliver)
	return s
}

type silent struct{}

func (silent) Printf(string, ...any) {}

// tellAfter is how long a new session may take before the user is told why.
const tellAfter = time.Second

// begin connects and waits for the service to grant the session.
func (s *session) begin(ctx context.Context, patient bool) error {
	defer close(s.opened)
	var err error
	s.zk, s.events, err = zk.Connect(s.cfg.Servers, s.cfg.SessionTimeout,
		zk.WithDialer(s.dialer.dial), zk.WithHostProvider(s.dialer),
		zk.WithEventCallback(s.event), zk.WithLogger(silent{}), zk.WithLogInfo(false))
	if err != nil {
		return fmt.Errorf("%w: %w", coord.ErrInvalid, err)
	}
	tell := make(<-chan time.Time)
	told := false
	if patient {
		soon := time.NewTimer(tellAfter)
		defer soon.Stop()
		tell = soon.C
	}
	for {
		s.mu.Lock()
		up := s.up
		s.mu.Unlock()
		select {
		case <-tell:
			told = true
			s.cfg.Warn(fmt.Sprintf("no new session with %v yet, and going on: %v", s.cfg, s.dialer.why()))
		case <-up:
			if told {
				s.cfg.Warn(fmt.Sprintf("there is a session with %v again", s.cfg))
			}
			if granted := s.timeout; granted != s.cfg.SessionTimeout {
				s.cfg.Warn(fmt.Sprintf("ZooKeeper granted a session timeout of %v instead of %v", granted, s.cfg.SessionTimeout))
			}
			return nil
		case <-s.done:
			return s.over
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errConnectTimeout) {
				return s.dialer.why()
			}
			return fmt.Errorf("%w: %w", ctx.Err(), s.dialer.why())
		case <-s.dialer.refused:
			if patient {
				continue
			}
			if err := s.dialer.hopeless(); err != nil {
				return err
			}
		}
	}
}

func (s *session) ID() string             { return s.id }
func (s *session) Timeout() time.Duration { return s.timeout }
func (s *session) Done() <-chan struct{}  { return s.done }

// Limits. A request is a frame of at most 1,048,575 bytes; a larger one would cost
// the connection, and everything on it its answer. Commit counts exactly besides.
func (s *session) Limits() coord.Limits { return limits }

var limits = coord.Limits{ValueBytes: 1<<20 - 3<<10, CommitBytes: mostFrame, CommitOps: 128, Creates: 4096}

func (s *session) Get(ctx context.Context, path string) (coord.Node, error) {
	if err := coord.CheckPath(path); err != nil {
		return coord.Node{}, fmt.Errorf("get: %w", err)
	}
	// A follower may lag behind what others were told.
	err := s.barrier(ctx)
	var n coord.Node
	if err == nil {
		n, err = s.node(ctx, path)
	}
	if err != nil {
		return coord.Node{}, fmt.Errorf("get %s: %w", path, err)
	}
	return n, nil
}

// Read asks for many nodes at a time, and with one request where the server knows such.
func (s *session) Read(ctx context.Context, paths ...string) ([]coord.Node, error) {
	if ctx == nil {
		return nil, fmt.Errorf("read: no context: %w", coord.ErrInvalid)
	}
	for _, path := range paths {
		if err := coord.CheckPath(path); err != nil {
			return nil, fmt.Errorf("read: %w", err)
		}
	}
	if err := s.alive(); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	found, err := s.found(ctx, paths)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	nodes := make([]coord.Node, len(paths))
	for i, d := range found {
		if d != nil {
			nodes[i] = d.node(paths[i])
		}
	}
	return nodes, nil
}

func (s *session) Count(ctx context.Context, dir string) (int, error) {
	if err := coord.CheckDir(dir); err != nil {
		return 0, fmt.Errorf("count: %w", err)
	}
	err := s.barrier(ctx)
	var d data
	if err == nil {
		d, err = s.data(ctx, s.whole(dir))
	}
	if err != nil && !errors.Is(err, coord.ErrNotExist) {
		return 0, fmt.Errorf("count %s: %w", dir, err)
	}
	return int(d.stat.NumChildren), nil
}

// whole is a path as the service knows it.
func (s *session) whole(path string) string {
	if path == "/" && s.cfg.Chroot != "" {
		return s.cfg.Chroot
	}
	return s.cfg.Chroot + path
}

// barrier waits until the connected server has all that was answered before, to
// anyone. It is a commit of nothing, which goes the way of all commits, with those that
// wait at the same time: a sync does less on the leader, which may answer it before it has
// applied what a follower has already answered.
func (s *session) barrier(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("no context: %w", coord.ErrInvalid)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		if err := s.alive(); err != nil {
			return err
		}
		_, err := s.group.Do(ctx, nil)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && !s.connected():
			return fmt.Errorf("%w: %w", ctx.Err(), s.dialer.why())
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, coord.ErrUnknown):
			return err
		}
		// go-zookeeper may need a moment to notice that the connection is gone.
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		case <-s.done:
		}
	}
}

// node reads the node at path as the connected server has it.
func (s *session) node(ctx context.Context, path string) (coord.Node, error) {
	d, err := s.data(ctx, s.whole(path))
	if err != nil {
		return coord.Node{}, err
	}
	return d.node(path), nil
}

type data struct {
	value      []byte
	stat       zk.Stat
	unreadable bool
}

func (s *session) data(ctx context.Context, whole string) (data, error) {
	return read(ctx, s, func(z *zk.Conn) (data, error) {
		value, stat, err := z.Get(whole)
		if err != nil {
			return data{}, err
		}
		return data{value: value, stat: *stat}, nil
	})
}

// allowedData is data of a node whose value may or may not be read. ZooKeeper tells anyone
// that a node exists.
func (s *session) allowedData(ctx context.Context, whole string) (data, error) {
	d, err := s.data(ctx, whole)
	if !errors.Is(err, coord.ErrForbidden) {
		return d, err
	}
	return read(ctx, s, func(z *zk.Conn) (data, error) {
		there, stat, err := z.Exists(whole)
		if err == nil && !there {
			err = zk.ErrNoNode
		}
		if err != nil {
			return data{}, err
		}
		return data{stat: *stat, unreadable: true}, nil
	})
}

func (d data) node(path string) coord.Node {
	n := coord.Node{
		Path:  path,
		Value: d.value,

		Unreadable: d.unreadable,

		Fence:    coord.Fence(d.stat.Version),
		Changes:  int64(d.stat.Version),
		Revision: d.stat.Mzxid,
		Born:     d.stat.Czxid,
		Created:  time.UnixMilli(d.stat.Ctime),
		Modified: time.UnixMilli(d.stat.Mtime),
	}
	if n.Value == nil {
		n.Value = []byte{}
	}
	// A container's owner is the smallest number, and no session.
	if owner := d.stat.EphemeralOwner; owner != 0 && owner != math.MinInt64 {
		n.Owner = sessionID(owner)
		n.Changes = max(0, n.Changes-1) // the write that stamped it; a kazoo lock has none
	}
	return n
}

func sessionID(id int64) string { return "0x" + strconv.FormatUint(uint64(id), 16) }

// read makes a request that changes nothing, again if its connection ends.
func read[T any](ctx context.Context, s *session, f func(*zk.Conn) (T, error)) (T, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		r := call(ctx, s, f)
		if r.err == nil || !r.answered {
			return r.value, r.err
		}
		out, err := means(r.err)
		switch out {
		case refused:
			return r.value, err
		case expired:
			s.end(coord.ErrSessionLost)
			return r.value, err
		}
		// go-zookeeper may need a moment to notice that the connection is gone.
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		case <-s.done:
		}
	}
}

// reply is what became of one request.
type reply[T any] struct {
	value T
	err   error

	handed   bool // to go-zookeeper
	answered bool // by go-zookeeper: err, if any, is its own
}

// call makes one request once there is a connection, and waits for what becomes of
// it, for the end of ctx or of the session.
func call[T any](ctx context.Context, s *session, f func(*zk.Conn) (T, error)) reply[T] {
	if err := s.enter(ctx); err != nil {
		return reply[T]{err: err}
	}
	return entered(ctx, s, f)
}

// entered is call when there is a connection and room.
func entered[T any](ctx context.Context, s *session, f func(*zk.Conn) (T, error)) reply[T] {
	ch := make(chan reply[T], 1)
	go func() {
		defer s.leave()
		v, err := f(s.zk)
		ch <- reply[T]{value: v, err: err, handed: true, answered: true}
	}()
	var err error
	select {
	case r := <-ch:
		return r
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.done:
		err = s.over
	}
	select {
	case r := <-ch:
		if r.err == nil {
			return r
		}
	default:
	}
	return reply[T]{err: err, handed: true}
}

// enter waits for the connection and for room.
func (s *session) enter(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("no context: %w", coord.ErrInvalid)
	}
	if err := s.alive(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	up := s.up
	s.mu.Unlock()
	select {
	case <-up:
	case <-s.done:
		return s.over
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ctx.Err(), s.dialer.why())
	}
	select {
	case s.slots <- struct{}{}:
	case <-s.done:
		return s.over
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.run(); err != nil {
		<-s.slots
		return err
	}
	return nil
}

func (s *session) connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isUp
}

func (s *session) leave() {
	<-s.slots
	s.running.Done()
}

// run counts a goroutine that the session's end waits for.
func (s *session) run() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		s.running.Add(1)
	}
	return s.over
}

// event is go-zookeeper's callback, in its connecting goroutine.
func (s *session) event(e zk.Event) {
	switch e.State {
	case zk.StateHasSession:
		s.mu.Lock()
		if !s.isUp {
			s.isUp = true
			close(s.up)
		}
		s.mu.Unlock()
		s.dirs.reconnected()
	case zk.StateDisconnected:
		s.mu.Lock()
		if s.isUp {
			s.isUp = false
			s.up = make(chan struct{})
		}
		s.mu.Unlock()
		s.dirs.disconnected()
	}
}

// adopt makes c the connection that ends with the session.
func (s *session) adopt(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = c
	return s.over
}

// admit takes the service's answer to a connect request that was sent at the time.
func (s *session) admit(id int64, timeout, sent time.Duration) error {
	s.mu.Lock()
	over := s.over
	if over == nil && id != 0 && s.id == "" {
		s.id, s.timeout = sessionID(id), timeout
		s.deadline.Start(timeout, sent)
	}
	known := s.id
	s.mu.Unlock()
	if over != nil {
		return over
	}
	if id == 0 || sessionID(id) != known {
		s.end(coord.ErrSessionLost)
		return coord.ErrSessionLost
	}
	s.deadline.Extend(sent)
	return nil
}

// alive says why the session is over, if it is, also when no timer could.
func (s *session) alive() error {
	select {
	case <-s.done:
		return s.over
	default:
	}
	if s.deadline.Passed() {
		s.end(coord.ErrSessionLost)
		return s.over
	}
	return nil
}

// maySend keeps everything in after the session is over, except that Close still lets
// out what it found and its own last request.
func (s *session) maySend() error {
	if err := s.alive(); err != coord.ErrClosed {
		return err
	}
	return nil
}

// end is the session's end, for the cause: [coord.ErrSessionLost] or
// [coord.ErrClosed]. Only the first call counts.
func (s *session) end(cause error) {
	s.mu.Lock()
	if s.over != nil {
		s.mu.Unlock()
		return
	}
	s.over = cause
	s.deadline.Stop()
	orderly := cause == coord.ErrClosed && s.isUp
	s.mu.Unlock()
	close(s.done)
	s.quitNow()
	s.group.End(cause)
	go s.wind(orderly)
}

// wind ends what the session consists of; in order, where there is somebody to tell.
func (s *session) wind(orderly bool) {
	defer s.gone()
	s.dirs.end()
	defer s.group.Wait()
	<-s.opened
	if s.zk == nil {
		return
	}
	// Close sends a last request, and waits a second for its answer if it gets out. If it
	// does not, Close waits as long, unless it finds go-zookeeper dialing.
	if orderly {
		defer time.AfterFunc(closeTimeout/2, s.cut).Stop()
	} else {
		s.cut()
		select {
		case <-s.dialer.parked:
		case <-time.After(closeTimeout / 2):
		}
	}
	s.zk.Close()
	s.cut()
	for range s.events {
	}
	s.running.Wait()
}

// cut ends the standing connection.
func (s *session) cut() {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	if c != nil {
		c.Close()
	}
}
