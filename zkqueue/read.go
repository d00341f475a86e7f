package zkqueue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

// Get reads one node; see [coord.Session]. The read is linearizable.
func (s *session) Get(ctx context.Context, path string) (coord.Node, error) {
	if err := coord.CheckPath(path); err != nil {
		return coord.Node{}, fmt.Errorf("get: %w", err)
	}
	// The connected server may lag behind what other clients have been answered.
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

// Read reads many nodes; see [coord.Session]. It sends one request for up to 32 nodes if
// the server is 3.6 or later, and one request per node otherwise.
func (s *session) Read(ctx context.Context, paths ...string) ([]coord.Node, error) {
	if ctx == nil {
		return nil, fmt.Errorf("read: no context: %w", coord.ErrInvalid)
	}
	for _, path := range paths {
		if err := coord.CheckPath(path); err != nil {
			return nil, fmt.Errorf("read: %w", err)
		}
	}
	if err := s.checkAlive(); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	found, err := s.readNodes(ctx, paths)
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

// Count returns how many direct children dir has; see [coord.Session]. The read is
// linearizable.
func (s *session) Count(ctx context.Context, dir string) (int, error) {
	if err := coord.CheckDir(dir); err != nil {
		return 0, fmt.Errorf("count: %w", err)
	}
	err := s.barrier(ctx)
	var d data
	if err == nil {
		d, err = s.data(ctx, s.fullPath(dir))
	}
	if err != nil && !errors.Is(err, coord.ErrNotExist) {
		return 0, fmt.Errorf("count %s: %w", dir, err)
	}
	return int(d.stat.NumChildren), nil
}

// barrier waits until the connected server has applied everything that the service has
// answered to any client before. It commits nothing, together with the commits that wait at
// the same time.
func (s *session) barrier(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("no context: %w", coord.ErrInvalid)
	}
	var err error
	s.newBackoff().Repeat(ctx, s.done, func() retry.Decision {
		if err = s.checkAlive(); err != nil {
			return retry.Stop
		}
		_, err = s.group.Do(ctx, nil)
		switch {
		case err == nil:
		case ctx.Err() != nil && !s.connected():
			err = fmt.Errorf("%w: %w", ctx.Err(), s.dialer.failureError())
		case ctx.Err() != nil:
			err = ctx.Err()
		case errors.Is(err, coord.ErrUnknown):
			// go-zookeeper may need a moment to notice that the connection is gone.
			return retry.Later
		}
		return retry.Stop
	})
	return err
}

// data is the value and the metadata of one node.
type data struct {
	value      []byte
	stat       zk.Stat
	unreadable bool
}

// data reads a node from the connected server.
func (s *session) data(ctx context.Context, fullPath string) (data, error) {
	return read(ctx, s, func(z *zk.Conn) (data, error) {
		value, stat, err := z.Get(fullPath)
		if err != nil {
			return data{}, err
		}
		return data{value: value, stat: *stat}, nil
	})
}

// allowedData reads a node whose value this user may not be allowed to read. Every user may
// ask whether a node exists and gets its metadata.
func (s *session) allowedData(ctx context.Context, fullPath string) (data, error) {
	d, err := s.data(ctx, fullPath)
	if !errors.Is(err, coord.ErrForbidden) {
		return d, err
	}
	return read(ctx, s, func(z *zk.Conn) (data, error) {
		there, stat, err := z.Exists(fullPath)
		if err == nil && !there {
			err = zk.ErrNoNode
		}
		if err != nil {
			return data{}, err
		}
		return data{stat: *stat, unreadable: true}, nil
	})
}

// node converts the data of the node at path to coord's form.
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
	// The owner of a container node is the smallest int64, which is no session.
	if owner := d.stat.EphemeralOwner; owner != 0 && owner != math.MinInt64 {
		n.Owner = sessionID(owner)
		n.Changes = max(0, n.Changes-1) // without the second write of create, which kazoo's locks do not have
	}
	return n
}

// parallelReads is how many requests of one call are under way at a time, where each is for one
// node. Where it is for several, answersAhead are.
const (
	parallelReads      = 64 // parallelReads is how many single reads one call has in flight.
	parallelMultiReads = 2  // parallelMultiReads is how many multiReads one call has in flight.
)

// readNodes reads the nodes at paths. The result has one element per path, nil where no
// node exists.
func (s *session) readNodes(ctx context.Context, paths []string) ([]*data, error) {
	many := s.multiReads.nodesPerRequest()
	if len(paths) == 1 || many == 1 || s.watches.oneShot() { // servers without recursive watches have no multiRead
		return s.readSingly(ctx, paths)
	}
	parts, err := inParallel(ctx, slices.Collect(slices.Chunk(paths, many)), parallelMultiReads, s.readMany)
	if err != nil {
		return nil, err
	}
	all := make([]*data, 0, len(paths))
	for _, part := range parts {
		all = append(all, *part...)
	}
	return all, nil
}

// readSingly reads each node with a request of its own.
func (s *session) readSingly(ctx context.Context, paths []string) ([]*data, error) {
	found, err := inParallel(ctx, paths, parallelReads, func(ctx context.Context, path string) (data, error) {
		return s.allowedData(ctx, s.fullPath(path))
	})
	s.multiReads.noteValues(found)
	return found, err
}

// readMany reads up to maxReadNodes nodes with one request. If that fails it reads each by
// itself, which also finds the cause.
func (s *session) readMany(ctx context.Context, paths []string) ([]*data, error) {
	t := multiRead{fullPaths: make([]string, len(paths))}
	for i, path := range paths {
		t.fullPaths[i] = s.fullPath(path)
	}
	r := call(ctx, s, func(*zk.Conn) ([]*data, error) { return t.send(s) })
	if r.err != nil && r.answered {
		return s.readSingly(ctx, paths)
	}
	for i, d := range r.value {
		if d == nil || !d.unreadable {
			continue
		}
		known, err := s.allowedData(ctx, t.fullPaths[i])
		switch {
		case err == nil:
			*d = known
		case errors.Is(err, coord.ErrNotExist):
			r.value[i] = nil
		default:
			return nil, err
		}
	}
	s.multiReads.noteValues(r.value)
	return r.value, r.err
}

// inParallel calls f for every element of of, in several goroutines at a time. The result
// has nil where f returned ErrNotExist. The first other error cancels the rest.
func inParallel[Q, T any](ctx context.Context, of []Q, readers int, ask func(context.Context, Q) (T, error)) ([]*T, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	found := make([]*T, len(of))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(readers, len(of)) {
		wg.Go(func() {
			for i := range next {
				v, err := ask(ctx, of[i])
				switch {
				case err == nil:
					found[i] = &v
				case !errors.Is(err, coord.ErrNotExist):
					cancel(err)
				}
			}
		})
	}
	for i := range of {
		next <- i
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return found, nil
}
