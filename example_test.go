package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord/coordtest"
)

// A worker has a handler work on each entry. One that failed rests before it is tried again.
// The coordinator in memory stands in for zkqueue.Open or etcdqueue.Open.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	c := coordtest.NewStore().Open(coordtest.Options{})
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

// The methods that kazoo has: one entry at a time, held until it is consumed or
// released.
func ExampleLockingQueue() {
	ctx := context.Background()
	c := coordtest.NewStore().Open(coordtest.Options{})
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

// All is a worker's loop: it ends when its context does.
func ExampleLockingQueue_All() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := coordtest.NewStore().Open(coordtest.Options{})
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

// Queue hands an entry out at most once: taking it removes it.
func ExampleQueue() {
	ctx := context.Background()
	c := coordtest.NewStore().Open(coordtest.Options{})
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

// An entry goes back to its place when its holder releases it, or loses it.
func ExampleHeld_Release() {
	ctx := context.Background()
	c := coordtest.NewStore().Open(coordtest.Options{})
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

// Context ends the work of a holder that lost its entry, here because somebody
// broke the lock. Whatever it does then, it cannot remove the entry.
func ExampleHeld_Context() {
	ctx := context.Background()
	c := coordtest.NewStore().Open(coordtest.Options{})
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

// Entries looks and takes nothing.
func ExampleLockingQueue_Entries() {
	ctx := context.Background()
	c := coordtest.NewStore().Open(coordtest.Options{})
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
	st, _ := q.Stat(ctx)
	fmt.Println(st.Ready, st.Held, st.Total())
	// Output:
	// 1 held 6
	// 100 ready 5
	// 1 1 2
}

// LeaveAlone spaces attempts of this process at an entry that failed; others may
// take it at once.
func ExampleLeaveAlone() {
	ctx := context.Background()
	c := coordtest.NewStore().Open(coordtest.Options{})
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
