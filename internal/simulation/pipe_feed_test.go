package simulation

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord/coordtest/sim"
)

// simFeed is a put, or the put within a forward, as its caller saw it.
type simFeed struct {
	pool      *pipeQueue
	values    []string
	names     []string
	key       string
	notBefore time.Time // by what its putter said; zero: at once
	ttl       time.Duration
	expires   time.Time // of the last call that made it; zero: never
	token     zkq.Token
	opts      []zkq.PutOption
	outcome   string // ok, failed, unknown, void
}

func (f *simFeed) data() (data [][]byte) {
	for _, v := range f.values {
		data = append(data, []byte(v))
	}
	return data
}

// feed puts with one handle, from several goroutines where the plan says so: their puts share commits.
func (a *simActor) feed() {
	a.open()
	defer a.c.Close()
	q := a.queue(&a.l.first)
	defer q.Close()
	var hands sync.WaitGroup
	for i := 1; i < a.l.hands; i++ {
		name := fmt.Sprint(a.name, "hand", i)
		hand := &simActor{l: a.l, n: a.n + 30*i, name: name, ctx: sim.WithActor(a.ctx, name), faulty: a.faulty, c: a.c, rng: rand.New(rand.NewPCG(a.rng.Uint64(), uint64(i)))}
		a.l.s.spawn(&hands, func() { hand.feedWith(q) })
	}
	a.feedWith(q)
	hands.Wait()
	if a.ctx.Err() == nil {
		a.l.mu.Lock()
		defer a.l.mu.Unlock()
		a.l.left--
	}
}

// feedWith puts all values of one goroutine, however often it must try.
func (a *simActor) feedWith(q *zkq.LockingQueue) {
	l := a.l
	for n, tries := 0, 0; n < 1+(l.feeds-1)/l.hands && a.ctx.Err() == nil; tries++ {
		simTurn(50 + a.n)
		f := a.newFeed(tries)
		if a.one(4) {
			var err error
			if f.token, err = q.NewToken(a.ctx); err != nil {
				a.sleep(500 * time.Millisecond)
				continue
			}
			f.opts = append(f.opts, zkq.WithToken(f.token))
		}
		a.put(q, f)
		for f.outcome == "unknown" && a.ctx.Err() == nil {
			a.settle(q, f)
		}
		if f.outcome == "ok" {
			n++
		}
		a.sleep(1500 * time.Millisecond / time.Duration(l.hands*l.hands))
	}
}

// newFeed draws a put with values that no other put has.
func (a *simActor) newFeed(n int) *simFeed {
	f := &simFeed{pool: &a.l.first}
	for i := range 1 + a.rng.IntN(2) {
		f.values = append(f.values, fmt.Sprint(a.name, "#", n, ":", i))
	}
	f.opts = append(f.opts, zkq.WithPriority(100+a.rng.IntN(2)))
	if a.l.keys > 0 && a.one(2) {
		f.key, f.values = fmt.Sprint("key", a.rng.IntN(a.l.keys)), f.values[:1]
		f.opts = append(f.opts, zkq.WithUnique(f.key))
	}
	if a.l.config.MaxEntries == 1 {
		f.values = f.values[:1]
	}
	if a.l.delays && a.one(2) {
		d := time.Duration(1+a.rng.IntN(6000)) * time.Millisecond
		f.notBefore, f.opts = time.Now().Add(d), append(f.opts, zkq.WithDelay(d))
	}
	if soon := a.one(2); a.l.ttls && (soon || a.l.operators.on && a.l.operators.abandoned) {
		f.ttl = time.Duration(1+a.rng.IntN(8000)) * time.Millisecond
		f.opts = append(f.opts, zkq.WithTTL(f.ttl))
	}
	if a.one(3) {
		f.opts = append(f.opts, zkq.WithWait(time.Duration(1+a.rng.IntN(3000))*time.Millisecond))
	}
	return f
}

// put makes a put and records the outcome.
func (a *simActor) put(q *zkq.LockingQueue, f *simFeed) {
	ctx, cancel := a.trying()
	defer cancel()
	a.l.notePut(f)
	call := a.l.s.now()
	names, err := q.PutAll(ctx, f.data(), f.opts...)
	unknown := (*zkq.UnknownError)(nil)
	a.l.mu.Lock()
	defer a.l.mu.Unlock()
	switch {
	case err == nil:
		f.outcome, f.names = "ok", names
		a.l.counted(f, "feed ok")
	case errors.As(err, &unknown):
		f.outcome, f.token = "unknown", unknown.Token
		a.l.s.count("feed unknown")
	default:
		f.outcome = "failed"
		a.l.s.count("feed failed")
		a.l.refused(f, call, err)
	}
}

// settle finds out the outcome of a put.
func (a *simActor) settle(q *zkq.LockingQueue, f *simFeed) {
	simTurn(50 + a.n)
	if a.one(2) {
		a.l.notePut(f)
		names, err := q.PutAll(a.ctx, f.data(), append(f.opts, zkq.WithToken(f.token))...)
		a.l.mu.Lock()
		defer a.l.mu.Unlock()
		switch {
		case err == nil:
			f.outcome, f.names = "ok", names
			a.l.counted(f, "feed again ok")
		case errors.Is(err, zkq.ErrTokenVoid):
			f.outcome = "void"
		}
		return
	}
	o, err := zkq.Resolve(a.ctx, a.c, f.token)
	switch {
	case err == nil && o.Applied:
		f.outcome = "ok"
		a.l.s.count("feed resolved ok")
	case err == nil:
		f.outcome = "void"
		a.l.s.count("feed resolved void")
	default:
		a.sleep(200 * time.Millisecond)
	}
}
