package embedded

import (
	"context"
	"fmt"
	"sync"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
)

// Coordinator is a [coord.Coordinator] that is a client of the store, and runs the store
// while no other process does. It is safe for use by several goroutines.
type Coordinator struct {
	inner     *etcdqueue.Coordinator
	candidate *candidate
	close     sync.Once
	err       error
}

// Open connects to the store in cfg.Dir, and runs the store if no other process does; in
// that case the nodes of dead processes are gone when it returns. It blocks for at most
// cfg.ConnectTimeout. Its errors are those of [etcdqueue.Open], and [*StoppedOwnerError],
// coord.ErrFormat for a store of a newer program, and coord.ErrUnreachable with the reason
// why the store cannot run here.
func Open(ctx context.Context, cfg Config) (*Coordinator, error) {
	if err := cfg.check(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	dir, err := openDirectory(cfg.Dir)
	if err != nil {
		return nil, err
	}
	c := &Coordinator{candidate: newCandidate(dir, cfg.Warn)}
	err = c.candidate.withOwnerChecks(ctx, func(ctx context.Context) error {
		c.inner, err = etcdqueue.Open(ctx, etcdqueue.Config{
			Endpoints:      []string{dir.endpoint()},
			SessionTimeout: cfg.SessionTimeout,
			ConnectTimeout: cfg.ConnectTimeout,
			Warn:           cfg.Warn,
			Dial:           c.candidate.dial,
			LeaseHook:      dir.sessions().lock,
		})
		return err
	})
	if err != nil {
		c.candidate.stop(giveUpTimeout)
		return nil, err
	}
	return c, nil
}

// Session returns the live session, or opens a new one; see [coord.Coordinator]. A
// [*StoppedOwnerError] means that the session is over and that the owner of the store is
// stopped.
func (c *Coordinator) Session(ctx context.Context) (coord.Session, error) {
	if ctx == nil {
		return nil, fmt.Errorf("session: nil context: %w", coord.ErrInvalid)
	}
	var s coord.Session
	err := c.candidate.withOwnerChecks(ctx, func(ctx context.Context) (err error) {
		s, err = c.inner.Session(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends the session; see [coord.Coordinator]. If this process runs the store, Close
// first answers the requests of other processes, for a few seconds at most. The other
// processes go on with the next owner.
func (c *Coordinator) Close() error {
	c.close.Do(func() {
		c.err = c.inner.Close()
		c.candidate.stop(stopTimeout)
	})
	return c.err
}

// Owner returns the process that runs the store: this one (self), or the one that wrote its
// number last. It is 0 if there was none.
func (c *Coordinator) Owner() (pid int, self bool) { return c.candidate.owner() }

// Describe implements [coord.Describer]. There is one server; its mode says which process
// it is.
func (c *Coordinator) Describe(ctx context.Context) (coord.Service, error) {
	service, err := c.inner.Describe(ctx)
	if err != nil {
		return service, err
	}
	for i := range service.Servers {
		switch pid, self := c.Owner(); {
		case self:
			service.Servers[i].Mode = "run by this process"
		case pid != 0:
			service.Servers[i].Mode = fmt.Sprintf("run by process %d", pid)
		}
	}
	return service, nil
}
