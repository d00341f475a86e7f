package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest/sim"
)

// simPut is a put of one or several values, as its caller saw it.
type simPut struct {
	client    string
	values    []string
	priority  int
	token     zkq.Token
	own       bool // the token was had before the put
	asked     bool // Resolve was called, and may have made the token void without an answer
	call, ret time.Duration
	names     []string // nil unless ok
	outcome   string   // ok, failed, unknown, or void: it was resolved, and was not applied
}

// putter is implemented by both kinds of queue.
type putter interface {
	Put(context.Context, []byte, ...zkq.PutOption) (string, error)
	PutAll(context.Context, [][]byte, ...zkq.PutOption) ([]string, error)
	NewToken(context.Context) (zkq.Token, error)
	Len(context.Context) (int, error)
	Close() error
}

// produce puts the values of the process, each once, and reports whether it finished. If the process crashes during a
// put, the next one resolves that put.
func (p *simProcess) produce(ctx context.Context, c coord.Coordinator, q putter, rng *rand.Rand) bool {
	ctx = sim.WithActor(ctx, "producer")
	for ctx.Err() == nil && (p.pending != nil || p.puts > 0) {
		simTurn(9)
		if p.pending != nil {
			if p.settle(ctx, c, q, rng) {
				continue
			}
			return false
		}
		put := p.newPut(rng)
		if rng.IntN(3) == 0 {
			var err error
			if put.token, err = q.NewToken(ctx); err != nil {
				p.s.count("token failed")
				simSleep(ctx, time.Duration(1+rng.IntN(500))*time.Millisecond)
				if errors.Is(err, coord.ErrClosed) {
					return false
				}
				continue
			}
			put.own = true
		}
		putting, cancel := ctx, context.CancelFunc(func() {})
		if rng.IntN(3) == 0 {
			putting, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(3000))*time.Millisecond)
		}
		put.call = p.s.now()
		p.s.mu.Lock()
		p.s.puts = append(p.s.puts, put)
		p.s.mu.Unlock()
		p.puts--
		err := p.put(putting, q, put)
		cancel()
		p.s.count("put " + put.outcome)
		if len(put.values) > 1 && err == nil {
			p.s.count("batch ok")
		}
		switch {
		case put.outcome == "unknown":
			p.pending = put
		case put.outcome == "failed" && p.s.world.numbersUsedUp():
			p.s.count("numbers used up")
			p.puts = 0
		case put.outcome == "failed":
			p.puts++ // another takes its place
		}
		if errors.Is(err, coord.ErrClosed) {
			return p.puts == 0 && p.pending == nil
		}
		if rng.IntN(8) == 0 {
			p.s.len(ctx, q)
		}
		simSleep(ctx, time.Duration(rng.IntN(1500))*time.Millisecond)
	}
	return p.puts == 0 && p.pending == nil
}

func (p *simProcess) newPut(rng *rand.Rand) *simPut {
	p.batch++
	put := &simPut{client: p.name + " producer", priority: 100 + rng.IntN(3)}
	n := 1
	if rng.IntN(5) == 0 {
		n = 1 + rng.IntN(3)
	}
	for i := range n {
		put.values = append(put.values, fmt.Sprintf("%s#%d:%d of %d", p.name, p.batch, i, n))
	}
	return put
}

// put makes a put and records the outcome.
func (p *simProcess) put(ctx context.Context, q putter, put *simPut) error {
	opts := []zkq.PutOption{zkq.WithPriority(put.priority)}
	if put.token != "" {
		opts = append(opts, zkq.WithToken(put.token))
	}
	var names []string
	var err error
	if len(put.values) == 1 {
		var name string
		name, err = q.Put(ctx, []byte(put.values[0]), opts...)
		names = []string{name}
	} else {
		var data [][]byte
		for _, v := range put.values {
			data = append(data, []byte(v))
		}
		names, err = q.PutAll(ctx, data, opts...)
	}
	put.ret = p.s.now()
	unknown := (*zkq.UnknownError)(nil)
	switch {
	case err == nil:
		put.outcome, put.names = "ok", names
	case errors.As(err, &unknown):
		if put.outcome = "unknown"; put.token != "" && put.token != unknown.Token {
			p.s.violation("the put with token %s is unknown with token %s", put.token, unknown.Token)
		}
		put.token = unknown.Token
	case errors.Is(err, zkq.ErrUnknown):
		p.s.violation("an unknown put has no token: %v", err)
	default:
		put.outcome = "failed"
	}
	return err
}

// settle finds out the outcome of a put: it resolves the token or repeats the put.
func (p *simProcess) settle(ctx context.Context, c coord.Coordinator, q putter, rng *rand.Rand) bool {
	put := p.pending
	if rng.IntN(2) == 0 {
		again := *put
		switch err := p.put(ctx, q, &again); {
		case again.outcome == "ok":
			p.s.count("put again ok")
		case errors.Is(err, zkq.ErrTokenVoid) && put.asked:
			if p.s.world.wasPut(put.values[0]) {
				p.s.violation("the put of %q: its token is void, and it was there", put.values)
			}
			put.outcome, put.ret, p.pending = "void", p.s.now(), nil
			p.puts++
			p.s.count("put again void")
			return true
		case errors.Is(err, zkq.ErrTokenVoid), errors.Is(err, zkq.ErrTokenExpired), errors.Is(err, zkq.ErrInvalid):
			p.s.violation("put again with token %s: %v", put.token, err)
			fallthrough
		default:
			// This call changed nothing, but the first one may have.
			simSleep(ctx, 100*time.Millisecond)
			return ctx.Err() == nil && !errors.Is(err, coord.ErrClosed)
		}
		put.outcome, put.names, put.ret, p.pending = "ok", again.names, again.ret, nil
		return true
	}
	put.asked = true
	applied, ok := p.resolve(ctx, c, put.token)
	if !ok {
		return ctx.Err() == nil
	}
	there := p.s.world.wasPut(put.values[0])
	if applied != there {
		p.s.violation("the put of %q: resolved as applied: %v, and it was there: %v", put.values, applied, there)
	}
	put.outcome, put.ret, p.pending = "void", p.s.now(), nil
	if applied {
		put.outcome = "ok"
	} else if !p.s.world.numbersUsedUp() {
		p.puts++
	}
	p.s.count("put resolved " + put.outcome)
	return true
}

// resolve returns the outcome of a token, if it can be known now.
func (p *simProcess) resolve(ctx context.Context, c coord.Coordinator, t zkq.Token) (applied, ok bool) {
	o, err := zkq.Resolve(ctx, c, t)
	switch {
	case err == nil:
		return o.Applied, true
	case errors.Is(err, zkq.ErrTokenExpired), errors.Is(err, zkq.ErrInvalid):
		p.s.violation("resolve %s: %v", t, err)
	}
	simSleep(ctx, 100*time.Millisecond)
	return false, false
}
