package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// call is one run of a verb: its settings and arguments, checked. Verbs use it to open
// the coordinator and to describe errors.
type call struct {
	*program
	verb  verb
	flags *cli.Context
	arguments
	settings settings
	queue    string            // without its leading slash; "" if the verb has none
	holder   string            // names this process in its locks; set by the first newLocking
	second   chan *signalError // receives the second signal, if the verb has twoSignals
	warn     func(string)      // receives the driver's warnings; nil logs them
}

// queue has the operations that both layouts support.
type queue interface {
	Put(ctx context.Context, value []byte, opts ...zkq.PutOption) (string, error)
	PutAll(ctx context.Context, values [][]byte, opts ...zkq.PutOption) ([]string, error)
	Entries(ctx context.Context, states ...zkq.State) iter.Seq2[zkq.Entry, error]
	EntriesWithValues(ctx context.Context, states ...zkq.State) iter.Seq2[zkq.Entry, error]
	FindNames(ctx context.Context, tails ...string) (map[string][]string, error)
	Peek(ctx context.Context, name string) (zkq.Entry, error)
	Stat(ctx context.Context) (zkq.Stat, error)
	Remove(ctx context.Context, name string, force bool) error
	RemoveAll(ctx context.Context, names []string, force bool) iter.Seq2[string, error]
	PurgeInSteps(ctx context.Context, s zkq.State, keep int) iter.Seq2[int, error]
	WaitEmpty(ctx context.Context) error
	Close() error
}

// newCall splits the verb's arguments. prepare checks them.
func (p *program) newCall(c *cli.Context, v verb) (*call, error) {
	k := &call{program: p, verb: v, flags: c}
	rest := c.Args().Slice()
	if v.hidden {
		k.words = rest
		return k, nil
	}
	var err error
	k.arguments, err = p.splitArguments(v, c.Command, rawArguments(c), rest)
	return k, err
}

// prepare reads the settings and checks everything that needs no coordinator.
func (k *call) prepare() error {
	if k.verb.hidden {
		return nil
	}
	var err error
	if k.settings, err = readSettings(k.flags, k.env); err != nil && !k.verb.offline {
		return err
	}
	k.out.json = k.settings.json
	k.log = newLogger(k.messages, k.settings)
	if !k.verb.offline {
		for _, warning := range k.env.unknownVariables() {
			k.log.Warn(printable(warning))
		}
	}
	switch n := len(k.words); {
	case n == 0 && k.verb.min > 0 && k.verb.queue:
		return usageError("", "QUEUE is missing")
	case n < k.verb.min:
		return usageError("", "%s, and %s takes %s", pluralize(n, "argument", "arguments"), k.verb.name, k.verb.args)
	case k.verb.max >= 0 && n > k.verb.max:
		return usageError("", "argument %s is one too many", quoteWord(k.words[k.verb.max]))
	}
	if k.verb.queue && len(k.words) > 0 {
		if k.queue, err = queueName(k.words[0]); err != nil {
			return err
		}
	}
	if k.verb.locking && k.settings.layout == layoutPlain {
		return usageError("", "%s needs the locking layout: a plain queue has no locks", k.verb.name)
	}
	return nil
}

// queueName checks a queue's name and returns it without its leading slash.
func queueName(name string) (string, error) {
	canonical, err := zkq.CheckName(name)
	if err != nil {
		return "", &failure{code: exitUsage, err: err}
	}
	return strings.TrimPrefix(canonical, "/"), nil
}

// connect opens the coordinator. Calls that change something should use the context of
// changeContext.
func (k *call) connect(ctx context.Context) (coord.Coordinator, error) {
	warn := k.warn
	if warn == nil {
		warn = func(message string) { k.log.Warn(printable(message)) }
	}
	c, err := k.open(ctx, k.settings.target, openOptions{
		sessionTimeout: k.settings.sessionTimeout,
		connectTimeout: k.settings.connectTimeout,
		credentials:    k.settings.credentials,
		warn:           warn,
	})
	if err != nil {
		return nil, k.describe(err)
	}
	return c, nil
}

// withCoordinator opens the coordinator, runs do, and closes the coordinator. An error of the close
// is only a warning, because it cannot undo the changes that do made.
func (k *call) withCoordinator(ctx context.Context, do func(coord.Coordinator) error) error {
	c, err := k.connect(ctx)
	if err != nil {
		return err
	}
	defer k.logSessions(ctx, c)()
	defer func() {
		if err := c.Close(); err != nil {
			k.log.Warn("close " + k.settings.target.String() + ": " + printable(err.Error()))
		}
	}()
	return do(c)
}

// logSessions logs at debug level when a session begins and ends. stop ends the logging
// and waits for its goroutine.
func (k *call) logSessions(ctx context.Context, c coord.Coordinator) (stop func()) {
	if !k.log.IsDebug() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			s, err := c.Session(ctx)
			if err != nil {
				return
			}
			k.log.Debug("session begins", "id", s.ID(), "timeout", s.Timeout())
			select {
			case <-s.Done():
				k.log.Debug("session is over", "id", s.ID())
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}

// withQueue opens the coordinator as withCoordinator does, and runs do with the verb's queue in the
// layout of findLayout.
func (k *call) withQueue(ctx context.Context, do func(queue) error) error {
	return k.withCoordinator(ctx, func(c coord.Coordinator) error {
		l, err := k.findLayout(ctx, c)
		if err != nil {
			return k.describe(err)
		}
		q := k.newQueue(c, k.queue, l)
		defer q.Close()
		return do(q)
	})
}

// findLayout returns the layout in which to open the verb's queue. A verb with anyLayout
// and no --layout uses the layout that the queue has. All others use the setting.
func (k *call) findLayout(ctx context.Context, c coord.Coordinator) (layout, error) {
	if k.settings.layoutGiven || !k.verb.anyLayout {
		return k.settings.layout, nil
	}
	ctx, cancel := k.changeContext(ctx)
	defer cancel()
	found, err := zkq.FindLayout(ctx, c, k.queue)
	return cmp.Or(layout(found), k.settings.layout), err
}

// newQueue opens a queue in layout l. The caller closes it.
func (k *call) newQueue(c coord.Coordinator, name string, l layout) queue {
	if l == layoutPlain {
		return zkq.NewQueue(c, name, zkq.Warn(k.logWarning), zkq.LogTo(k.log))
	}
	return k.newLocking(c, name)
}

// newLocking opens a queue in the locking layout. All queues of one call share a holder.
// The caller closes the queue.
func (k *call) newLocking(c coord.Coordinator, name string, more ...zkq.Option) *zkq.LockingQueue {
	if k.holder == "" {
		var id [16]byte
		rand.Read(id[:])
		k.holder = hex.EncodeToString(id[:])
	}
	return zkq.NewLockingQueue(c, name, append(more, zkq.Warn(k.logWarning), zkq.LogTo(k.log), zkq.Holder(k.holder))...)
}

// logWarning logs a warning of the library about a node.
func (k *call) logWarning(message string) { k.log.Warn(printable(message)) }

// describe returns err as a failure that names the verb, the queue and the coordinator. It
// keeps an error that already names them.
func (k *call) describe(err error) error {
	var f *failure
	if err == nil || errors.As(err, &f) && f.what != "" {
		return err
	}
	if f == nil {
		f = classify(err)
	} else {
		named := *f
		f = &named
	}
	f.what = k.verb.name
	if k.queue != "" {
		f.what += " " + k.queue
	}
	f.what += " at " + k.settings.target.String()
	return f
}

// toSignalError gives the error of a verb that a signal ended the exit code of that
// signal. Errors that are settled, and usage errors, keep their own code.
func (k *call) toSignalError(ctx context.Context, err error) error {
	var sig *signalError
	if err == nil || !errors.As(context.Cause(ctx), &sig) {
		return err
	}
	var f *failure
	if errors.As(err, &f) && (f.settled || f.code == exitUsage) {
		return err
	}
	message := error(sig)
	if f != nil && errors.As(f.err, &sig) {
		message = f.err // it also says how many entries were changed
	}
	if errors.Is(err, coord.ErrUnknown) {
		message = fmt.Errorf("%w, and the outcome of the last change is unknown", message)
	}
	hint := ""
	if unknown := (*zkq.UnknownError)(nil); errors.As(err, &unknown) {
		hint = classify(err).hint // names the token, which is stored nowhere else
	}
	return k.describe(&failure{code: sig.code(), err: message, hint: hint})
}

// changeContext returns a context for one change. It ends 2 s after ctx, so that a change in
// flight can still get its answer and its outcome is known. It also ends once the
// session timeout and the connect timeout have passed.
func (k *call) changeContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return extendContext(ctx, k.settings.sessionTimeout+k.settings.connectTimeout, 2*time.Second)
}

// waitingChangeContext is changeContext for a change that may wait for as long as wait before it is
// made, say for room in a full queue.
func (k *call) waitingChangeContext(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	most := k.settings.sessionTimeout + k.settings.connectTimeout
	if wait > forever-most {
		return extendContext(ctx, forever, 2*time.Second)
	}
	return extendContext(ctx, wait+most, 2*time.Second)
}

// extendContext returns a context that ends after most, or extra after the end of ctx.
func extendContext(ctx context.Context, most, extra time.Duration) (context.Context, context.CancelFunc) {
	long, cancel := context.WithTimeout(context.WithoutCancel(ctx), most)
	stop := context.AfterFunc(ctx, func() {
		t := time.NewTimer(extra)
		defer t.Stop()
		select {
		case <-t.C:
			cancel()
		case <-long.Done():
		}
	})
	return long, func() {
		stop()
		cancel()
	}
}
