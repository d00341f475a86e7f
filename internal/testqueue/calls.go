package testqueue

import (
	"context"
	"fmt"
	"time"

	"github.com/zkq/zkq"
)

// Create creates the queue with a configuration.
func (env *Env) Create(q *zkq.LockingQueue, c zkq.QueueConfig) {
	env.Helper()
	if err := q.Create(env.Ctx, c); err != nil {
		env.Fatal(err)
	}
}

// Put puts a value and returns the name of the entry.
func (env *Env) Put(q interface {
	Put(context.Context, []byte, ...zkq.PutOption) (string, error)
}, value string, opts ...zkq.PutOption,
) string {
	env.Helper()
	name, err := q.Put(env.Ctx, []byte(value), opts...)
	if err != nil {
		env.Fatalf("Put(%q): %v", value, err)
	}
	return name
}

// Take takes an entry, and waits up to 30 seconds for it.
func (env *Env) Take(q *zkq.LockingQueue) *zkq.Held {
	env.Helper()
	ctx, cancel := context.WithTimeout(env.Ctx, 30*time.Second)
	defer cancel()
	h, err := q.Take(ctx)
	if err != nil {
		env.Fatalf("Take: %v", err)
	}
	return h
}

// TakeWithin takes an entry, and waits for it no longer than within.
func (env *Env) TakeWithin(q *zkq.LockingQueue, within time.Duration) *zkq.Held {
	env.Helper()
	ctx, cancel := context.WithTimeout(env.Ctx, within)
	defer cancel()
	h, err := q.Take(ctx)
	if err != nil {
		env.Fatal(err)
	}
	return h
}

// PutAndTake puts a value and takes the first entry.
func (env *Env) PutAndTake(q *zkq.LockingQueue, value string) *zkq.Held {
	env.Helper()
	env.Put(q, value)
	return env.Take(q)
}

// Exchange finishes done and takes up to n entries.
func (env *Env) Exchange(q *zkq.LockingQueue, done []*zkq.Held, n int) []*zkq.Held {
	env.Helper()
	held, err := q.Exchange(env.Ctx, done, n)
	if err != nil {
		env.Fatalf("Exchange: %v", err)
	}
	return held
}

// Consume removes an entry.
func (env *Env) Consume(h *zkq.Held) {
	env.Helper()
	if err := h.Consume(env.Ctx); err != nil {
		env.Fatalf("Consume: %v", err)
	}
}

// Release gives an entry back.
func (env *Env) Release(h *zkq.Held, opts ...zkq.ReleaseOption) {
	env.Helper()
	if err := h.Release(env.Ctx, opts...); err != nil {
		env.Fatalf("Release: %v", err)
	}
}

// Fail gives an entry back as a failure.
func (env *Env) Fail(h *zkq.Held, reason string, opts ...zkq.ReleaseOption) {
	env.Helper()
	if err := h.Fail(env.Ctx, reason, opts...); err != nil {
		env.Fatalf("Fail: %v", err)
	}
}

// Bury moves an entry to the dead ones.
func (env *Env) Bury(h *zkq.Held, reason string) {
	env.Helper()
	if err := h.Bury(env.Ctx, reason); err != nil {
		env.Fatalf("Bury: %v", err)
	}
}

// Update replaces the value of an entry.
func (env *Env) Update(h *zkq.Held, value string) {
	env.Helper()
	if err := h.Update(env.Ctx, []byte(value)); err != nil {
		env.Fatalf("Update: %v", err)
	}
}

// Pause pauses the queue.
func (env *Env) Pause(q *zkq.LockingQueue) {
	env.Helper()
	if err := q.Pause(env.Ctx); err != nil {
		env.Fatal(err)
	}
}

// Resume ends the pause of the queue.
func (env *Env) Resume(q *zkq.LockingQueue) {
	env.Helper()
	if err := q.Resume(env.Ctx); err != nil {
		env.Fatal(err)
	}
}

// Register adds the handle to the workers of the queue.
func (env *Env) Register(q *zkq.LockingQueue) {
	env.Helper()
	if err := q.Register(env.Ctx); err != nil {
		env.Fatalf("Register: %v", err)
	}
}

// Workers returns the registered workers.
func (env *Env) Workers(q *zkq.LockingQueue) []zkq.WorkerInfo {
	env.Helper()
	ws, err := q.Workers(env.Ctx)
	if err != nil {
		env.Fatalf("Workers: %v", err)
	}
	return ws
}

// Purge removes the entries of a state. The error says if that were not want entries.
func (env *Env) Purge(q *zkq.LockingQueue, st zkq.State, want int) error {
	n, err := q.Purge(env.Ctx, st)
	if err == nil && n != want {
		err = fmt.Errorf("purged %d that are %s, want %d", n, st, want)
	}
	return err
}

// Entries returns the entries that the queue lists.
func (env *Env) Entries(q *zkq.LockingQueue) []zkq.Entry {
	env.Helper()
	var es []zkq.Entry
	for e, err := range q.Entries(env.Ctx) {
		if err != nil {
			env.Fatalf("Entries: %v", err)
		}
		es = append(es, e)
	}
	return es
}

// Values returns the values of the entries that the queue lists.
func (env *Env) Values(q *zkq.LockingQueue) []string {
	env.Helper()
	var values []string
	for _, e := range env.Entries(q) {
		e, err := q.Peek(env.Ctx, e.Name)
		if err != nil {
			env.Fatal(err)
		}
		values = append(values, string(e.Value))
	}
	return values
}

// State returns the state of an entry.
func (env *Env) State(q *zkq.LockingQueue, name string) zkq.State {
	env.Helper()
	e, err := q.Peek(env.Ctx, name)
	if err != nil {
		env.Fatal(err)
	}
	return e.State
}

// DeadEntry returns the only dead entry, and fails the test if there are none or several.
func (env *Env) DeadEntry(q *zkq.LockingQueue) zkq.Entry {
	env.Helper()
	var dead []zkq.Entry
	for e, err := range q.Entries(env.Ctx, zkq.StateDead) {
		if err != nil {
			env.Fatal(err)
		}
		dead = append(dead, e)
	}
	if len(dead) != 1 {
		env.Fatalf("%d dead entries: %+v", len(dead), dead)
	}
	if st, err := q.Stat(env.Ctx); err != nil || st.Dead != 1 {
		env.Fatalf("Stat = %+v, %v", st, err)
	}
	e, err := q.Peek(env.Ctx, dead[0].Name)
	if err != nil || e.State != zkq.StateDead || e.Reason != dead[0].Reason {
		env.Fatalf("Peek = %+v, %v", e, err)
	}
	return e
}
