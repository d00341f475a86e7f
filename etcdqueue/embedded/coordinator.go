package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
)

// Config says which store, and how patiently.
type Config struct {
	// Dir holds the store. It is made, readable by its user alone, where there
	// is none; an empty directory is taken over. A directory with other things
	// in it is refused, and so is a store that others than its user may enter.
	Dir string

	SessionTimeout time.Duration // how long a silent process keeps its nodes; 0 means 10 s
	ConnectTimeout time.Duration // how long Open tries; 0 means 5 s

	// Warn is told, in a sentence, what works but should be looked at. nil is
	// silent.
	Warn func(string)

	// Serving is called by [Serve] each time this process begins to run the
	// store. nil is silent.
	Serving func()
}

const defaultConnectTimeout = 5 * time.Second

// check fills in the defaults.
func (cfg *Config) check(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("nil context: %w", coord.ErrInvalid)
	}
	if cfg.SessionTimeout < 0 || cfg.ConnectTimeout < 0 || cfg.SessionTimeout > 24*time.Hour {
		return fmt.Errorf("timeout out of range: %w", coord.ErrInvalid)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	if cfg.Warn == nil {
		cfg.Warn = func(string) {}
	}
	if cfg.Serving == nil {
		cfg.Serving = func() {}
	}
	return ctx.Err()
}

// Coordinator is a process's part in a store: a client of it, and the one that
// runs it while no other process does.
type Coordinator struct {
	inner  *etcdqueue.Coordinator
	keeper *keeper
	close  sync.Once
	err    error
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
	c := &Coordinator{keeper: newKeeper(dir, cfg.Warn)}
	err = c.keeper.guard(ctx, func(ctx context.Context) error {
		c.inner, err = etcdqueue.Open(ctx, etcdqueue.Config{
			Endpoints:      []string{dir.endpoint()},
			SessionTimeout: cfg.SessionTimeout,
			ConnectTimeout: cfg.ConnectTimeout,
			Warn:           cfg.Warn,
			Dial:           c.keeper.dial,
			LeaseHook:      dir.sessions().claim,
		})
		return err
	})
	if err != nil {
		c.keeper.leave(giveUpLimit)
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
	err := c.keeper.guard(ctx, func(ctx context.Context) (err error) {
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
		c.keeper.leave(leaveLimit)
	})
	return c.err
}

// Owner tells which process runs the store: this one, or the one that said so
// last; 0 when none did.
func (c *Coordinator) Owner() (pid int, self bool) { return c.keeper.owner() }

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

// StoppedOwnerError: the process that runs the store is stopped, by Ctrl-Z or a
// debugger, and nobody else can run it before that one goes on or ends. It is
// coord.ErrUnreachable: nothing was changed.
type StoppedOwnerError struct {
	Dir string
	PID int
}

func (e *StoppedOwnerError) Error() string {
	return fmt.Sprintf("store in %s: process %d runs it and is stopped: continue it (kill -CONT %d) or end it", e.Dir, e.PID, e.PID)
}

// Is reports that a StoppedOwnerError is coord.ErrUnreachable.
func (e *StoppedOwnerError) Is(target error) bool { return target == coord.ErrUnreachable }

// guard runs f, and ends it early when the store cannot be reached soon: its owner
// is stopped, and has been for a while, so that one who is continued at once is not
// blamed; or this process was to run it and cannot.
func (k *keeper) guard(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var timer *time.Timer
	var blamed, times int
	mu.Lock()
	timer = time.AfterFunc(checkEvery, func() {
		mu.Lock()
		defer mu.Unlock()
		if pid := k.stoppedOwner(); pid == 0 || pid != blamed {
			blamed, times = pid, 0
		} else if times++; times == stoppedChecks {
			cancel(&StoppedOwnerError{Dir: k.dir.path, PID: pid})
			return
		}
		if _, why := k.failure(); why != nil {
			cancel(&failureError{why})
			return
		}
		if ctx.Err() == nil {
			timer.Reset(checkEvery)
		}
	})
	mu.Unlock()
	err := f(ctx)
	timer.Stop()
	if err == nil {
		return nil
	}
	switch cause := context.Cause(ctx).(type) {
	case *StoppedOwnerError:
		return cause
	case *failureError:
		return cause.error
	}
	if !errors.Is(err, coord.ErrUnreachable) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if pid := k.stoppedOwner(); pid != 0 {
		return &StoppedOwnerError{Dir: k.dir.path, PID: pid}
	}
	if _, why := k.failure(); why != nil {
		return why
	}
	if pid, self := k.owner(); pid != 0 && !self && alive(pid) {
		err = fmt.Errorf("run by process %d: %w", pid, err)
	}
	return unreachable(k.dir, err)
}

const (
	checkEvery    = 50 * time.Millisecond
	stoppedChecks = 4
)

// failureError tells a keeper's failure from the end of a caller's context.
type failureError struct{ error }
