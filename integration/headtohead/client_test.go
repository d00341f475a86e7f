//go:build headtohead

package headtohead

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/zkqueue"
)

// client is the configuration of a process with one worker on each queue and some producers. worker.py reads the same.
type client struct {
	Name    string     `json:"name"`
	Servers []string   `json:"servers"`
	Root    string     `json:"root"`
	Session float64    `json:"session"` // this and what follows in seconds
	Wait    float64    `json:"wait"`    // of a take for an entry
	Hung    float64    `json:"hung"`    // a worker that has not begun to wait for so long
	Patient float64    `json:"patience"`
	Pause   [2]float64 `json:"pause"` // of a producer between two puts, from and to
	Work    [2]float64 `json:"work"`  // of a worker on an entry, from and to
	Journal string     `json:"journal"`
	Queues  []string   `json:"queues"`
	Puts    []int      `json:"puts"` // into the queues of these numbers, one producer for each mention
}

// state is a client's answer to "state".
type state struct {
	Putting int `json:"putting"` // puts that have not ended
	Held    int `json:"held"`    // entries whose finish has not ended
	Hung    int `json:"hung"`    // workers
}

// zkqClient is a client that runs with zkq.
type zkqClient struct {
	client
	out *os.File

	mu    sync.Mutex
	state state
	open  bool        // producers may put
	turns []time.Time // when each worker last began to wait for an entry
}

// zkqClientMain is the whole life of such a process, the counterpart of worker.py.
func zkqClientMain(config string) int {
	var c zkqClient
	if err := json.Unmarshal([]byte(config), &c.client); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := c.run(); err != nil {
		fmt.Fprintln(os.Stderr, c.Name, err)
		return 1
	}
	return 0
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func between(r [2]float64) time.Duration { return seconds(r[0] + rand.Float64()*(r[1]-r[0])) }

func (c *zkqClient) run() (err error) {
	if c.out, err = os.OpenFile(c.Journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	defer c.out.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	coordinator, err := zkqueue.Open(ctx, zkqueue.Config{
		Servers: c.Servers, Chroot: c.Root, SessionTimeout: seconds(c.Session), ConnectTimeout: 30 * time.Second,
	})
	if err != nil {
		return err
	}
	defer coordinator.Close()
	c.turns = make([]time.Time, len(c.Queues))
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var queues []*zkq.LockingQueue
	for n, name := range c.Queues {
		holder := fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64())
		q := zkq.NewLockingQueue(coordinator, name, zkq.Holder(holder))
		defer q.Close()
		queues = append(queues, q)
		c.turns[n] = time.Now()
		running.Go(func() { c.work(ctx, n, q, holder) })
	}
	for number, n := range c.Puts {
		running.Go(func() { c.produce(ctx, number, n, queues[n]) })
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "go":
			c.set(func() { c.open = true })
		case "hold":
			c.set(func() { c.open = false })
		case "state":
			c.sayState()
			continue
		}
		fmt.Println(lines.Text())
	}
	return nil
}

func (c *zkqClient) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *zkqClient) sayState() {
	c.set(func() {
		c.state.Hung = 0
		for _, t := range c.turns {
			if time.Since(t) > seconds(c.Hung) {
				c.state.Hung++
			}
		}
		b, _ := json.Marshal(c.state)
		fmt.Println(string(b))
	})
}

// write adds a line to the journal. Lines of one write stay whole.
func (c *zkqClient) write(r record) {
	r.Time = time.Now().UnixNano()
	b, err := json.Marshal(r)
	if err == nil {
		_, err = c.out.Write(append(b, '\n'))
	}
	if err != nil {
		panic(err) // without its journal a client must not go on
	}
}

func (c *zkqClient) produce(ctx context.Context, number, n int, q *zkq.LockingQueue) {
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(between(c.Pause)):
		}
		open := false
		c.set(func() { open = c.open })
		if !open {
			continue
		}
		value := fmt.Sprintf("%s/%d/%d", c.Name, number, i)
		c.write(record{Act: putting, Queue: n, Value: value})
		c.set(func() { c.state.Putting++ })
		patient, cancel := context.WithTimeout(context.Background(), seconds(c.Patient))
		_, err := q.Put(patient, []byte(value))
		cancel()
		c.write(record{Act: put, Queue: n, Value: value, Outcome: outcomeOf(err), Error: text(err)})
		c.set(func() { c.state.Putting-- })
	}
}

func (c *zkqClient) work(ctx context.Context, n int, q *zkq.LockingQueue, holder string) {
	for ctx.Err() == nil {
		c.set(func() { c.turns[n] = time.Now() })
		wait, cancel := context.WithTimeout(ctx, seconds(c.Wait))
		held, err := q.Take(wait)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			continue
		}
		if err != nil {
			c.write(record{Act: note, Queue: n, Error: err.Error()})
			time.Sleep(50 * time.Millisecond)
			continue
		}
		c.set(func() { c.state.Held++ })
		c.write(record{Act: took, Queue: n, Holder: holder, Name: held.Name, Value: string(held.Value)})
		time.Sleep(between(c.Work))
		c.write(record{Act: finishing, Queue: n, Holder: holder, Name: held.Name})
		patient, cancel := context.WithTimeout(context.Background(), seconds(c.Patient))
		err = held.Consume(patient)
		cancel()
		c.write(record{Act: finished, Queue: n, Holder: holder, Name: held.Name, Outcome: outcomeOf(err), Error: text(err)})
		c.set(func() { c.state.Held-- })
	}
}

func outcomeOf(err error) string {
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
