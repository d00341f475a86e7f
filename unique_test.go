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
	"github.com/zkq/zkq/internal/testqueue"
)

// A key is free again with the entry, whatever becomes of that.
func TestAUniqueKeyGoesWithItsEntry(t *testing.T) {
	for way, remove := range map[string]func(env *testqueue.Env, q *zkq.LockingQueue, name string) error{
		"consume": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error { return env.Take(q).Consume(env.Ctx) },
		"bury":    func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error { return env.Take(q).Bury(env.Ctx, "") },
		"rm": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			return q.Remove(env.Ctx, name, false)
		},
		"rm --force": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			env.Take(q)
			return q.Remove(env.Ctx, name, true)
		},
		"purge": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error { return env.Purge(q, zkq.StateReady, 1) },
		"purge held": func(env *testqueue.Env, q *zkq.LockingQueue, _ string) error {
			env.Take(q)
			return env.Purge(q, zkq.StateHeld, 1)
		},
		"rm of aside": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			env.Release(env.Take(q), zkq.After(time.Hour))
			return q.Remove(env.Ctx, name, false)
		},
		"a failure and a consume": func(env *testqueue.Env, q *zkq.LockingQueue, name string) error {
			env.Fail(env.Take(q), "no", zkq.After(time.Minute))
			env.WantRefused(q, "k", name)
			return env.TakeWithin(q, 2*time.Minute).Consume(env.Ctx)
		},
	} {
		t.Run(way, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, _ := env.Queue()
				other, _ := env.Queue()
				for range 2 {
					name := env.Put(q, "a", zkq.WithUnique("k"))
					env.WantRefused(q, "k", name)
					env.WantRefused(other, "k", name)
					env.WantErr(remove(env, q, name), nil)
					env.Put(other, "another", zkq.WithUnique("another"))
					env.WantErr(env.Take(other).Consume(env.Ctx), nil)
				}
				env.WantNothingLeft(q)
			})
		})
	}
}

func TestTwentyPutsOfOneKeyAtOnceAreOne(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const n = 20
		var wg sync.WaitGroup
		errs, names := make([]error, n), make([]string, n)
		for i := range n {
			q, c := env.Queue()
			if i%3 == 0 {
				c.DropReply()
			}
			wg.Go(func() {
				names[i], errs[i] = q.Put(env.Ctx, []byte(fmt.Sprint(i)), zkq.WithUnique("k"))
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
		q, _ := env.Queue()
		if es := env.Entries(q); put == "" || len(es) != 1 || es[0].Name != put {
			t.Errorf("%s was put, and there are %v", put, es)
		}
	})
}

// A key stands for a delayed put, and then for the entry that this becomes.
func TestADelayedPutKeepsItsKey(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		name := env.Put(q, "a", zkq.WithUnique("k"), zkq.WithDelay(time.Minute))
		env.WantRefused(q, "k", name)
		if err := q.Remove(env.Ctx, name, false); err != nil {
			t.Fatal(err)
		}
		name = env.Put(q, "a", zkq.WithUnique("k"), zkq.WithDelay(time.Minute))
		env.WantRefused(q, "k", name)
		c.DropReply()
		h := env.TakeWithin(q, 2*time.Minute)
		if h.Name == name {
			t.Fatal(name)
		}
		env.WantRefused(q, "k", h.Name)
		env.Consume(h)
		env.WantNothingLeft(q)
		env.Put(q, "a", zkq.WithUnique("k"), zkq.WithDelay(time.Hour))
		env.WantErr(env.Purge(q, zkq.StateDelayed, 1), nil)
		env.Put(q, "a", zkq.WithUnique("k"), zkq.WithDelay(time.Hour), zkq.WithTTL(time.Minute))
		time.Sleep(2 * time.Hour)
		env.WantEmpty(q)
		env.WantNothingLeft(q)
	})
}

// kazoo's consume knows nothing of keys, and leaves them.
func TestAKeyWithoutAnEntryIsNobodys(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		s := env.Session(c)
		for range 3 {
			name := env.Put(q, "a", zkq.WithUnique("k"))
			n := env.Get(s, "/jobs/entries/"+name)
			env.Commit(s, coord.Delete(n.Path, n.Fence))
		}
		name := env.Put(q, "a", zkq.WithUnique("k"))
		env.WantRefused(q, "k", name)
		// And one that somebody wrote to: it is looked for among all there is.
		env.Put(q, "b")
		key := env.Children(s, "/jobs/unique")[0]
		n := env.Get(s, key)
		env.Commit(s, coord.Set(key, n.Value, n.Fence))
		env.WantRefused(q, "k", name)
		env.Consume(env.Take(q))
		env.Consume(env.Take(q))
		env.WantNothingLeft(q)
	})
}

func TestLostRepliesOfUniquePutsPutOnce(t *testing.T) {
	for name, lose := range testqueue.Losses {
		t.Run(name, func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				q, c := env.Queue()
				other, _ := env.Queue()
				lose(c)
				name := env.Put(q, "a", zkq.WithUnique("k"))
				lose(c)
				env.WantRefused(q, "k", name)
				env.WantRefused(other, "k", name)
				lose(c)
				env.Consume(env.Take(q))
				env.WantNothingLeft(q)
			})
		})
	}
}

// A put that was refused is refused for good: an attempt of it that is still on its way
// when the key becomes free is not applied.
func TestAPutThatWasRefusedIsNotAppliedLater(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		other, _ := env.Queue()
		standing := env.Put(other, "standing", zkq.WithUnique("k"))
		env.Put(q, "a lane")
		voids := 0
		env.Store.Observe(func(a coordtest.Applied) {
			for _, op := range a.Ops {
				if strings.HasPrefix(op.Path, "/zkq/producers/") && strings.Contains(string(op.Value), "void") {
					voids++
				}
			}
		})
		c.DropRequest() // lost, or late: the putter cannot know
		env.WantRefused(q, "k", standing)
		if voids != 1 {
			t.Errorf("%d lanes have moved on", voids)
		}
		// One that was answered cost nothing more.
		env.WantRefused(q, "k", standing)
		if voids != 1 {
			t.Errorf("%d lanes have moved on", voids)
		}
	})
}

func TestUniquePutsAreMadeAgainWithTheirToken(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, _ := env.Queue()
		token, err := q.NewToken(env.Ctx)
		if err != nil {
			t.Fatal(err)
		}
		name := env.Put(q, "a", zkq.WithUnique("k"), zkq.WithToken(token))
		if again := env.Put(q, "a", zkq.WithUnique("k"), zkq.WithToken(token)); again != name {
			t.Errorf("put again is %s, and was %s", again, name)
		}
		env.WantRefused(q, "k", name)
	})
}

func TestUniquePutsThatCannotBeAreRefused(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		q, c := env.Queue()
		_, err := q.PutAll(env.Ctx, make([][]byte, 2), zkq.WithUnique("k"))
		env.WantErr(err, zkq.ErrInvalid)
		_, err = q.Put(env.Ctx, nil, zkq.WithUnique(strings.Repeat("k", zkq.MaxKey+1)))
		env.WantErr(err, zkq.ErrTooLarge)
		_, err = q.Put(env.Ctx, nil, zkq.WithTTL(1<<63-1))
		env.WantErr(err, zkq.ErrInvalid)
		env.WantRefused(q, "", env.Put(q, "a", zkq.WithUnique("")))
		plain := zkq.NewQueue(c, "plain")
		defer plain.Close()
		for _, opt := range []zkq.PutOption{zkq.WithUnique("k"), zkq.WithTTL(time.Second), zkq.WithWait(time.Second)} {
			_, err := plain.Put(context.Background(), nil, opt)
			env.WantErr(err, zkq.ErrInvalid)
		}
	})
}
