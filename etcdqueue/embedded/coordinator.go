package embedded

import (
	"context"
	"fmt"
	"sync"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
)

// Coordinator is a process's part in a store: a client of it, and the one that
// runs it while no other process does.
type Coordinator struct {
	inner     *etcdqueue.Coordinator
	candidate *candidate
	close     sync.Once
	err       error
}

// Open connects to the store in cfg.Dir, and runs it if no other process does:
// then the nodes of processes that have died are gone when Open returns. It
// takes at most cfg.ConnectTimeout. Errors besides those of [etcdqueue.Open]:
// [*StoppedOwnerError], coord.ErrFormat for a store of a newer program, and
// coord.ErrUnreachable around the reason why the store cannot run here.
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

// Session implements [coord.Coordinator]. A [*StoppedOwnerError] tells that the
// session is over and that the process which runs the store is stopped.
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

// Close implements [coord.Coordinator]. If this process runs the store, it first
// answers what other processes have asked, for at most a few seconds; they go on
// with the next owner.
func (c *Coordinator) Close() error {
	c.close.Do(func() {
		c.err = c.inner.Close()
		c.candidate.stop(stopTimeout)
	})
	return c.err
}

// Owner tells which process runs the store: this one, or the one that said so
// last; 0 when none did.
func (c *Coordinator) Owner() (pid int, self bool) { return c.candidate.owner() }

// Describe implements [coord.Describer]. There is one server, and its mode says
// which process it is.
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
