package zkq_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

func (b *bench) pause(q *zkq.LockingQueue) {
	b.Helper()
	if err := q.Pause(b.ctx); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) resume(q *zkq.LockingQueue) {
	b.Helper()
	if err := q.Resume(b.ctx); err != nil {
		b.Fatal(err)
	}
}

func TestNothingIsHandedOutWhilePaused(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		admin, c := b.queue()
		waiting, _ := b.queue()
		trying, _ := b.queue()
		held := b.take3(admin, "held")
		got := make(chan *zkq.Held)
		go func() {
			for h, err := range waiting.All(b.ctx) {
				if err != nil {
					return
				}
				got <- h
			}
		}()
		synctest.Wait()
		for range 3 {
			c.DropReply()
			b.pause(admin)
			b.pause(admin)
			synctest.Wait()
			b.put(admin, "a")
			b.put(admin, "b", zkq.WithDelay(time.Second))
			time.Sleep(time.Minute)
			_, err := trying.TryTake(b.ctx)
			b.want(err, zkq.ErrPaused)
			b.want(err, zkq.ErrEmpty)
			ctx, cancel := context.WithTimeout(b.ctx, time.Second)
			_, err = trying.Take(ctx)
			cancel()
			b.want(err, context.DeadlineExceeded)
			fresh, _ := b.queue()
			_, err = fresh.TryTake(b.ctx)
			b.want(err, zkq.ErrPaused)
			select {
			case h := <-got:
				t.Fatalf("%s was handed out", h.Name)
			default:
			}
			if st, err := admin.Stat(b.ctx); err != nil || st.Held != 1 || st.Ready != 2 {
				t.Errorf("%+v, %v", st, err)
			}
			if c, err := fresh.Config(b.ctx); err != nil || !c.Paused {
				t.Errorf("%+v, %v", c, err)
			}
			start := time.Now()
			b.resume(fresh)
			for range 2 {
				b.consume(<-got)
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("taken %v after the pause", d)
			}
		}
		b.consume(held)
		b.left(admin)
	})
}

// Whoever begins to wait while the queue is paused hears of its end, too.
func TestWhoBeginsToWaitInAPauseHearsOfItsEnd(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		admin, _ := b.queue()
		b.pause(admin)
		b.put(admin, "a")
		q, _ := b.queue()
		got := make(chan []*zkq.Held, 1)
		go func() {
			if held, err := q.TakeN(b.ctx, 2); err == nil {
				got <- held
			}
		}()
		time.Sleep(time.Hour)
		b.put(admin, "b")
		b.resume(admin)
		start := time.Now()
		if held := <-got; len(held) != 2 || time.Since(start) > time.Second {
			t.Errorf("%d entries after %v", len(held), time.Since(start))
		}
	})
}

// A pause that comes while the session is lost is heard of in the next.
func TestAPauseIsHeardInTheNextSession(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		admin, _ := b.queue()
		q, c := b.queue()
		got := make(chan *zkq.Held, 1)
		go func() {
			if h, err := q.Take(b.ctx); err == nil {
				got <- h
			}
		}()
		synctest.Wait()
		c.Cut()
		time.Sleep(time.Second)
		b.pause(admin)
		b.put(admin, "a")
		time.Sleep(20 * time.Second)
		c.Heal()
		time.Sleep(time.Minute)
		if len(got) > 0 {
			t.Fatal("it was handed out")
		}
		b.resume(admin)
		b.consume(<-got)
	})
}

// Close ends those who wait for a pause to end.
func TestCloseEndsWhoWaitsForAPauseToEnd(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		q, _ := b.queue()
		b.pause(q)
		done := make(chan error, 1)
		go func() {
			_, err := q.Take(b.ctx)
			done <- err
		}()
		synctest.Wait()
		q.Close()
		b.want(<-done, zkq.ErrClosed)
	})
}

// What a handle heard when it put is no reason to hand out what was paused since.
func TestAHandleThatOnlyPutSoFarTakesNothingThatIsPaused(t *testing.T) {
	takes := map[string]func(*zkq.LockingQueue, context.Context) ([]*zkq.Held, error){
		"Take":       func(q *zkq.LockingQueue, ctx context.Context) ([]*zkq.Held, error) { return q.TakeN(ctx, 1) },
		"TryTake":    func(q *zkq.LockingQueue, ctx context.Context) ([]*zkq.Held, error) { return q.TryTakeN(ctx, 1) },
		"Exchange":   func(q *zkq.LockingQueue, ctx context.Context) ([]*zkq.Held, error) { return q.Exchange(ctx, nil, 1) },
		"TryTake ×2": func(q *zkq.LockingQueue, ctx context.Context) ([]*zkq.Held, error) { return q.TryTakeN(ctx, 1) },
	}
	for how, take := range takes {
		t.Run(how, func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				q, _ := b.queue()
				admin, _ := b.queue()
				if how == "TryTake ×2" {
					b.empty(q)
				}
				b.put(q, "a")
				b.pause(admin)
				ctx, cancel := context.WithTimeout(b.ctx, 3*time.Second)
				defer cancel()
				if held, err := take(q, ctx); len(held) > 0 {
					t.Errorf("took %q, %v", values(held), err)
				}
			})
		})
	}
}

// late hands an answer to a read of the configuration to its caller later.
type late struct {
	coord.Coordinator

	mu      sync.Mutex
	session *lateSession  // one for each session of the service, as a driver has it
	hold    chan struct{} // for the next read; closed when its answer is to come
}

func (c *late) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil || c.session.Session != s {
		c.session = &lateSession{s, c}
	}
	return c.session, nil
}

func (c *late) holdNext(hold chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold = hold
}

func (c *late) held(path string) (hold chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if path == "/jobs/config" {
		hold, c.hold = c.hold, nil
	}
	return hold
}

type lateSession struct {
	coord.Session
	c *late
}

func (s *lateSession) Get(ctx context.Context, path string) (coord.Node, error) {
	n, err := s.Session.Get(ctx, path)
	if hold := s.c.held(path); hold != nil {
		<-hold
	}
	return n, err
}

func TestAnOldAnswerDoesNotEndAPause(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := &late{Coordinator: b.client()}
		q := b.on(c)
		admin, _ := b.queue()
		got := make(chan *zkq.Held)
		go func() {
			h, _ := q.Take(b.ctx)
			got <- h
		}()
		synctest.Wait()
		time.Sleep(time.Second)
		hold := make(chan struct{})
		c.holdNext(hold)
		go q.Config(b.ctx) // reads that nothing is paused
		synctest.Wait()
		b.pause(admin)
		time.Sleep(time.Second)
		close(hold)
		synctest.Wait()
		b.put(admin, "a")
		time.Sleep(time.Minute)
		select {
		case <-got:
			t.Error("it was handed out")
		default:
			b.resume(admin)
			<-got
		}
	})
}

func TestAPauseIsKnownOrSaidToBeUnknown(t *testing.T) {
	for _, outage := range []time.Duration{20 * time.Second, time.Hour} { // the session ends in both
		t.Run(outage.String(), func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				client := b.client()
				c := newCounting(client)
				q := b.on(c)
				if _, err := q.Config(b.ctx); err != nil {
					t.Fatal(err)
				}
				c.hook(func(_ coord.Session, act, path string) {
					if act == "commit" && strings.HasSuffix(path, "/jobs/config") {
						c.hook(nil)
						client.HoldReplies()
						time.AfterFunc(outage, client.Heal)
					}
				})
				ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
				defer cancel()
				err := q.Pause(ctx)
				other, _ := b.queue()
				if c, err := other.Config(b.ctx); err != nil || !c.Paused {
					t.Fatalf("%+v, %v", c, err)
				}
				if outage > time.Minute {
					b.want(err, zkq.ErrUnknown)
				} else if err != nil {
					t.Error(err)
				}
				client.Heal()
			})
		})
	}
}

// Each take that waits is not told apart: the handle tells once that it waits, and once
// that it goes on.
func TestHandleTellsOfAPause(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		var j journal
		q, _ := b.queue(zkq.LogTo(&j), zkq.MaxDeliveries(1))
		admin, _ := b.queue()
		b.pause(admin)
		got := make(chan *zkq.Held, 2)
		for range 2 {
			go func() {
				h, err := q.Take(b.ctx)
				if err != nil {
					t.Error(err)
				}
				got <- h
			}()
		}
		synctest.Wait()
		b.put(admin, "a")
		b.put(admin, "b")
		b.resume(admin)
		worn := <-got
		b.consume(<-got)
		if err := worn.Fail(b.ctx, "no"); err != nil {
			t.Fatal(err)
		}
		b.empty(q)
		told := strings.Join(j.lines, "")
		for _, want := range []string{"warn queue is paused", "info queue is resumed", "error entry is dead"} {
			if strings.Count(told, want) != 1 {
				t.Errorf("it told %q, and not once %q", told, want)
			}
		}
	})
}
