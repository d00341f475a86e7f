package zkq_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// log is a handle in a process of its own.
func (b *bench) log(config zkq.LogConfig) (*zkq.Log, *coordtest.Coordinator) {
	c := b.client()
	l := zkq.NewLog(c, "jobs", config)
	b.Cleanup(func() { l.Close() })
	return l, c
}

func (b *bench) append(l *zkq.Log, values ...string) int64 {
	b.Helper()
	var bytes [][]byte
	for _, v := range values {
		bytes = append(bytes, []byte(v))
	}
	n, err := l.Append(b.ctx, bytes...)
	if err != nil {
		b.Fatalf("Append: %v", err)
	}
	return n
}

func said(batch *zkq.Batch) string {
	var values []string
	for _, e := range batch.Entries {
		values = append(values, string(e.Value))
	}
	s := strings.Join(values, " ")
	if batch.Missed > 0 {
		s += fmt.Sprintf(" and %d missed", batch.Missed)
	}
	return s
}

// reads reads and commits what there is now.
func (b *bench) reads(label *zkq.Label, n int, want string) {
	b.Helper()
	batch, err := label.TryRead(b.ctx, n)
	if want == "" {
		if !errors.Is(err, zkq.ErrEmpty) {
			b.Fatalf("TryRead = %+v, %v; want ErrEmpty", batch, err)
		}
		return
	}
	if err != nil {
		b.Fatalf("TryRead: %v", err)
	}
	if got := said(batch); got != want {
		b.Fatalf("read %q, want %q", got, want)
	}
	if err := batch.Commit(b.ctx); err != nil {
		b.Fatalf("Commit: %v", err)
	}
}

func TestEveryLabelReadsTheWholeLog(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		l, _ := b.log(zkq.LogConfig{})
		if n := b.append(l, "a", "b"); n != 0 {
			t.Errorf("the first has number %d", n)
		}
		if n := b.append(l, "c", "", "d"); n != 2 {
			t.Errorf("the third has number %d", n)
		}
		one, two := l.Label("one", zkq.Oldest), l.Label("two", zkq.Oldest)
		b.reads(one, 2, "a b")
		b.reads(one, 10, "c  d")
		b.reads(one, 10, "")
		b.reads(two, 3, "a b c")
		other, _ := b.log(zkq.LogConfig{})
		b.append(other, "e")
		b.reads(other.Label("one", zkq.Newest), 10, "e") // goes on where the label stands
		b.reads(two, 10, " d e")
		if n, err := l.Len(b.ctx); n != 6 || err != nil {
			t.Errorf("%d entries, %v", n, err)
		}
	})
}

func TestLabelsBeginWhereTheyAreTold(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		l, _ := b.log(zkq.LogConfig{})
		for name, start := range map[string]zkq.Start{"early oldest": zkq.Oldest, "early newest": zkq.Newest, "early next": zkq.FromNext} {
			b.reads(l.Label(name, start), 10, "")
		}
		b.append(l, "a", "b", "c")
		b.reads(l.Label("oldest", zkq.Oldest), 10, "a b c")
		b.reads(l.Label("newest", zkq.Newest), 10, "c")
		b.reads(l.Label("next", zkq.FromNext), 10, "")
		b.append(l, "d")
		for _, name := range []string{"early oldest", "early newest", "early next"} {
			b.reads(l.Label(name, zkq.Oldest), 10, "a b c d")
		}
		for _, name := range []string{"oldest", "newest", "next"} {
			b.reads(l.Label(name, zkq.Oldest), 10, "d")
		}
	})
}

// TestSlowAppendIsNotMissed: it is on its way while others append and a label passes.
// With names that sort by when an append began it would come to stand behind the label.
func TestSlowAppendIsNotMissed(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		slow, c := b.log(zkq.LogConfig{})
		b.append(slow, "first")
		quick, _ := b.log(zkq.LogConfig{})
		label := quick.Label("reader", zkq.Oldest)
		b.reads(label, 10, "first")

		c.HoldRequests()
		done := make(chan error, 1)
		go func() {
			_, err := slow.Append(b.ctx, []byte("slow"))
			done <- err
		}()
		time.Sleep(time.Second)
		b.append(quick, "second")
		b.append(quick, "third")
		b.reads(label, 10, "second third")
		c.Heal()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		b.reads(label, 10, "slow")
		b.reads(label, 10, "")
	})
}

func TestExpiredEntriesAreNeverHandedOutAndCounted(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		short, _ := b.log(zkq.LogConfig{TTL: 10 * time.Second})
		long, _ := b.log(zkq.LogConfig{TTL: time.Hour})
		label := short.Label("reader", zkq.Oldest)
		b.append(short, "a", "b")
		b.append(long, "c")
		b.append(short, "d")
		b.append(long, "e")
		b.reads(label, 1, "a")
		time.Sleep(9 * time.Second)
		b.reads(label, 1, "b")
		time.Sleep(2 * time.Second)
		b.reads(short.Label("late", zkq.Oldest), 10, "c e and 1 missed") // of what expired before it, it hears nothing
		b.reads(label, 1, "c")
		b.reads(label, 10, "e and 1 missed") // d, and no live one with it
		b.reads(label, 10, "")
		b.append(short, "f", "g")
		time.Sleep(10 * time.Second)
		batch, err := label.TryRead(b.ctx, 10)
		if err != nil || len(batch.Entries) != 0 || batch.Missed != 2 {
			t.Fatalf("TryRead = %+v, %v; want 2 missed", batch, err)
		}
		if err := batch.Commit(b.ctx); err != nil {
			t.Fatal(err)
		}
		b.reads(label, 10, "") // it is said once
		time.Sleep(time.Hour)
		if n, err := long.Trim(b.ctx); n != 5 || err != nil { // an append has trimmed the first two
			t.Errorf("trimmed %d, %v", n, err)
		}
		b.reads(short.Label("late", zkq.Oldest), 10, " and 2 missed") // also when they are gone
	})
}

func TestLogKeepsAsManyAsItIsTold(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		l, _ := b.log(zkq.LogConfig{Keep: 10})
		label := l.Label("reader", zkq.Oldest)
		b.reads(label, 1, "")
		for i := range 300 {
			b.append(l, fmt.Sprint(i))
			time.Sleep(100 * time.Millisecond)
		}
		if n, err := l.Len(b.ctx); n < 10 || n > 25 || err != nil {
			t.Errorf("%d are kept, %v", n, err)
		}
		if _, err := l.Trim(b.ctx); err != nil {
			t.Fatal(err)
		}
		b.reads(label, 3, "290 291 292 and 290 missed")
		if n, err := l.Truncate(b.ctx, 299); n != 9 || err != nil {
			t.Errorf("truncated %d, %v", n, err)
		}
		b.reads(label, 3, "299 and 6 missed")
		if n, err := l.Truncate(b.ctx, 1<<40); n != 1 || err != nil {
			t.Errorf("truncated %d, %v", n, err)
		}
		if n := b.append(l, "more"); n != 300 {
			t.Errorf("a number was given again: %d", n)
		}
	})
}

func TestOnlyOneReaderOfALabelMovesIt(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		one, _ := b.log(zkq.LogConfig{})
		two, _ := b.log(zkq.LogConfig{})
		b.append(one, "a", "b", "c")
		first, err := one.Label("x", zkq.Oldest).Read(b.ctx, 2)
		if err != nil {
			t.Fatal(err)
		}
		second, err := two.Label("x", zkq.Oldest).Read(b.ctx, 3)
		if err != nil || said(second) != "a b c" {
			t.Fatal(second, err)
		}
		if err := second.Commit(b.ctx); err != nil {
			t.Fatal(err)
		}
		b.want(second.Commit(b.ctx), zkq.ErrAlreadyDone)
		b.want(first.Commit(b.ctx), zkq.ErrMoved)
		b.want(first.Commit(b.ctx), zkq.ErrMoved)
		b.reads(one.Label("x", zkq.Oldest), 1, "")
	})
}

func TestBatchOfARemovedLabelMovesNoLaterOne(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		l, _ := b.log(zkq.LogConfig{})
		b.append(l, "a", "b", "c")
		label := l.Label("x", zkq.Oldest)
		old, err := label.Read(b.ctx, 2)
		if err != nil {
			t.Fatal(err)
		}
		if was, err := l.RemoveLabel(b.ctx, "x"); !was || err != nil {
			t.Fatalf("RemoveLabel = %v, %v", was, err)
		}
		if was, err := l.RemoveLabel(b.ctx, "x"); was || err != nil {
			t.Fatalf("a second RemoveLabel = %v, %v", was, err)
		}
		again, err := label.Read(b.ctx, 1)
		if err != nil || said(again) != "a" {
			t.Fatalf("a removed label begins with %v, %v", again, err)
		}
		b.want(old.Commit(b.ctx), zkq.ErrMoved)
		b.reads(label, 10, "a b c")
	})
}

func TestLabelsAreListedWithTheirPlaces(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		l, _ := b.log(zkq.LogConfig{})
		if infos, err := l.Labels(b.ctx); len(infos) != 0 || err != nil {
			t.Errorf("labels of nothing: %v, %v", infos, err)
		}
		b.append(l, "a", "b", "c")
		b.reads(l.Label("z", zkq.Oldest), 2, "a b")
		b.reads(l.Label("ü b", zkq.Newest), 2, "c")
		infos, err := l.Labels(b.ctx)
		if want := "[{z 2 1} {ü b 3 0}]"; fmt.Sprint(infos) != want || err != nil {
			t.Errorf("labels %v, %v; want %s", infos, err, want)
		}
	})
}

func TestReadWaitsForAnAppend(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		l, c := b.log(zkq.LogConfig{})
		other, _ := b.log(zkq.LogConfig{})
		for i, trouble := range []func(){func() {}, func() { c.Expire() }, func() { c.Cut(); time.AfterFunc(2*time.Second, c.Heal) }} {
			got := make(chan string, 1)
			go func() {
				batch, err := l.Label("x", zkq.Oldest).Next(b.ctx, 5)
				if err != nil {
					t.Error(err)
					batch = &zkq.Batch{}
				}
				got <- said(batch)
			}()
			time.Sleep(10 * time.Second)
			trouble()
			start := time.Now()
			b.append(other, fmt.Sprint(i))
			if s := <-got; s != fmt.Sprint(i) || time.Since(start) > 5*time.Second {
				t.Errorf("%d: read %q after %v", i, s, time.Since(start))
			}
		}
		ctx, cancel := context.WithTimeout(b.ctx, time.Second)
		defer cancel()
		_, err := l.Label("x", zkq.Oldest).Read(ctx, 1)
		b.want(err, context.DeadlineExceeded)
		time.AfterFunc(time.Second, func() { l.Close() })
		_, err = l.Label("x", zkq.Oldest).Read(b.ctx, 1)
		b.want(err, zkq.ErrClosed)
	})
}

func TestAppendsWhoseAnswersAreLostAreMadeOnce(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		l, c := b.log(zkq.LogConfig{})
		b.append(l, "0")
		for i := range 6 {
			if i%2 == 0 {
				c.DropReply()
			} else {
				c.DropRequest()
			}
			if n := b.append(l, fmt.Sprint(i+1)); n != int64(i+1) {
				t.Errorf("%d has number %d", i+1, n)
			}
		}
		b.reads(l.Label("x", zkq.Oldest), 100, "0 1 2 3 4 5 6")
	})
}

func TestUnansweredCommitOfABatchIsKnownLater(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		for _, applied := range []bool{true, false} {
			l, c := b.log(zkq.LogConfig{})
			name := fmt.Sprint(applied)
			label := l.Label(name, zkq.FromNext)
			b.reads(label, 1, "")
			b.append(l, "a", "b")
			batch, err := label.Read(b.ctx, 1)
			if err != nil {
				t.Fatal(err)
			}
			if applied {
				c.HoldReplies()
			} else {
				c.HoldRequests()
			}
			ctx, cancel := context.WithTimeout(b.ctx, time.Second)
			b.want(batch.Commit(ctx), zkq.ErrUnknown)
			cancel()
			ctx, cancel = context.WithTimeout(b.ctx, time.Second)
			b.want(batch.Commit(ctx), zkq.ErrUnknown) // nobody answers this either
			cancel()
			c.Heal()
			if err := batch.Commit(b.ctx); err != nil {
				t.Fatal(err)
			}
			b.want(batch.Commit(b.ctx), zkq.ErrAlreadyDone)
			b.reads(label, 2, "b")
		}
	})
}

func TestManyAppendersLeaveNoGap(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		const processes, each = 5, 20
		var all sync.WaitGroup
		for p := range processes {
			l, _ := b.log(zkq.LogConfig{})
			all.Go(func() {
				for i := range each {
					if _, err := l.Append(b.ctx, fmt.Append(nil, p, " ", i, " first"), fmt.Append(nil, p, " ", i, " second")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		l, _ := b.log(zkq.LogConfig{})
		batch, err := l.Label("x", zkq.Oldest).Read(b.ctx, 1000)
		if err != nil || len(batch.Entries) != processes*each*2 || batch.Missed != 0 {
			t.Fatalf("%d entries, %d missed, %v", len(batch.Entries), batch.Missed, err)
		}
		last := make(map[string]string)
		for i, e := range batch.Entries {
			if e.Number != int64(i) {
				t.Errorf("the %d. has number %d", i, e.Number)
			}
			if i%2 == 1 && strings.TrimSuffix(string(e.Value), "second") != strings.TrimSuffix(string(batch.Entries[i-1].Value), "first") {
				t.Errorf("%q stands behind %q", e.Value, batch.Entries[i-1].Value)
			}
			last[string(e.Value)] = "there"
		}
		if len(last) != processes*each*2 {
			t.Errorf("%d different entries", len(last))
		}
	})
}

func TestLogRefusesWhatMakesNoSense(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		l, c := b.log(zkq.LogConfig{})
		_, err := l.Append(b.ctx, make([]byte, zkq.MaxValue+1))
		b.want(err, zkq.ErrTooLarge)
		for _, name := range []string{"", ".", "a/b", strings.Repeat("x", 256), "a\x00"} {
			_, err := l.Label(name, zkq.Oldest).TryRead(b.ctx, 1)
			b.want(err, zkq.ErrInvalidName)
		}
		_, err = l.Label("x", zkq.Start(7)).TryRead(b.ctx, 1)
		b.want(err, zkq.ErrInvalid)
		_, err = l.Label("x", zkq.Oldest).TryRead(b.ctx, 0)
		b.want(err, zkq.ErrInvalid)
		b.want((&zkq.Batch{}).Commit(b.ctx), zkq.ErrInvalid)
		for _, config := range []zkq.LogConfig{{TTL: -1}, {Keep: -1}} {
			_, err := zkq.NewLog(c, "jobs", config).Append(b.ctx, nil)
			b.want(err, zkq.ErrInvalid)
		}
		_, err = zkq.NewLog(c, "a/retained", zkq.LogConfig{}).Len(b.ctx)
		b.want(err, zkq.ErrInvalidName)
		if n := b.append(l); n != 0 {
			t.Errorf("nothing has number %d", n)
		}
		if n, err := l.Len(b.ctx); n != 0 || err != nil {
			t.Errorf("%d entries, %v", n, err)
		}
	})
}

func TestForeignNodesInALogAreSkipped(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		l, c := b.log(zkq.LogConfig{})
		s := b.session(c)
		for i := range 200 {
			b.commit(s, coord.Create(fmt.Sprintf("/jobs/retained/entries/!%d", i), nil), coord.Create(fmt.Sprintf("/jobs/retained/entries/0000x%d", i), nil))
		}
		b.append(l, "a", "b")
		b.reads(l.Label("x", zkq.Oldest), 1, "a")
		if n, err := l.Truncate(b.ctx, 1); n != 1 || err != nil {
			t.Errorf("truncated %d, %v", n, err)
		}
		b.reads(l.Label("x", zkq.Oldest), 1, "b")
	})
}

// forge creates a node among a log's entries.
func (b *bench) forge(s coord.Session, name string) {
	b.Helper()
	b.commit(s, coord.Create("/jobs/retained/entries/"+name, []byte("forged")))
}

func TestForeignNodesDoNotKeepALogFromBeingTrimmed(t *testing.T) {
	for _, foreign := range []int{1, 64, 2500} {
		t.Run(fmt.Sprint(foreign), func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				l, c := b.log(zkq.LogConfig{Keep: 2})
				s := b.session(c)
				for i := range foreign {
					b.forge(s, fmt.Sprintf("00-%04d", i))
				}
				for range 20 {
					b.append(l, "a", "a", "a", "a", "a", "a", "a", "a", "a", "a")
				}
				if n, err := l.Truncate(b.ctx, 190); err != nil || n < 100 {
					t.Errorf("removed %d, %v", n, err)
				}
				if n, err := l.Trim(b.ctx); err != nil || n != 8 {
					t.Errorf("trimmed %d, %v", n, err)
				}
				if n, err := l.Len(b.ctx); err != nil || n != 2+foreign {
					t.Errorf("%d are left, %v", n, err)
				}
			})
		})
	}
}

// A number that no append gave would move a label past all that is appended later, and
// one that was given already past the next.
func TestForgedNumbersMoveNoLabelPastEntries(t *testing.T) {
	for _, number := range []int64{1, 4, 1000, math.MaxInt64} {
		t.Run(fmt.Sprint(number), func(t *testing.T) {
			virtual(t, func(t *testing.T, b *bench) {
				l, c := b.log(zkq.LogConfig{})
				label := l.Label("x", zkq.Oldest)
				b.append(l, "a", "b", "c")
				b.forge(b.session(c), fmt.Sprintf("%019d-9999999999999-0000000000000", number))
				b.reads(label, 2, "a b")
				b.reads(label, 9, "c")
				b.reads(label, 9, "")
				b.append(l, "d")
				b.reads(label, 9, "d")
				b.append(l, "e", "f")
				b.reads(label, 9, "e f")
			})
		})
	}
}

// A cursor that no label has was made by somebody else: a new label gets another number, and
// does not try for that one for ever.
func TestANewLabelPassesOverACursorThatIsNobodys(t *testing.T) {
	virtual(t, func(t *testing.T, b *bench) {
		c := b.client()
		log := zkq.NewLog(c, "events", zkq.LogConfig{})
		defer log.Close()
		if _, err := log.Append(b.ctx, []byte("a")); err != nil {
			t.Fatal(err)
		}
		s := b.session(c)
		for i := range 3 {
			b.commit(s, coord.Create(fmt.Sprintf("/events/retained/cursors/%019d", i), []byte("not ours")))
		}
		batch, err := log.Label("l", zkq.Oldest).TryRead(b.ctx, 1)
		if err != nil || len(batch.Entries) != 1 {
			t.Fatalf("%+v, %v", batch, err)
		}
		b.want(batch.Commit(b.ctx), nil)
	})
}
