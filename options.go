package zkq

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/bulk"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/testhook"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// Option changes how a queue handle works. Give options to [NewLockingQueue] or [NewQueue].
type Option func(*options)

// options holds what the Options of a handle set; a zero field means its default.
type options struct {
	strict   bool
	warn     func(string)
	log      Logger
	holder   lock.Holder
	producer string
	woke     func(context.Context) // a simulator's: another goroutine of the handle let the caller go on
	window   int                   // how many entries at the head workers divide among them; 0: DefaultWindow
	watchers int                   // how many of many idle workers watch the queue; 0: DefaultWatchers
	duePage  int                   // how many names of the delayed index a take lists at once; 0: duePage
	movePage int                   // the same for the mover's goroutine
	bulk     bulkSize              // how a change of many entries is divided into commits

	maxDeliveries int // 0: no limit
}

// bulkSize is how a change of many entries is divided into commits. Tests make the commits small.
type bulkSize struct{ entries int } // in a commit; 0: bulk.Size, and several commits are under way

// size returns how many entries share a commit at most.
func (b bulkSize) size() int {
	if b.entries > 0 {
		return b.entries
	}
	return bulk.Size
}

// inParts yields the results of do for parts of the items; see [bulk.InParts].
func inParts[T, R any](b bulkSize, items []T, do func(part []T) R) iter.Seq[R] {
	underWay := bulk.UnderWay
	if b.entries > 0 {
		underWay = 1
	}
	return bulk.InParts(items, b.size(), underWay, do)
}

// init lets this project's tests set options that are not public.
func init() {
	testhook.Option = func(s testhook.Settings) any {
		return Option(func(o *options) {
			o.window, o.watchers, o.duePage, o.bulk.entries, o.woke = s.Window, s.Watchers, s.DuePage, s.Bulk, s.Woke
		})
	}
}

// check returns an [ErrInvalid] for options that no method can work with.
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

// Strict makes take order exact between processes too. The claimed entry is then the most urgent
// one of all whose puts had returned before the take began. Without it, a take may go by a
// listing that is a little older. Strict takes list the queue before each claim: two listings
// for each entry, which on ZooKeeper grow with the backlog.
func Strict() Option { return func(o *options) { o.strict = true } }

// Warn calls f with messages about the queue that need a human. Each is given once:
//
//   - A node among the entries is no entry. The queue skips it. A take warns of those that it
//     meets, and Stat of all, up to a thousand.
//   - A persistent node among the locks is no lock. An entry of its name is never taken until an
//     operator removes the node. Stat, Entries and Purge warn of it.
//   - The program dropped a [Held] without finishing it. The garbage collector finds that out.
//
// f is called by the goroutine that met the node, or by the runtime. It must not use the queue.
// A panic in f is logged with the standard logger of log/slog.
func Warn(f func(message string)) Option { return func(o *options) { o.warn = f } }

// LogTo logs to l what the handle does on its own:
//
//   - a take waits because the queue is paused (Warn), and goes on (Info);
//   - calls have waited for a second because the service is busy or out of space, and are
//     served again (both Warn, once for each kind of call);
//   - a take moves an entry to the dead because of [MaxDeliveries] (Error).
//
// A *slog.Logger and a hclog.Logger both implement Logger. l is called by the goroutines that
// work on the queue.
func LogTo(l Logger) Option { return func(o *options) { o.log = l } }

// MaxDeliveries gives up on an entry after n deliveries, even if no worker lived long enough to
// report a failure. This protects workers from an entry that crashes each of them. A take that
// meets such an entry moves it to the dead ([StateDead]) and goes on with the next one.
//
// Deliveries that ended in a crash, a lost lock or [Held.Fail] count; [Held.Release] does not.
// 0, the default, means no limit. Give all handles of a queue the same number: each handle goes
// by its own.
func MaxDeliveries(n int) Option { return func(o *options) { o.maxDeliveries = n } }

// Holder sets the name of the handle in its locks: 32 lowercase hexadecimal digits. Without it
// each handle makes up a random one. Set it only in tests, because no two handles may share a
// name. With any other text every method returns [ErrInvalid].
func Holder(id string) Option { return func(o *options) { o.holder = lock.Holder(id) } }

// Producer sets the 16 lowercase hexadecimal digits that begin the handle's tokens. Without it
// each handle makes up random ones. Set it only in tests, because no two handles may ever share
// them. With any other text every method returns [ErrInvalid].
func Producer(id string) Option { return func(o *options) { o.producer = id } }

// PutOption changes a put. Options apply to all values of a call.
type PutOption func(*putOptions)

// putOptions holds what the PutOptions of a call set.
type putOptions struct {
	priority int
	delay    time.Duration        // 0 or less: none
	ttl      time.Duration        // 0 or less: for ever
	wait     time.Duration        // how long to wait while the queue is full
	unique   []byte               // the unique key; nil: none
	token    *Token               // nil: none
	note     []byte               // stored beside the put
	noteFor  func(put int) []byte // returns the note for a number of values; instead of note
}

// WithPriority sets the priority: from 0, the most urgent, to 999. Without it the priority is
// 100. Other numbers are refused with [ErrInvalidPriority]. kazoo's priority is the same.
func WithPriority(p int) PutOption { return func(o *putOptions) { o.priority = p } }

// WithDelay puts a delayed entry: no process takes it before d is over. Until then Entries and
// Stat show it as delayed, under the name that the put returned, and Len does not count it. When
// it is due it becomes a ready entry with a new name, behind the entries of its priority. That
// happens at once while any process takes from the queue, and otherwise with the next take.
//
// The due time is by this machine's clock; the process that makes the entry ready compares it
// with its own clock. A d of 0 or less is no delay. A delay that ends after the year 2285 is
// refused with [ErrInvalid], and so is any delay in a simple [Queue].
func WithDelay(d time.Duration) PutOption { return func(o *putOptions) { o.delay = d } }

// WithTTL gives the entry a time to live: after d no process takes it. The time begins with the
// put, even if the entry is delayed. The end is by this machine's clock; a take compares it with
// the clock of its own machine.
//
// A take that meets an expired entry removes it. Entries, Peek, Stat and WaitEmpty skip it
// before, but Len counts it until it is removed. An entry that is held when it expires stays
// held. Dead entries do not expire. A d of 0 or less means for ever. A simple [Queue] refuses a
// time to live with [ErrInvalid].
func WithTTL(d time.Duration) PutOption { return func(o *putOptions) { o.ttl = d } }

// WithUnique puts the entry only if no ready, held or delayed entry has the same key. Otherwise
// the error is an [*ExistsError] with the name of that entry, and nothing was put. Of two puts
// with one key at the same time, only one is applied.
//
// The key is free again with the commit that removes the entry or moves it to the dead. An
// entry that is requeued has no key. The key has at most [MaxKey] bytes. It is for one value: a
// put of several, and a simple [Queue], refuse it with [ErrInvalid].
func WithUnique(key string) PutOption {
	return func(o *putOptions) { o.unique = append([]byte{}, key...) }
}

// WithWait lets the put block while the queue is full, until d is over; then the error is
// [ErrFull]. If its context ends first, the error is the context's. Without WithWait a put into
// a full queue returns [ErrFull] at once. A simple [Queue] refuses it with [ErrInvalid].
func WithWait(d time.Duration) PutOption { return func(o *putOptions) { o.wait = d } }

// MaxKey is the greatest length of a key of [WithUnique], in bytes. A longer one is refused with
// [ErrTooLarge].
const MaxKey = 4096

// headers returns the headers that the put stores with each value: unique key and time to live.
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

// until returns when a put stops waiting for room.
func (o putOptions) until() time.Time {
	const longest = 100 * 365 * 24 * time.Hour
	return time.Now().Add(min(o.wait, longest))
}

// WithToken makes the put with a token of [LockingQueue.NewToken]. However often processes make
// a put with the same token, it is applied once. Later calls return the names of the first put,
// or empty ones for entries that were removed since.
//
// Use a token for one put only. A later put with it puts nothing, even if its values or its
// queue are others; that is not checked. Errors are
//
//   - [ErrTokenVoid]: [Resolve] was called before the put was applied. Nothing is ever put with
//     the token.
//   - [ErrTokenExpired]: the token is older than a day and its node is gone. This call put
//     nothing, unless the error is an [*UnknownError] too.
func WithToken(t Token) PutOption { return func(o *putOptions) { o.token = &t } }

// WithNote stores a note of up to [MaxNote] bytes in the commit of the put. [Resolve] returns it
// in [Outcome].Note: for example where in a file the next put begins.
func WithNote(note []byte) PutOption { return func(o *putOptions) { o.note = note } }

// WithNoteOf is WithNote for a note that depends on how many of the values a commit puts: see
// [LockingQueue.PutSome]. note is called with that number, before each attempt.
func WithNoteOf(note func(put int) []byte) PutOption {
	return func(o *putOptions) { o.noteFor = note }
}

// MaxNote is the greatest length of a note, in bytes. A longer one is refused with [ErrTooLarge].
const MaxNote = 1024

// newPut returns the options of a put, or the error of the first that is invalid.
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

// checkNote refuses a note that is too long.
func checkNote(note []byte) error {
	if len(note) > MaxNote {
		return &coord.LimitError{What: "note", Unit: "bytes", Size: len(note), Limit: MaxNote}
	}
	return nil
}

// Logger logs messages with pairs of keys and values. A *slog.Logger is one. Its methods are
// called by several goroutines.
type Logger interface {
	Debug(message string, args ...any)
	Info(message string, args ...any)
	Warn(message string, args ...any)
	Error(message string, args ...any)
}

// guarded calls a user's Logger. A panic in it does not end the process: it is logged with the
// standard logger of log/slog.
type guarded struct{ to Logger }

func (g guarded) Debug(m string, args ...any) { guardLog(g.to.Debug, m, args) }
func (g guarded) Info(m string, args ...any)  { guardLog(g.to.Info, m, args) }
func (g guarded) Warn(m string, args ...any)  { guardLog(g.to.Warn, m, args) }
func (g guarded) Error(m string, args ...any) { guardLog(g.to.Error, m, args) }

// guardLog calls one method of a user's Logger, and recovers a panic in it.
func guardLog(log func(string, ...any), message string, args []any) {
	defer func() {
		if v := recover(); v != nil {
			slog.Error("zkq: the worker's Logger panicked", "panic", fmt.Sprint(v), "message", message)
		}
	}()
	log(message, args...)
}
