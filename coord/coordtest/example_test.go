package coordtest_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// A test of what happens to an entry whose holder's session ends: another process is
// handed the entry.
func Example() {
	ctx := context.Background()
	store := coordtest.NewStore()
	mine, others := store.Open(coordtest.Options{}), store.Open(coordtest.Options{})
	defer mine.Close()
	defer others.Close()
	myQueue, theirQueue := zkq.NewLockingQueue(mine, "mail"), zkq.NewLockingQueue(others, "mail")
	defer myQueue.Close()
	defer theirQueue.Close()

	myQueue.Put(ctx, []byte("hello"))
	first, _ := myQueue.Take(ctx)
	mine.Expire()

	second, _ := theirQueue.Take(ctx)
	fmt.Printf("%s, delivery %d\n", second.Value, second.Deliveries)
	fmt.Println(errors.Is(first.Consume(ctx), zkq.ErrLockLost))
	fmt.Println(second.Consume(ctx))
	// Output:
	// hello, delivery 2
	// true
	// <nil>
}

// A session that the service ends takes its ephemeral nodes with it, and its
// client opens another.
func ExampleCoordinator_Expire() {
	ctx := context.Background()
	client := coordtest.NewStore().Open(coordtest.Options{})
	defer client.Close()

	first, _ := client.Session(ctx)
	first.Commit(ctx, coord.CreateEphemeral("/jobs/taken/1", nil))

	client.Expire()
	<-first.Done()
	_, err := first.Get(ctx, "/jobs/taken/1")
	fmt.Println(errors.Is(err, coord.ErrSessionLost))

	second, _ := client.Session(ctx)
	_, err = second.Get(ctx, "/jobs/taken/1")
	fmt.Println(errors.Is(err, coord.ErrNotExist))
	// Output:
	// true
	// true
}

// A connection that comes back in time keeps the session; calls wait for it.
func ExampleCoordinator_Cut() {
	ctx := context.Background()
	client := coordtest.NewStore().Open(coordtest.Options{})
	defer client.Close()
	session, _ := client.Session(ctx)

	client.Cut()
	done := make(chan error)
	go func() {
		_, err := session.Commit(ctx, coord.Create("/jobs/1", []byte("waited")))
		done <- err
	}()
	client.Heal()
	fmt.Println(<-done)

	node, _ := session.Get(ctx, "/jobs/1")
	fmt.Printf("%s\n", node.Value)
	// Output:
	// <nil>
	// waited
}

// A commit whose answer is lost may have been applied. This one was.
func ExampleCoordinator_DropReply() {
	ctx := context.Background()
	client := coordtest.NewStore().Open(coordtest.Options{})
	defer client.Close()
	session, _ := client.Session(ctx)

	client.DropReply()
	_, err := session.Commit(ctx, coord.CreateSequential("/jobs/job-", nil))
	fmt.Println(errors.Is(err, coord.ErrUnknown))

	list, _ := session.List(ctx, "/jobs", coord.ListOptions{})
	fmt.Println(list.Nodes[0].Path)
	// Output:
	// true
	// /jobs/job-0000000000
}

// A client that lags sees others' changes late, but never behind a signal.
func ExampleCoordinator_Lag() {
	ctx := context.Background()
	store := coordtest.NewStore()
	reader, writer := store.Open(coordtest.Options{}), store.Open(coordtest.Options{})
	defer reader.Close()
	defer writer.Close()
	r, _ := reader.Session(ctx)
	w, _ := writer.Session(ctx)
	signal, _ := r.Watch(ctx, "/jobs")

	reader.Lag()
	w.Commit(ctx, coord.Create("/jobs/1", nil))
	list, _ := r.List(ctx, "/jobs", coord.ListOptions{})
	fmt.Println(len(list.Nodes))

	reader.CatchUp()
	<-signal
	list, _ = r.List(ctx, "/jobs", coord.ListOptions{})
	fmt.Println(len(list.Nodes))
	// Output:
	// 0
	// 1
}
