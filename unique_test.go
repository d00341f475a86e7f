package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// refusedBy demands that a put of the key is refused for the entry of that name.
func (b *bench) refusedBy(q *zkq.LockingQueue, key, name string) {
	b.Helper()
	_, err := q.Put(b.ctx, []byte("refused"), zkq.WithUnique(key))
	var exists *zkq.ExistsError
	if !errors.As(err, &exists) || !errors.Is(err, zkq.ErrExists) || exists.Name != name {
		b.Fatalf("error %v, want one that names %s", err, name)
	}
}

// A key is free again with the entry, whatever becomes of that.
func TestAUniqueKeyGoesWithItsEntry(t *testing.T) {
	for way, remove := range map[string]func(b *bench, q *zkq.LockingQueue, name string) error{
		"consume":    func(b *bench, q *zkq.LockingQueue, _ string) error { return b.take(q).Consume(b.ctx) },
		"bury":       func(b *bench, q *zkq.LockingQueue, _ string) error { return b.take(q).Bury(b.ctx, "") },
		"rm":         func(b *bench, q *zkq.LockingQueue, name string) error { return q.Remove(b.ctx, name, false) },
		"rm --force": func(b *bench, q *zkq.LockingQueue, name string) error { b.take(q); return q.Remove(b.ctx, name, true) },
		"purge":      func(b *bench, q *zkq.LockingQueue, _ string) error { return b.purge(q, zkq.StateReady, 1) },
		"purge held": func(b *bench, q *zkq.LockingQueue, _ string) error { b.take(q); return b.purge(q, zkq.StateHeld, 1) },
		"rm of aside": func(b *bench, q *zkq.LockingQueue, name string) error {
			b.release(b.take(q), zkq.After(time.Hour))
			return q.Remove(b.ctx, name, false)
		},
		"a failure and a consume": func(b *bench, q *zkq.LockingQueue, name string) error {
			b.fail(b.take(q), "no", zkq.After(time.Minute))
			b.refusedBy(q, "k", name)
			return b.take2(q, 2*time.Minute).Consume(b.ctx)
		},
	} {
		t.Run(way, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, _ := b.queue()
				other, _ := b.queue()
				for range 2 {
					name := b.put(q, "a", zkq.WithUnique("k"))
					b.refusedBy(q, "k", name)
					b.refusedBy(other, "k", name)
					b.want(remove(b, q, name), nil)
					b.put(other, "another", zkq.WithUnique("another"))
					b.want(b.take(other).Consume(b.ctx), nil)
				}
				b.left(q)
			})
		})
	}
}

func TestTwentyPutsOfOneKeyAtOnceAreOne(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		const n = 20
		var wg sync.WaitGroup
		errs, names := make([]error, n), make([]string, n)
		for i := range n {
			q, c := b.queue()
			if i%3 == 0 {
				c.DropReply()
			}
			wg.Go(func() {
				names[i], errs[i] = q.Put(b.ctx, []byte(fmt.Sprint(i)), zkq.WithUnique("k"))
			})
		}
		wg.Wait()
		var put string
		for i, err := range errs {
			if err == nil {
				if put != "" {
					t.Errorf("%s and %s were put", put, names[i])
				}
				put = names[i]
			}
		}
		for _, err := range errs {
			if exists := (*zkq.ExistsError)(nil); err != nil && (!errors.As(err, &exists) || exists.Name != put) {
				t.Errorf("%v, and %s stands", err, put)
			}
		}
		q, _ := b.queue()
		if es := b.entries(q); put == "" || len(es) != 1 || es[0].Name != put {
			t.Errorf("%s was put, and there are %v", put, es)
		}
	})
}

// A key stands for a delayed put, and then for the entry that this becomes.
func TestADelayedPutKeepsItsKey(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		name := b.put(q, "a", zkq.WithUnique("k"), zkq.WithDelay(time.Minute))
		b.refusedBy(q, "k", name)
		if err := q.Remove(b.ctx, name, false); err != nil {
			t.Fatal(err)
		}
		name = b.put(q, "a", zkq.WithUnique("k"), zkq.WithDelay(time.Minute))
		b.refusedBy(q, "k", name)
		c.DropReply()
		h := b.take2(q, 2*time.Minute)
		if h.Name == name {
			t.Fatal(name)
		}
		b.refusedBy(q, "k", h.Name)
		b.consume(h)
		b.left(q)
		b.put(q, "a", zkq.WithUnique("k"), zkq.WithDelay(time.Hour))
		b.want(b.purge(q, zkq.StateDelayed, 1), nil)
		b.put(q, "a", zkq.WithUnique("k"), zkq.WithDelay(time.Hour), zkq.WithTTL(time.Minute))
		time.Sleep(2 * time.Hour)
		b.empty(q)
		b.left(q)
	})
}

// kazoo's consume knows nothing of keys, and leaves them.
func TestAKeyWithoutAnEntryIsNobodys(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		s := b.session(c)
		for range 3 {
			name := b.put(q, "a", zkq.WithUnique("k"))
			n := b.get(s, "/jobs/entries/"+name)
			b.commit(s, coord.Delete(n.Path, n.Fence))
		}
		name := b.put(q, "a", zkq.WithUnique("k"))
		b.refusedBy(q, "k", name)
		// And one that somebody wrote to: it is looked for among all there is.
		b.put(q, "b")
		key := b.children(s, "/jobs/unique")[0]
		n := b.get(s, key)
		b.commit(s, coord.Set(key, n.Value, n.Fence))
		b.refusedBy(q, "k", name)
		b.consume(b.take(q))
		b.consume(b.take(q))
		b.left(q)
	})
}

func TestLostRepliesOfUniquePutsPutOnce(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, c := b.queue()
				other, _ := b.queue()
				lose(c)
				name := b.put(q, "a", zkq.WithUnique("k"))
				lose(c)
				b.refusedBy(q, "k", name)
				b.refusedBy(other, "k", name)
				lose(c)
				b.consume(b.take(q))
				b.left(q)
			})
		})
	}
}

// A put that was refused is refused for good: an attempt of it that is still on its way
// when the key becomes free is not applied.
func TestAPutThatWasRefusedIsNotAppliedLater(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		other, _ := b.queue()
		standing := b.put(other, "standing", zkq.WithUnique("k"))
		b.put(q, "a lane")
		voids := 0
		b.store.Observe(func(a coordtest.Applied) {
			for _, op := range a.Ops {
				if strings.HasPrefix(op.Path, "/zkq/producers/") && strings.Contains(string(op.Value), "void") {
					voids++
				}
			}
		})
		c.DropRequest() // lost, or late: the putter cannot know
		b.refusedBy(q, "k", standing)
		if voids != 1 {
			t.Errorf("%d lanes have moved on", voids)
		}
		// One that was answered cost nothing more.
		b.refusedBy(q, "k", standing)
		if voids != 1 {
			t.Errorf("%d lanes have moved on", voids)
		}
	})
}

func TestUniquePutsAreMadeAgainWithTheirToken(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		token, err := q.NewToken(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		name := b.put(q, "a", zkq.WithUnique("k"), zkq.WithToken(token))
		if again := b.put(q, "a", zkq.WithUnique("k"), zkq.WithToken(token)); again != name {
			t.Errorf("put again is %s, and was %s", again, name)
		}
		b.refusedBy(q, "k", name)
	})
}

func TestUniquePutsThatCannotBeAreRefused(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, c := b.queue()
		_, err := q.PutAll(b.ctx, make([][]byte, 2), zkq.WithUnique("k"))
		b.want(err, zkq.ErrInvalid)
		_, err = q.Put(b.ctx, nil, zkq.WithUnique(strings.Repeat("k", zkq.MaxKey+1)))
		b.want(err, zkq.ErrTooLarge)
		_, err = q.Put(b.ctx, nil, zkq.WithTTL(1<<63-1))
		b.want(err, zkq.ErrInvalid)
		b.refusedBy(q, "", b.put(q, "a", zkq.WithUnique("")))
		plain := zkq.NewQueue(c, "plain")
		defer plain.Close()
		for _, opt := range []zkq.PutOption{zkq.WithUnique("k"), zkq.WithTTL(time.Second), zkq.WithWait(time.Second)} {
			_, err := plain.Put(context.Background(), nil, opt)
			b.want(err, zkq.ErrInvalid)
		}
	})
}
