package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// connect stands in for zkqueue.Open or etcdqueue.Open: the examples need no server.
func connect() coord.Coordinator { return coordtest.NewStore().Open(coordtest.Options{}) }

// A worker calls a handler with each entry. An entry whose handler failed rests before
// the next attempt.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "mail")
	defer q.Close()

	tries := 0
	send := func(_ context.Context, mail []byte) error {
		if tries++; tries == 1 {
			return errors.New("the mail server is busy")
		}
		fmt.Printf("sent %s at try %d\n", mail, tries)
		stop()
		return nil
	}
	q.Put(ctx, []byte("to ann"))
	run := func() error {
		w := &zkq.Worker{Queue: q, Handler: zkq.HandlerFunc(func(ctx context.Context, held *zkq.Held) error {
			return send(ctx, held.Value)
		})}
		return w.Run(ctx)
	}
	fmt.Println(run())
	// Output:
	// sent to ann at try 2
	// <nil>
}

// A simple queue delivers an entry at most once: taking it removes it.
func ExampleQueue() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewQueue(c, "events")
	defer q.Close()

	q.Put(ctx, []byte("once"))
	e, _ := q.Get(ctx)
	fmt.Printf("%s\n", e.Value)
	_, err := q.TryGet(ctx)
	fmt.Println(errors.Is(err, zkq.ErrEmpty))
	// Output:
	// once
	// true
}

// A locking queue delivers an entry at least once: a worker holds it under a lock, and
// removes it when the work is done. These are the methods that kazoo has.
func ExampleLockingQueue() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	q.PutAll(ctx, [][]byte{[]byte("first"), []byte("second")})
	value, _ := q.Get(ctx)
	holds, _ := q.HoldsLock(ctx)
	n, _ := q.Len(ctx)
	fmt.Printf("%s %v %d\n", value, holds, n)
	q.Consume(ctx)
	value, _ = q.Get(ctx)
	fmt.Printf("%s\n", value)
	// Output:
	// first true 2
	// second
}

// All is a loop over entries that ends when its context does.
func ExampleLockingQueue_All() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()
	q.PutAll(ctx, [][]byte{[]byte("a"), []byte("b")})

	for held, err := range q.All(ctx) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s\n", held.Value)
		held.Consume(ctx)
		if string(held.Value) == "b" {
			cancel()
		}
	}
	// Output:
	// a
	// b
}

// Exchange removes what is done and takes what is next, in one commit.
func ExampleLockingQueue_Exchange() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()
	q.PutAll(ctx, [][]byte{[]byte("a"), []byte("b"), []byte("c")})

	held, err := q.Exchange(ctx, nil, 2)
	for len(held) > 0 && err == nil {
		fmt.Printf("%d from %s\n", len(held), held[0].Value)
		held, err = q.Exchange(ctx, held, 2)
	}
	fmt.Println(err)
	// Output:
	// 2 from a
	// 1 from c
	// <nil>
}

// A held entry is removed with Consume, or given back: Release without blame, Fail with a
// reason, Bury for good.
func ExampleHeld() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	q.Put(ctx, []byte("job"))
	held, _ := q.Take(ctx)
	held.Fail(ctx, "disk full")
	held, _ = q.Take(ctx)
	fmt.Printf("%s, delivery %d, failures %d\n", held.Value, held.Deliveries, held.Failures)
	held.Bury(ctx, "disk still full")
	stat, _ := q.Stat(ctx)
	fmt.Println("dead:", stat.Dead)
	// Output:
	// job, delivery 2, failures 1
	// dead: 1
}

// An entry goes back to its place when its holder releases it, or loses it.
func ExampleHeld_Release() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	q.Put(ctx, []byte("job"))
	held, _ := q.Take(ctx)
	held.Release(ctx)
	held, _ = q.Take(ctx)
	fmt.Printf("%s, delivery %d\n", held.Value, held.Deliveries)
	// Output:
	// job, delivery 2
}

// Context ends when the holder loses the entry, here because an operator broke the lock.
// From then on the former holder cannot remove the entry.
func ExampleHeld_Context() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	name, _ := q.Put(ctx, []byte("job"))
	held, _ := q.Take(ctx)
	working, cancel := held.Context(ctx)
	defer cancel()
	q.BreakLock(ctx, name)
	<-working.Done()
	fmt.Println(context.Cause(working))
	fmt.Println(errors.Is(held.Consume(ctx), zkq.ErrLockLost))
	// Output:
	// lock lost
	// true
}

// Forward removes an entry and puts its results into other queues, in one commit.
func ExampleTarget() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	scans, texts := zkq.NewLockingQueue(c, "scans"), zkq.NewLockingQueue(c, "texts")
	defer scans.Close()
	defer texts.Close()

	scans.Put(ctx, []byte("page"))
	held, _ := scans.Take(ctx)
	text := []byte("text of " + string(held.Value))
	err := held.Forward(ctx, zkq.Target{Queue: texts, Value: text})
	left, _ := scans.Len(ctx)
	next, _ := texts.Get(ctx)
	fmt.Printf("%v %d %s\n", err, left, next)
	// Output:
	// <nil> 0 text of page
}

// Exchange joins a FinishError for each entry that it did not remove for certain.
func ExampleFinishError() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	name, _ := q.Put(ctx, []byte("job"))
	held, _ := q.Take(ctx)
	q.BreakLock(ctx, name)
	_, err := q.Exchange(ctx, []*zkq.Held{held}, 0)
	var failed *zkq.FinishError
	if errors.As(err, &failed) {
		fmt.Printf("%s: %v\n", failed.Held.Value, errors.Is(failed, zkq.ErrLockLost))
	}
	// Output:
	// job: true
}

// After gives an entry back for later: no process is handed it before the time is up.
func ExampleReleaseOption() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	q.Put(ctx, []byte("job"))
	held, _ := q.Take(ctx)
	held.Release(ctx, zkq.After(time.Hour))
	_, err := q.TryTake(ctx)
	stat, _ := q.Stat(ctx)
	fmt.Println(errors.Is(err, zkq.ErrEmpty), "delayed:", stat.Delayed)
	// Output:
	// true delayed: 1
}

// LeaveAlone keeps this process from an entry that failed; another process may take it at
// once.
func ExampleLeaveAlone() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	q.Put(ctx, []byte("fails"))
	held, _ := q.Take(ctx)
	held.Release(ctx, zkq.LeaveAlone(time.Minute))
	_, err := q.TryTake(ctx)
	fmt.Println(errors.Is(err, zkq.ErrEmpty), q.LeftAlone())
	// Output:
	// true 1
}

// Options change how one handle works. This one gives up on an entry after two deliveries,
// whatever became of its workers.
func ExampleOption() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs", zkq.MaxDeliveries(2))
	defer q.Close()

	q.Put(ctx, []byte("crashes its worker"))
	for range 2 {
		held, _ := q.Take(ctx)
		q.BreakLock(ctx, held.Name) // as if its session had expired
	}
	_, err := q.TryTake(ctx)
	stat, _ := q.Stat(ctx)
	fmt.Println(errors.Is(err, zkq.ErrEmpty), "dead:", stat.Dead)
	// Output:
	// true dead: 1
}

// Options of a put: a priority, a delay, a time to live, a unique key.
func ExamplePutOption() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	q.Put(ctx, []byte("whenever"))
	q.Put(ctx, []byte("urgent"), zkq.WithPriority(1))
	q.Put(ctx, []byte("tomorrow"), zkq.WithDelay(24*time.Hour))
	value, _ := q.Get(ctx)
	fmt.Printf("%s\n", value)
	// Output:
	// urgent
}

// A unique key is in use until its entry is removed or dead.
func ExampleExistsError() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "invoices")
	defer q.Close()

	first, _ := q.Put(ctx, []byte("invoice 7"), zkq.WithUnique("7"))
	_, err := q.Put(ctx, []byte("invoice 7 again"), zkq.WithUnique("7"))
	var exists *zkq.ExistsError
	fmt.Println(errors.As(err, &exists) && exists.Name == first)
	held, _ := q.Take(ctx)
	held.Consume(ctx)
	_, err = q.Put(ctx, []byte("invoice 7, corrected"), zkq.WithUnique("7"))
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}

// A bound is stored with the queue and holds for every process.
func ExampleQueueConfig() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	q.Create(ctx, zkq.QueueConfig{MaxEntries: 1})
	q.Put(ctx, []byte("fits"))
	_, err := q.Put(ctx, []byte("does not"))
	fmt.Println(errors.Is(err, zkq.ErrFull))
	config, _ := q.Config(ctx)
	fmt.Println(config)
	// Output:
	// true
	// at most 1 entry
}

// Create refuses to replace another configuration; Configure replaces it.
func ExampleConfigError() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	q.Create(ctx, zkq.QueueConfig{MaxEntries: 1000})
	err := q.Create(ctx, zkq.QueueConfig{MaxEntries: 10})
	var other *zkq.ConfigError
	if errors.As(err, &other) {
		fmt.Println("it has", other.Have)
	}
	fmt.Println(q.Configure(ctx, zkq.QueueConfig{MaxEntries: 10}))
	// Output:
	// it has at most 1000 entries
	// <nil>
}

// A token names one put: made again with the same token, even by another process, the put
// is applied once.
func ExampleToken() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "orders")
	defer q.Close()

	token, _ := q.NewToken(ctx) // store it before the put
	first, _ := q.Put(ctx, []byte("order"), zkq.WithToken(token))
	again, _ := q.Put(ctx, []byte("order"), zkq.WithToken(token))
	n, _ := q.Len(ctx)
	fmt.Println(first == again, n)
	zkq.Forget(ctx, c, token)
	// Output:
	// true 1
}

// Resolve tells any process what became of a put. It makes sure that a put that was not
// applied until then never will be.
func ExampleOutcome() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "orders")
	defer q.Close()

	made, _ := q.NewToken(ctx)
	q.Put(ctx, []byte("order"), zkq.WithToken(made), zkq.WithNote([]byte("line 7")))
	outcome, _ := zkq.Resolve(ctx, c, made)
	fmt.Printf("%v, %s\n", outcome.Applied, outcome.Note)

	never, _ := q.NewToken(ctx)
	outcome, _ = zkq.Resolve(ctx, c, never)
	_, err := q.Put(ctx, []byte("order"), zkq.WithToken(never))
	fmt.Println(outcome.Applied, errors.Is(err, zkq.ErrTokenVoid))
	// Output:
	// true, line 7
	// false true
}

// A put whose answer did not come in time has an unknown outcome. Its error holds the
// token with which any process can resolve it.
func ExampleUnknownError() {
	ctx := context.Background()
	store := coordtest.NewStore()
	c := store.Open(coordtest.Options{})
	defer c.Close()
	q := zkq.NewLockingQueue(c, "orders")
	defer q.Close()
	q.Put(ctx, []byte("first"))

	c.HoldReplies() // a network fault: requests arrive, answers do not
	waiting, giveUp := context.WithCancel(ctx)
	store.Observe(func(coordtest.Applied) { giveUp() })
	_, err := q.Put(waiting, []byte("second"))
	var unknown *zkq.UnknownError
	if errors.As(err, &unknown) {
		other := store.Open(coordtest.Options{})
		defer other.Close()
		outcome, err := zkq.Resolve(ctx, other, unknown.Token)
		fmt.Println(outcome.Applied, err)
	}
	// Output:
	// true <nil>
}

// Entries lists a queue and takes nothing.
func ExampleEntry() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	q.Put(ctx, []byte("plain"))
	q.Put(ctx, []byte("urgent"), zkq.WithPriority(1))
	q.Take(ctx)
	for e, err := range q.Entries(ctx) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e.Priority, e.State, e.Size)
	}
	// Output:
	// 1 held 6
	// 100 ready 5
}

// A state selects entries, for instance those to purge.
func ExampleState() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	q.PutAll(ctx, [][]byte{[]byte("a"), []byte("b")})
	q.Take(ctx)
	state, _ := zkq.ParseState("held")
	for e, err := range q.Entries(ctx) {
		if err == nil && e.State == state {
			fmt.Println(e.State, e.Deliveries)
		}
	}
	_, err := zkq.ParseState("busy")
	fmt.Println(errors.Is(err, zkq.ErrInvalid))
	// Output:
	// held 1
	// true
}

// Stat counts the entries of a queue by state.
func ExampleStat() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	q.PutAll(ctx, [][]byte{[]byte("a"), []byte("b"), []byte("c")})
	q.Take(ctx)
	stat, _ := q.Stat(ctx)
	fmt.Println(stat.Ready, stat.Held, stat.Total())
	// Output:
	// 2 1 3
}

// Workers lists the processes that take from a queue.
func ExampleWorkerInfo() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	q.Register(ctx)
	q.Put(ctx, []byte("job"))
	q.Take(ctx)
	workers, _ := q.Workers(ctx)
	for _, w := range workers {
		fmt.Println(w.PID > 0, w.Entries)
	}
	// Output:
	// true 1
}

// FindLayout tells which of kazoo's two queues a path holds.
func ExampleLayout() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()

	q.Put(ctx, []byte("job"))
	layout, _ := zkq.FindLayout(ctx, c, "jobs")
	fmt.Println(layout, layout == zkq.LayoutLocking)
	// Output:
	// locking true
}

// runUntilEmpty runs the worker until no entry is ready, held or delayed.
func runUntilEmpty(w *zkq.Worker) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		w.Queue.WaitEmpty(ctx)
		stop()
	}()
	return w.Run(ctx)
}

// The error that a handler returns says what becomes of the entry.
func ExampleWorker() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()
	q.PutAll(ctx, [][]byte{[]byte("good"), []byte("bad")})

	w := &zkq.Worker{
		Queue:       q,
		Concurrency: 1,
		Handler: zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
			if string(h.Value) == "bad" {
				return zkq.Skip(errors.New("nobody can do this"))
			}
			return nil
		}),
		Report: func(h zkq.Handled) { fmt.Printf("%s: %s\n", h.Held.Value, h.Ending) },
	}
	fmt.Println(runUntilEmpty(w))
	// Output:
	// good: done
	// bad: dead
	// <nil>
}

// Report is called with each entry that a worker has handled.
func ExampleHandled() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()
	q.Put(ctx, []byte("job"))

	w := &zkq.Worker{
		Queue:   q,
		Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error { return zkq.Skip(errors.New("cannot be done")) }),
		Report:  func(h zkq.Handled) { fmt.Println(h.Ending, h.Err, h.Took >= 0) },
	}
	runUntilEmpty(w)
	// Output:
	// dead cannot be done true
}

// An ending says what a worker did with an entry.
func ExampleEnding() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()
	q.PutAll(ctx, [][]byte{[]byte("a"), []byte("b")})

	endings := map[zkq.Ending]int{}
	w := &zkq.Worker{
		Queue:   q,
		Handler: zkq.HandlerFunc(func(context.Context, *zkq.Held) error { return nil }),
		Report:  func(h zkq.Handled) { endings[h.Ending]++ },
	}
	runUntilEmpty(w)
	fmt.Println(endings[zkq.EndingDone], endings[zkq.EndingFailed])
	// Output:
	// 2 0
}

// upperCase is a handler with a state of its own.
type upperCase struct{ count int }

func (u *upperCase) Handle(_ context.Context, h *zkq.Held) error {
	u.count++
	fmt.Println(strings.ToUpper(string(h.Value)))
	return nil
}

// A type with a Handle method is a handler.
func ExampleHandler() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "words")
	defer q.Close()
	q.Put(ctx, []byte("word"))

	handler := &upperCase{}
	runUntilEmpty(&zkq.Worker{Queue: q, Handler: handler})
	fmt.Println(handler.count)
	// Output:
	// WORD
	// 1
}

// A function becomes a handler by conversion.
func ExampleHandlerFunc() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "words")
	defer q.Close()
	q.Put(ctx, []byte("word"))

	w := &zkq.Worker{Queue: q, Handler: zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
		fmt.Printf("%s\n", h.Value)
		return nil
	})}
	runUntilEmpty(w)
	// Output:
	// word
}

// Middleware adds to a handler: this one prints before and after the work.
func ExampleMiddleware() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()
	q.Put(ctx, []byte("job"))

	trace := func(next zkq.Handler) zkq.Handler {
		return zkq.HandlerFunc(func(ctx context.Context, h *zkq.Held) error {
			fmt.Println("begin")
			defer fmt.Println("end")
			return next.Handle(ctx, h)
		})
	}
	work := zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
		fmt.Printf("%s\n", h.Value)
		return nil
	})
	runUntilEmpty(&zkq.Worker{Queue: q, Handler: zkq.Wrap(work, trace)})
	// Output:
	// begin
	// job
	// end
}

// A panic of a handler is a failure of its entry, and the worker goes on.
func ExamplePanicError() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()
	q.Put(ctx, []byte("job"))

	w := &zkq.Worker{
		Queue:       q,
		MaxFailures: 1,
		Handler:     zkq.HandlerFunc(func(context.Context, *zkq.Held) error { panic("index out of range") }),
		Report: func(h zkq.Handled) {
			var p *zkq.PanicError
			if errors.As(h.Err, &p) {
				fmt.Println(h.Ending, p.Value)
			}
		},
	}
	runUntilEmpty(w)
	// Output:
	// dead index out of range
}

// printLogger prints what is worth a warning. A *slog.Logger is a logger, too.
type printLogger struct{}

func (printLogger) Debug(string, ...any)           {}
func (printLogger) Info(string, ...any)            {}
func (printLogger) Warn(message string, _ ...any)  { fmt.Println("warning:", message) }
func (printLogger) Error(message string, _ ...any) { fmt.Println("error:", message) }

// A logger hears what a handle does on its own, such as moving an entry to the dead.
func ExampleLogger() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs", zkq.LogTo(printLogger{}), zkq.MaxDeliveries(1))
	defer q.Close()

	q.Put(ctx, []byte("crashes its worker"))
	held, _ := q.Take(ctx)
	q.BreakLock(ctx, held.Name) // as if its session had expired
	q.TryTake(ctx)
	// Output:
	// error: entry is dead
}

// Mail is the value of an entry, in JSON.
type Mail struct {
	To string `json:"to"`
}

// Typed puts and takes values of one type instead of bytes.
func ExampleTyped() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "mail")
	defer q.Close()

	mails := zkq.Typed[Mail]{Queue: q}
	mails.Put(ctx, Mail{To: "ann"})
	w := &zkq.Worker{Queue: q, Handler: mails.Handler(func(_ context.Context, m Mail) error {
		fmt.Println("to", m.To)
		return nil
	})}
	runUntilEmpty(w)
	// Output:
	// to ann
}

// lines is a codec that writes a list of words as lines.
type lines struct{}

func (lines) Marshal(v any) ([]byte, error) { return []byte(strings.Join(v.([]string), "\n")), nil }

func (lines) Unmarshal(data []byte, v any) error {
	*v.(*[]string) = strings.Split(string(data), "\n")
	return nil
}

// A codec decides what bytes a typed value has. Packages codec/msgpack and codec/cbor have
// two more.
func ExampleCodec() {
	ctx := context.Background()
	c := connect()
	defer c.Close()
	q := zkq.NewLockingQueue(c, "words")
	defer q.Close()

	words := zkq.Typed[[]string]{Queue: q, Codec: lines{}}
	words.Put(ctx, []string{"one", "two"})
	held, _ := q.Take(ctx)
	list, err := words.Decode(held)
	fmt.Printf("%q %v %v\n", held.Value, list, err)
	// Output:
	// "one\ntwo" [one two] <nil>
}

// All dead entries are made ready again, many in a commit.
func ExampleRequeued() {
	ctx := context.Background()
	c := coordtest.NewStore().Open(coordtest.Options{})
	defer c.Close()
	q := zkq.NewLockingQueue(c, "jobs")
	defer q.Close()
	for range 3 {
		q.Put(ctx, []byte("job"))
		held, _ := q.Take(ctx)
		held.Bury(ctx, "bad")
	}
	for r, err := range q.RequeueAll(ctx) {
		if err != nil {
			panic(err)
		}
		fmt.Println(r.Name)
	}
	// Output:
	// entry-100-0000000003
	// entry-100-0000000004
	// entry-100-0000000005
}
