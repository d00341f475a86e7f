package testfleet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zkq/zkq"
)

// clientVariable holds the client that a process is to be.
const clientVariable = "ZKQ_TEST_FLEET_CLIENT"

// client is a process that puts into some queues and works on all. What it does stands in its journal before it does it and
// again when it knows the outcome, so that the journal of a client that was killed is true as well.
type client struct {
	Name string
	Place
	Journal string
	Queues  []string
	Puts    []int // into the queues of these numbers, once for each mention

	out  *os.File
	gate gate
	busy atomic.Int64 // workers that have an entry in hand, or in the journal but without its end
}

// Main is the first call of a TestMain: in a process that a [Fleet] started it is a client, and does not return. Its parent
// writes "hold", "quiet" and "go" to its standard input and reads an answer to each; it ends when that is closed.
func Main() {
	if config := os.Getenv(clientVariable); config != "" {
		os.Exit(clientMain(config))
	}
	if config := os.Getenv(holderVariable); config != "" {
		os.Exit(holderMain(config))
	}
}

func clientMain(config string) int {
	var c client
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := c.run(); err != nil {
		fmt.Fprintln(os.Stderr, c.Name, err)
		return 1
	}
	return 0
}

func (c *client) run() error {
	out, err := os.OpenFile(c.Journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	c.out = out
	ctx, cancel := context.WithCancel(context.Background())
	coordinator, err := Open(ctx, c.Place)
	if err != nil {
		cancel()
		return err
	}
	defer coordinator.Close()
	var running sync.WaitGroup
	var queues []*zkq.LockingQueue
	for n, name := range c.Queues {
		q := zkq.NewLockingQueue(coordinator, name)
		defer q.Close()
		queues = append(queues, q)
		running.Go(func() { c.work(ctx, n, q) })
	}
	for i, n := range c.Puts {
		running.Go(func() { c.put(ctx, i, n, queues[n]) })
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "hold":
			c.gate.close()
		case "go":
			c.gate.open()
		case "quiet":
			for c.busy.Load() > 0 {
				time.Sleep(5 * time.Millisecond)
			}
		}
		fmt.Println(lines.Text())
	}
	cancel()
	running.Wait()
	return nil
}

// write adds a line to the journal. Lines of one write stay whole.
func (c *client) write(r record) {
	r.Time = time.Now().UnixNano()
	b, err := json.Marshal(r)
	if err == nil {
		_, err = c.out.Write(append(b, '\n'))
	}
	if err != nil {
		panic(err) // without its journal a client must not go on
	}
}

// put puts about five entries a second.
func (c *client) put(ctx context.Context, i, n int, q *zkq.LockingQueue) {
	for count := 0; ; count++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(150*time.Millisecond + rand.N(100*time.Millisecond)):
		}
		if !c.gate.enter(ctx) {
			return
		}
		value := fmt.Sprintf("%s/%d/%d", c.Name, i, count)
		c.write(record{Act: putting, Queue: n, Value: value})
		patience, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		name, err := q.Put(patience, []byte(value))
		cancel()
		c.write(record{Act: put, Queue: n, Value: value, Name: name, Outcome: outcomeOf(err), Error: text(err)})
		c.gate.leave()
	}
}

// work takes entries, holds each for a while, and finishes it or, now and then, gives it back.
func (c *client) work(ctx context.Context, n int, q *zkq.LockingQueue) {
	for ctx.Err() == nil {
		held, err := q.Take(ctx)
		if err != nil {
			if ctx.Err() == nil {
				c.write(record{Act: note, Queue: n, Error: "take: " + err.Error()})
				time.Sleep(50 * time.Millisecond)
			}
			continue
		}
		c.busy.Add(1)
		c.write(record{Act: took, Queue: n, Name: held.Name, Value: string(held.Value), Token: held.Token})
		time.Sleep(rand.N(400 * time.Millisecond))
		before, after, end := finishing, finished, held.Consume
		if rand.N(20) == 0 {
			before, after = releasing, released
			end = func(ctx context.Context) error { return held.Release(ctx) }
		}
		c.write(record{Act: before, Queue: n, Name: held.Name, Token: held.Token})
		// Until the session ends: whoever is without an answer then has lost the entry.
		err = end(context.Background())
		c.write(record{Act: after, Queue: n, Name: held.Name, Token: held.Token, Outcome: outcomeOf(err), Error: text(err)})
		c.busy.Add(-1)
	}
}

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return ok
	case errors.Is(err, zkq.ErrUnknown):
		return unknown
	case errors.Is(err, zkq.ErrLockLost):
		return lost
	}
	return refused
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// gate holds producers back. The zero value is open.
type gate struct {
	mu     sync.RWMutex // read-held by who is inside
	inside sync.Mutex
	closed bool
}

func (g *gate) close() {
	g.inside.Lock()
	defer g.inside.Unlock()
	if !g.closed {
		g.mu.Lock() // waits for those inside
		g.closed = true
	}
}

func (g *gate) open() {
	g.inside.Lock()
	defer g.inside.Unlock()
	if g.closed {
		g.mu.Unlock()
		g.closed = false
	}
}

// enter waits until the gate is open, and reports whether ctx still stands.
func (g *gate) enter(ctx context.Context) bool {
	for !g.mu.TryRLock() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true
}

func (g *gate) leave() { g.mu.RUnlock() }
