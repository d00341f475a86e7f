// Package workload works a queue off. The command's bench and the bench of this repository do the
// same to a queue, so that their figures can be compared.
package workload

import (
	"context"
	"errors"
	"sync"
)

// Held is an entry that a worker holds.
type Held interface{ Consume(context.Context) error }

// Queue hands out entries, and removes them together with the next take.
type Queue[H Held] interface {
	TakeN(ctx context.Context, n int) ([]H, error)
	Exchange(ctx context.Context, done []H, n int) ([]H, error)
}

// TakeAndFinish has workers take entries, batch at a time, and finish them until ctx ends. It
// calls see with each entry before its finish, and finished with the number of each finished
// batch. Calls that have begun by the end of ctx may finish until settled ends.
//
// Entries that are held at the end are finished too, and not counted. If they were released,
// they would slow down the next measurement.
func TakeAndFinish[H Held](ctx, settled context.Context, q Queue[H], workers, batch int, see func(H), finished func(int)) error {
	return InParallel(workers, func(int) error {
		var held []H
		defer func() {
			for _, h := range held {
				h.Consume(settled) // after an error the entry stays in the queue, which is purged or left behind
			}
		}()
		for ctx.Err() == nil {
			var err error
			if len(held) == 0 {
				if held, err = q.TakeN(ctx, batch); err != nil {
					if ctx.Err() != nil {
						return nil
					}
					return err
				}
			}
			for _, h := range held {
				see(h)
			}
			done := held
			if held, err = q.Exchange(settled, done, batch); err != nil {
				return err
			}
			finished(len(done))
		}
		return nil
	})
}

// InParallel runs do n times at once, waits for all and joins their errors.
func InParallel(n int, do func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}
