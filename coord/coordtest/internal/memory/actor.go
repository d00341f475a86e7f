package memory

import (
	"context"
	"time"
)

type actorKey struct{}

// WithActor is sim.WithActor.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// actorOf returns the name that [WithActor] gave, or "".
func actorOf(ctx context.Context) string {
	actor, _ := ctx.Value(actorKey{}).(string)
	return actor
}

// AwaitTurn is sim.AwaitTurn. It sleeps for a time that follows from the actor's name,
// so that goroutines woken at one instant go on in an order of their own.
func AwaitTurn(ctx context.Context) {
	n := 1
	for _, b := range []byte(actorOf(ctx)) {
		n = (n*31 + int(b)) % 997
	}
	time.Sleep(time.Duration(1 + 1024*n)) // further apart than steps are
}
