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

// clientVariable is the environment variable with the configuration of a client process.
const clientVariable = "ZKQ_TEST_FLEET_CLIENT"

// client is a process that puts into some queues and works on all. It writes each act into its
// journal before it begins, and again with the outcome. So the journal of a client that was
// killed is true, too.
type client struct {
	Name string
	Place
	Journal string
	Queues  []string
	Puts    []int // numbers of the queues to put into; a queue named twice gets two producers

	out         *os.File
	gate        gate
	busyWorkers atomic.Int64 // workers that hold an entry
}

// Main is the first call of a TestMain. In a process that a [Fleet] started it is a client, and
// does not return. The parent writes "hold", "quiet" and "go" to its standard input and reads an
// answer to each. The client ends when its standard input is closed.
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
			for c.busyWorkers.Load() > 0 {
				time.Sleep(5 * time.Millisecond)
			}
		}
		fmt.Println(lines.Text())
	}
	cancel()
	running.Wait()
	return nil
}

// record adds a line to the journal. One write keeps the line whole.
func (c *client) record(r journalRecord) {
	r.Time = time.Now().UnixNano()
	b, err := json.Marshal(r)
	if err == nil {
		_, err = c.out.Write(append(b, '\n'))
	}
	if err != nil {
		panic(err) // a client without its journal must not go on
	}
}

// put puts about five entries a second into one queue.
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
		c.record(journalRecord{Act: actPutting, Queue: n, Value: value})
		patience, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		name, err := q.Put(patience, []byte(value))
		cancel()
		c.record(journalRecord{Act: actPut, Queue: n, Value: value, Name: name, Outcome: outcomeOf(err), Error: errorText(err)})
		c.gate.leave()
	}
}

// work takes entries of one queue, holds each for a while, and finishes it or, sometimes, gives it
// back.
func (c *client) work(ctx context.Context, n int, q *zkq.LockingQueue) {
	for ctx.Err() == nil {
		held, err := q.Take(ctx)
		if err != nil {
			if ctx.Err() == nil {
				c.record(journalRecord{Act: actNote, Queue: n, Error: "take: " + err.Error()})
				time.Sleep(50 * time.Millisecond)
			}
			continue
		}
		c.busyWorkers.Add(1)
		c.record(journalRecord{Act: actTook, Queue: n, Name: held.Name, Value: string(held.Value), Token: held.Token})
		time.Sleep(rand.N(400 * time.Millisecond))
		before, after, end := actFinishing, actFinished, held.Consume
		if rand.N(20) == 0 {
			before, after = actReleasing, actReleased
			end = func(ctx context.Context) error { return held.Release(ctx) }
		}
		c.record(journalRecord{Act: before, Queue: n, Name: held.Name, Token: held.Token})
		// It waits until the session ends. Without an answer by then the entry is lost.
		err = end(context.Background())
		c.record(journalRecord{Act: after, Queue: n, Name: held.Name, Token: held.Token, Outcome: outcomeOf(err), Error: errorText(err)})
		c.busyWorkers.Add(-1)
	}
}

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return outcomeOK
	case errors.Is(err, zkq.ErrUnknown):
		return outcomeUnknown
	case errors.Is(err, zkq.ErrLockLost):
		return outcomeLost
	}
	return outcomeRefused
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// gate holds producers back while it is closed. The zero value is open.
type gate struct {
	passage  sync.RWMutex // read-held by each producer inside
	stateMu  sync.Mutex
	isClosed bool
}

// close closes the gate and waits until no producer is inside.
func (g *gate) close() {
	g.stateMu.Lock()
	defer g.stateMu.Unlock()
	if !g.isClosed {
		g.passage.Lock() // waits for the producers inside
		g.isClosed = true
	}
}

func (g *gate) open() {
	g.stateMu.Lock()
	defer g.stateMu.Unlock()
	if g.isClosed {
		g.passage.Unlock()
		g.isClosed = false
	}
}

// enter waits until the gate is open. It reports false if ctx ends before.
func (g *gate) enter(ctx context.Context) bool {
	for !g.passage.TryRLock() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true
}

func (g *gate) leave() { g.passage.RUnlock() }
