package retained_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/retained"
)

// Each label goes through all entries of a log.
func ExampleLog() {
	ctx := context.Background()
	c := coordtest.NewStore().Open(coordtest.Options{}) // or zkqueue.Open, etcdqueue.Open
	defer c.Close()
	log := retained.NewLog(c, "orders", retained.Config{})
	defer log.Close()

	log.Append(ctx, []byte("order 1"), []byte("order 2"))
	for _, name := range []string{"billing", "shipping"} {
		batch, _ := log.Label(name, retained.Oldest).Next(ctx, 10)
		for _, e := range batch.Entries {
			fmt.Printf("%s: %d %s\n", name, e.Number, e.Value)
		}
	}
	// Output:
	// billing: 0 order 1
	// billing: 1 order 2
	// shipping: 0 order 1
	// shipping: 1 order 2
}

// A batch is read again until one reader has committed it.
func ExampleLabel() {
	ctx := context.Background()
	c := coordtest.NewStore().Open(coordtest.Options{})
	defer c.Close()
	log := retained.NewLog(c, "orders", retained.Config{})
	defer log.Close()
	log.Append(ctx, []byte("order 1"))

	billing := log.Label("billing", retained.Oldest)
	first, _ := billing.Read(ctx, 1)
	again, _ := billing.Read(ctx, 1) // as after a crash
	fmt.Printf("%s %s\n", first.Entries[0].Value, again.Entries[0].Value)
	fmt.Println(again.Commit(ctx))
	fmt.Println(errors.Is(first.Commit(ctx), retained.ErrMoved))
	_, err := billing.TryRead(ctx, 1)
	fmt.Println(errors.Is(err, zkq.ErrEmpty))
	// Output:
	// order 1 order 1
	// <nil>
	// true
	// true
}

// Missed counts entries that went before the label read them.
func ExampleBatch() {
	ctx := context.Background()
	c := coordtest.NewStore().Open(coordtest.Options{})
	defer c.Close()
	log := retained.NewLog(c, "orders", retained.Config{})
	defer log.Close()

	log.Append(ctx, []byte("a"), []byte("b"), []byte("c"))
	slow := log.Label("slow", retained.Oldest)
	slow.TryRead(ctx, 1) // makes the label
	log.Truncate(ctx, 2)
	batch, _ := slow.Read(ctx, 10)
	fmt.Println(len(batch.Entries), batch.Missed)
	// Output:
	// 1 2
}
