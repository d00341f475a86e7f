package zkq

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/testhook"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// Option changes how a queue handle works.
type Option func(*options)

type options struct {
	strict   bool
	warn     func(string)
	log      Logger
	holder   lock.Holder
	producer string
	woke     func(context.Context) // of a simulator: one of this handle has let the caller go on
	window   int                   // how many entries processes share out among them; 0: DefaultWindow
	duePage  int                   // how much of the delayed index is read at once; 0: duePage

	maxDeliveries int
}

// init lets this project's tests set the options that users have not.
func init() {
	testhook.Option = func(s testhook.Settings) any {
		return Option(func(o *options) { o.window, o.duePage, o.woke = s.Window, s.DuePage, s.Woke })
	}
}

// check refuses options that no method can work with.
func (o *options) check() error {
	if o.producer != "" {
		if !layout.IsLane(layout.LaneName(o.producer, 0)) {
			return fmt.Errorf("producer %q: not 16 lowercase hexadecimal digits: %w", o.producer, ErrInvalid)
		}
	}
	if o.holder != "" && !layout.IsHolder(string(o.holder)) {
		return fmt.Errorf("holder %q: not 32 lowercase hexadecimal digits: %w", string(o.holder), ErrInvalid)
	}
	return nil
}

// Strict makes every take look at the whole queue afresh before it claims, so
// that order holds to the letter between processes too: the claimed entry was
// the most urgent of all whose puts had returned before the take began. It costs
// two listings for each entry, and on ZooKeeper those grow with the backlog.
func Strict() Option { return func(o *options) { o.strict = true } }

// Warn has f told, once for each, about nodes among the entries that are not
// entries; they are skipped. A take tells about those that it comes across, Stat
// about all, up to a thousand. Stat, Entries and Purge also tell about persistent nodes
// among the locks that are none: an entry of that name is never taken, until
// somebody removes the node. f is told, too, about a [Held] that the program dropped
// without finishing it, when the garbage collector has found that out. f is called from
// the goroutine that met the node, or by the runtime, and must not use the queue. A panic
// in it goes to the standard logger of log/slog.
func Warn(f func(message string)) Option { return func(o *options) { o.warn = f } }

// LogTo has l told what the handle does on its own: a take that waits because the queue is
// paused (Warn), and goes on (Info); a call that has waited for a second because the service
// is busy or out of space, and the end of that (both Warn, once for each kind of call); an
// entry that a take moves to the dead because of [MaxDeliveries] (Error). Both a *slog.Logger and a hclog.Logger are one.
func LogTo(l Logger) Option { return func(o *options) { o.log = l } }

// MaxDeliveries has a take move an entry to the dead ([StateDead]) that was delivered n
// times and is back, instead of handing it out once more: workers that died with
// it, or lost their locks, count as those that said [Held.Fail]; [Held.Release] does
// not. 0, the default, is no ceiling. Give all handles of a queue the same one.
func MaxDeliveries(n int) Option { return func(o *options) { o.maxDeliveries = n } }

// Holder sets the 32 lowercase hexadecimal digits by which others see who holds
// an entry. Without it each handle makes up its own, which is what you want
// outside tests: no two handles may share one. Anything else is refused by every method,
// with [ErrInvalid].
func Holder(id string) Option { return func(o *options) { o.holder = lock.Holder(id) } }

// Producer sets the 16 lowercase hexadecimal digits that begin the handle's tokens.
// Without it each handle makes up its own, which is what you want outside tests: no
// two handles may ever share one. Anything else is refused by every method, with
// [ErrInvalid].
func Producer(id string) Option { return func(o *options) { o.producer = id } }

// PutOption changes a put.
type PutOption func(*putOptions)

type putOptions struct {
	priority int
	delay    time.Duration
	ttl      time.Duration
	wait     time.Duration
	unique   []byte // nil: it is not
	token    *Token
	note     []byte
	noteFor  func(put int) []byte // instead of note
}

// WithPriority puts with a priority from 0, the most urgent, to 999; without it
// the priority is 100. Others are refused with [ErrInvalidPriority].
func WithPriority(p int) PutOption { return func(o *putOptions) { o.priority = p } }

// WithDelay puts for later: nobody is handed the entry before d is over, by this machine's
// clock, and judged by that of whoever makes it ready. Until then Entries and Stat call it
// delayed, by the name that the put returned; then it becomes an entry with a name of its
// own, behind those of its priority that are there: at once where somebody takes, with the
// next take where nobody does. It counts in no Len before. A d of 0 or less is no delay. A
// simple [Queue] refuses it, with [ErrInvalid].
func WithDelay(d time.Duration) PutOption { return func(o *putOptions) { o.delay = d } }

// WithTTL gives the entry a time to live, from the put on, whatever delay it has: after d
// nobody is handed it, by the clocks of this machine and of who takes; who comes across it
// then removes it. Entries, Peek, Stat and WaitEmpty pass it over as if it were gone, Len
// counts it until it is. One that is held when it expires stays so. The dead do not expire.
// A d of 0 or less is for ever. A simple [Queue] refuses it, with [ErrInvalid].
func WithTTL(d time.Duration) PutOption { return func(o *putOptions) { o.ttl = d } }

// WithUnique puts only if no entry of the key is there that is ready, held or delayed:
// otherwise the error is an [*ExistsError], and nothing was put. The key is free again in
// the commit that removes the entry, or moves it to the dead; an entry that is requeued has
// none. It is for one value. A simple [Queue] refuses it, with [ErrInvalid].
func WithUnique(key string) PutOption {
	return func(o *putOptions) { o.unique = append([]byte{}, key...) }
}

// WithWait has the put wait for d, or until its context ends, while the queue is full;
// without it a full queue is [ErrFull] at once, and with it then.
func WithWait(d time.Duration) PutOption { return func(o *putOptions) { o.wait = d } }

// MaxKey is the longest key of [WithUnique], in bytes.
const MaxKey = 4096

// headers are what travels with the values.
func (o putOptions) headers() (layout.Headers, error) {
	var h layout.Headers
	if o.unique != nil {
		if len(o.unique) > MaxKey {
			return h, &coord.LimitError{What: "key", Unit: "bytes", Size: len(o.unique), Limit: MaxKey}
		}
		h.Unique = layout.KeySum(string(o.unique))
	}
	var err error
	if o.ttl > 0 {
		h.ExpiresMS, err = expiresIn(o.ttl)
	}
	return h, err
}

// until is when a put stops waiting for room.
func (o putOptions) until() time.Time {
	const longest = 100 * 365 * 24 * time.Hour
	return time.Now().Add(min(o.wait, longest))
}

// WithToken makes the put with a token of [LockingQueue.NewToken]. Made again with
// the same token, by any process and however often, it is applied once: the later
// ones return the names that the first was given, or empty ones once an entry was
// taken. A token is for one put: whether a later one has the same values, or goes to
// the same queue, nobody looks, and nothing of it is put. [ErrTokenVoid]: [Resolve]
// was asked before the put was applied, and it is not. [ErrTokenExpired]: the token is
// older than a day and its node gone; nothing was put by this call, unless the error
// is an [*UnknownError] too.
func WithToken(t Token) PutOption { return func(o *putOptions) { o.token = &t } }

// WithNote keeps up to [MaxNote] bytes beside the put, for [Outcome.Note].
func WithNote(note []byte) PutOption { return func(o *putOptions) { o.note = note } }

// WithNoteOf is WithNote where the note depends on how many of the values one commit puts:
// see [LockingQueue.PutSome].
func WithNoteOf(note func(put int) []byte) PutOption {
	return func(o *putOptions) { o.noteFor = note }
}

// MaxNote is the largest note in bytes.
const MaxNote = 1024

func newPut(opts []PutOption) (putOptions, error) {
	o := putOptions{priority: priority.Default}
	for _, set := range opts {
		set(&o)
	}
	if err := priority.Check(o.priority); err != nil {
		return o, fmt.Errorf("put: %w", err)
	}
	if err := checkNote(o.note); err != nil {
		return o, fmt.Errorf("put: %w", err)
	}
	if o.token != nil {
		if err := o.token.check(); err != nil {
			return o, fmt.Errorf("put: %w", err)
		}
	}
	return o, nil
}

func checkNote(note []byte) error {
	if len(note) > MaxNote {
		return &coord.LimitError{What: "note", Unit: "bytes", Size: len(note), Limit: MaxNote}
	}
	return nil
}

// Logger takes messages with pairs of keys and values.
type Logger interface {
	Debug(message string, args ...any)
	Info(message string, args ...any)
	Warn(message string, args ...any)
	Error(message string, args ...any)
}

// guarded is a user's Logger whose panics do not end the process: they go to the standard
// logger of log/slog.
type guarded struct{ to Logger }

func (g guarded) Debug(m string, args ...any) { guardLog(g.to.Debug, m, args) }
func (g guarded) Info(m string, args ...any)  { guardLog(g.to.Info, m, args) }
func (g guarded) Warn(m string, args ...any)  { guardLog(g.to.Warn, m, args) }
func (g guarded) Error(m string, args ...any) { guardLog(g.to.Error, m, args) }

func guardLog(log func(string, ...any), message string, args []any) {
	defer func() {
		if v := recover(); v != nil {
			slog.Error("zkq: the worker's Logger panicked", "panic", fmt.Sprint(v), "message", message)
		}
	}()
	log(message, args...)
}

// The kinds of calls, as they are logged.
const (
	actPut       = "put"
	actTake      = "take"
	actFinish    = "finish"
	actUpdate    = "update"
	actRelease   = "release"
	actMove      = "move of due entries"
	actConfigure = "change of the configuration"
)
