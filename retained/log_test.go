package retained_test

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
	"github.com/zkq/zkq/internal/testqueue"
	"github.com/zkq/zkq/retained"
)

// log is a handle in a process of its own.
func openLog(env *testqueue.Env, config retained.Config) (*retained.Log, *coordtest.Coordinator) {
	c := env.Client()
	l := retained.NewLog(c, "jobs", config)
	env.Cleanup(func() { l.Close() })
	return l, c
}

func appendValues(env *testqueue.Env, l *retained.Log, values ...string) int64 {
	env.Helper()
	var bytes [][]byte
	for _, v := range values {
		bytes = append(bytes, []byte(v))
	}
	n, err := l.Append(env.Ctx, bytes...)
	if err != nil {
		env.Fatalf("Append: %v", err)
	}
	return n
}

func said(batch *retained.Batch) string {
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
func wantRead(env *testqueue.Env, label *retained.Label, n int, want string) {
	env.Helper()
	batch, err := label.TryRead(env.Ctx, n)
	if want == "" {
		if !errors.Is(err, zkq.ErrEmpty) {
			env.Fatalf("TryRead = %+v, %v; want ErrEmpty", batch, err)
		}
		return
	}
	if err != nil {
		env.Fatalf("TryRead: %v", err)
	}
	if got := said(batch); got != want {
		env.Fatalf("read %q, want %q", got, want)
	}
	if err := batch.Commit(env.Ctx); err != nil {
		env.Fatalf("Commit: %v", err)
	}
}

func TestEveryLabelReadsTheWholeLog(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		l, _ := openLog(env, retained.Config{})
		if n := appendValues(env, l, "a", "b"); n != 0 {
			t.Errorf("the first has number %d", n)
		}
		if n := appendValues(env, l, "c", "", "d"); n != 2 {
			t.Errorf("the third has number %d", n)
		}
		one, two := l.Label("one", retained.Oldest), l.Label("two", retained.Oldest)
		wantRead(env, one, 2, "a b")
		wantRead(env, one, 10, "c  d")
		wantRead(env, one, 10, "")
		wantRead(env, two, 3, "a b c")
		other, _ := openLog(env, retained.Config{})
		appendValues(env, other, "e")
		wantRead(env, other.Label("one", retained.Newest), 10, "e") // goes on where the label stands
		wantRead(env, two, 10, " d e")
		if n, err := l.Len(env.Ctx); n != 6 || err != nil {
			t.Errorf("%d entries, %v", n, err)
		}
	})
}

func TestLabelsBeginWhereTheyAreTold(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		l, _ := openLog(env, retained.Config{})
		for name, start := range map[string]retained.Start{"early oldest": retained.Oldest, "early newest": retained.Newest, "early next": retained.FromNext} {
			wantRead(env, l.Label(name, start), 10, "")
		}
		appendValues(env, l, "a", "b", "c")
		wantRead(env, l.Label("oldest", retained.Oldest), 10, "a b c")
		wantRead(env, l.Label("newest", retained.Newest), 10, "c")
		wantRead(env, l.Label("next", retained.FromNext), 10, "")
		appendValues(env, l, "d")
		for _, name := range []string{"early oldest", "early newest", "early next"} {
			wantRead(env, l.Label(name, retained.Oldest), 10, "a b c d")
		}
		for _, name := range []string{"oldest", "newest", "next"} {
			wantRead(env, l.Label(name, retained.Oldest), 10, "d")
		}
	})
}

// TestSlowAppendIsNotMissed: it is on its way while others append and a label passes.
// With names that sort by when an append began it would come to stand behind the label.
func TestSlowAppendIsNotMissed(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		slow, c := openLog(env, retained.Config{})
		appendValues(env, slow, "first")
		quick, _ := openLog(env, retained.Config{})
		label := quick.Label("reader", retained.Oldest)
		wantRead(env, label, 10, "first")

		c.HoldRequests()
		done := make(chan error, 1)
		go func() {
			_, err := slow.Append(env.Ctx, []byte("slow"))
			done <- err
		}()
		time.Sleep(time.Second)
		appendValues(env, quick, "second")
		appendValues(env, quick, "third")
		wantRead(env, label, 10, "second third")
		c.Heal()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		wantRead(env, label, 10, "slow")
		wantRead(env, label, 10, "")
	})
}

func TestExpiredEntriesAreNeverHandedOutAndCounted(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		short, _ := openLog(env, retained.Config{TTL: 10 * time.Second})
		long, _ := openLog(env, retained.Config{TTL: time.Hour})
		label := short.Label("reader", retained.Oldest)
		appendValues(env, short, "a", "b")
		appendValues(env, long, "c")
		appendValues(env, short, "d")
		appendValues(env, long, "e")
		wantRead(env, label, 1, "a")
		time.Sleep(9 * time.Second)
		wantRead(env, label, 1, "b")
		time.Sleep(2 * time.Second)
		wantRead(env, short.Label("late", retained.Oldest), 10, "c e and 1 missed") // of what expired before it, it hears nothing
		wantRead(env, label, 1, "c")
		wantRead(env, label, 10, "e and 1 missed") // d, and no live one with it
		wantRead(env, label, 10, "")
		appendValues(env, short, "f", "g")
		time.Sleep(10 * time.Second)
		batch, err := label.TryRead(env.Ctx, 10)
		if err != nil || len(batch.Entries) != 0 || batch.Missed != 2 {
			t.Fatalf("TryRead = %+v, %v; want 2 missed", batch, err)
		}
		if err := batch.Commit(env.Ctx); err != nil {
			t.Fatal(err)
		}
		wantRead(env, label, 10, "") // it is said once
		time.Sleep(time.Hour)
		if n, err := long.Trim(env.Ctx); n != 5 || err != nil { // an append has trimmed the first two
			t.Errorf("trimmed %d, %v", n, err)
		}
		wantRead(env, short.Label("late", retained.Oldest), 10, " and 2 missed") // also when they are gone
	})
}

func TestLogKeepsAsManyAsItIsTold(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		l, _ := openLog(env, retained.Config{Keep: 10})
		label := l.Label("reader", retained.Oldest)
		wantRead(env, label, 1, "")
		for i := range 300 {
			appendValues(env, l, fmt.Sprint(i))
			time.Sleep(100 * time.Millisecond)
		}
		if n, err := l.Len(env.Ctx); n < 10 || n > 25 || err != nil {
			t.Errorf("%d are kept, %v", n, err)
		}
		if _, err := l.Trim(env.Ctx); err != nil {
			t.Fatal(err)
		}
		wantRead(env, label, 3, "290 291 292 and 290 missed")
		if n, err := l.Truncate(env.Ctx, 299); n != 9 || err != nil {
			t.Errorf("truncated %d, %v", n, err)
		}
		wantRead(env, label, 3, "299 and 6 missed")
		if n, err := l.Truncate(env.Ctx, 1<<40); n != 1 || err != nil {
			t.Errorf("truncated %d, %v", n, err)
		}
		if n := appendValues(env, l, "more"); n != 300 {
			t.Errorf("a number was given again: %d", n)
		}
	})
}

func TestOnlyOneReaderOfALabelMovesIt(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		one, _ := openLog(env, retained.Config{})
		two, _ := openLog(env, retained.Config{})
		appendValues(env, one, "a", "b", "c")
		first, err := one.Label("x", retained.Oldest).Read(env.Ctx, 2)
		if err != nil {
			t.Fatal(err)
		}
		second, err := two.Label("x", retained.Oldest).Read(env.Ctx, 3)
		if err != nil || said(second) != "a b c" {
			t.Fatal(second, err)
		}
		if err := second.Commit(env.Ctx); err != nil {
			t.Fatal(err)
		}
		env.WantErr(second.Commit(env.Ctx), zkq.ErrAlreadyDone)
		env.WantErr(first.Commit(env.Ctx), retained.ErrMoved)
		env.WantErr(first.Commit(env.Ctx), retained.ErrMoved)
		wantRead(env, one.Label("x", retained.Oldest), 1, "")
	})
}

func TestBatchOfARemovedLabelMovesNoLaterOne(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		l, _ := openLog(env, retained.Config{})
		appendValues(env, l, "a", "b", "c")
		label := l.Label("x", retained.Oldest)
		old, err := label.Read(env.Ctx, 2)
		if err != nil {
			t.Fatal(err)
		}
		if was, err := l.RemoveLabel(env.Ctx, "x"); !was || err != nil {
			t.Fatalf("RemoveLabel = %v, %v", was, err)
		}
		if was, err := l.RemoveLabel(env.Ctx, "x"); was || err != nil {
			t.Fatalf("a second RemoveLabel = %v, %v", was, err)
		}
		again, err := label.Read(env.Ctx, 1)
		if err != nil || said(again) != "a" {
			t.Fatalf("a removed label begins with %v, %v", again, err)
		}
		env.WantErr(old.Commit(env.Ctx), retained.ErrMoved)
		wantRead(env, label, 10, "a b c")
	})
}

func TestLabelsAreListedWithTheirPlaces(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		l, _ := openLog(env, retained.Config{})
		if infos, err := l.Labels(env.Ctx); len(infos) != 0 || err != nil {
			t.Errorf("labels of nothing: %v, %v", infos, err)
		}
		appendValues(env, l, "a", "b", "c")
		wantRead(env, l.Label("z", retained.Oldest), 2, "a b")
		wantRead(env, l.Label("ü b", retained.Newest), 2, "c")
		infos, err := l.Labels(env.Ctx)
		if want := "[{z 2 1} {ü b 3 0}]"; fmt.Sprint(infos) != want || err != nil {
			t.Errorf("labels %v, %v; want %s", infos, err, want)
		}
	})
}

func TestReadWaitsForAnAppend(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		l, c := openLog(env, retained.Config{})
		other, _ := openLog(env, retained.Config{})
		for i, trouble := range []func(){func() {}, func() { c.Expire() }, func() { c.Cut(); time.AfterFunc(2*time.Second, c.Heal) }} {
			got := make(chan string, 1)
			go func() {
				batch, err := l.Label("x", retained.Oldest).Next(env.Ctx, 5)
				if err != nil {
					t.Error(err)
					batch = &retained.Batch{}
				}
				got <- said(batch)
			}()
			time.Sleep(10 * time.Second)
			trouble()
			start := time.Now()
			appendValues(env, other, fmt.Sprint(i))
			if s := <-got; s != fmt.Sprint(i) || time.Since(start) > 5*time.Second {
				t.Errorf("%d: read %q after %v", i, s, time.Since(start))
			}
		}
		ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
		defer cancel()
		_, err := l.Label("x", retained.Oldest).Read(ctx, 1)
		env.WantErr(err, context.DeadlineExceeded)
		time.AfterFunc(time.Second, func() { l.Close() })
		_, err = l.Label("x", retained.Oldest).Read(env.Ctx, 1)
		env.WantErr(err, zkq.ErrClosed)
	})
}

func TestAppendsWhoseAnswersAreLostAreMadeOnce(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		l, c := openLog(env, retained.Config{})
		appendValues(env, l, "0")
		for i := range 6 {
			if i%2 == 0 {
				c.DropReply()
			} else {
				c.DropRequest()
			}
			if n := appendValues(env, l, fmt.Sprint(i+1)); n != int64(i+1) {
				t.Errorf("%d has number %d", i+1, n)
			}
		}
		wantRead(env, l.Label("x", retained.Oldest), 100, "0 1 2 3 4 5 6")
	})
}

func TestUnansweredCommitOfABatchIsKnownLater(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		for _, applied := range []bool{true, false} {
			l, c := openLog(env, retained.Config{})
			name := fmt.Sprint(applied)
			label := l.Label(name, retained.FromNext)
			wantRead(env, label, 1, "")
			appendValues(env, l, "a", "b")
			batch, err := label.Read(env.Ctx, 1)
			if err != nil {
				t.Fatal(err)
			}
			if applied {
				c.HoldReplies()
			} else {
				c.HoldRequests()
			}
			ctx, cancel := context.WithTimeout(env.Ctx, time.Second)
			env.WantErr(batch.Commit(ctx), zkq.ErrUnknown)
			cancel()
			ctx, cancel = context.WithTimeout(env.Ctx, time.Second)
			env.WantErr(batch.Commit(ctx), zkq.ErrUnknown) // this gets no answer either
			cancel()
			c.Heal()
			if err := batch.Commit(env.Ctx); err != nil {
				t.Fatal(err)
			}
			env.WantErr(batch.Commit(env.Ctx), zkq.ErrAlreadyDone)
			wantRead(env, label, 2, "b")
		}
	})
}

func TestManyAppendersLeaveNoGap(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		const processes, each = 5, 20
		var all sync.WaitGroup
		for p := range processes {
			l, _ := openLog(env, retained.Config{})
			all.Go(func() {
				for i := range each {
					if _, err := l.Append(env.Ctx, fmt.Append(nil, p, " ", i, " first"), fmt.Append(nil, p, " ", i, " second")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		l, _ := openLog(env, retained.Config{})
		batch, err := l.Label("x", retained.Oldest).Read(env.Ctx, 1000)
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
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		l, c := openLog(env, retained.Config{})
		_, err := l.Append(env.Ctx, make([]byte, zkq.MaxValue+1))
		env.WantErr(err, zkq.ErrTooLarge)
		for _, name := range []string{"", ".", "a/b", strings.Repeat("x", 256), "a\x00"} {
			_, err := l.Label(name, retained.Oldest).TryRead(env.Ctx, 1)
			env.WantErr(err, zkq.ErrInvalidName)
		}
		_, err = l.Label("x", retained.Start(7)).TryRead(env.Ctx, 1)
		env.WantErr(err, zkq.ErrInvalid)
		_, err = l.Label("x", retained.Oldest).TryRead(env.Ctx, 0)
		env.WantErr(err, zkq.ErrInvalid)
		env.WantErr((&retained.Batch{}).Commit(env.Ctx), zkq.ErrInvalid)
		for _, config := range []retained.Config{{TTL: -1}, {Keep: -1}} {
			_, err := retained.NewLog(c, "jobs", config).Append(env.Ctx, nil)
			env.WantErr(err, zkq.ErrInvalid)
		}
		_, err = retained.NewLog(c, "a/retained", retained.Config{}).Len(env.Ctx)
		env.WantErr(err, zkq.ErrInvalidName)
		if n := appendValues(env, l); n != 0 {
			t.Errorf("nothing has number %d", n)
		}
		if n, err := l.Len(env.Ctx); n != 0 || err != nil {
			t.Errorf("%d entries, %v", n, err)
		}
	})
}

func TestForeignNodesInALogAreSkipped(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		l, c := openLog(env, retained.Config{})
		s := env.Session(c)
		for i := range 200 {
			env.Commit(s, coord.Create(fmt.Sprintf("/jobs/retained/entries/!%d", i), nil), coord.Create(fmt.Sprintf("/jobs/retained/entries/0000x%d", i), nil))
		}
		appendValues(env, l, "a", "b")
		wantRead(env, l.Label("x", retained.Oldest), 1, "a")
		if n, err := l.Truncate(env.Ctx, 1); n != 1 || err != nil {
			t.Errorf("truncated %d, %v", n, err)
		}
		wantRead(env, l.Label("x", retained.Oldest), 1, "b")
	})
}

// forge creates a node among a log's entries.
func forgeEntry(env *testqueue.Env, s coord.Session, name string) {
	env.Helper()
	env.Commit(s, coord.Create("/jobs/retained/entries/"+name, []byte("forged")))
}

func TestForeignNodesDoNotKeepALogFromBeingTrimmed(t *testing.T) {
	for _, foreign := range []int{1, 64, 2500} {
		t.Run(fmt.Sprint(foreign), func(t *testing.T) {
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				l, c := openLog(env, retained.Config{Keep: 2})
				s := env.Session(c)
				for i := range foreign {
					forgeEntry(env, s, fmt.Sprintf("00-%04d", i))
				}
				for range 20 {
					appendValues(env, l, "a", "a", "a", "a", "a", "a", "a", "a", "a", "a")
				}
				if n, err := l.Truncate(env.Ctx, 190); err != nil || n < 100 {
					t.Errorf("removed %d, %v", n, err)
				}
				if n, err := l.Trim(env.Ctx); err != nil || n != 8 {
					t.Errorf("trimmed %d, %v", n, err)
				}
				if n, err := l.Len(env.Ctx); err != nil || n != 2+foreign {
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
			testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
				l, c := openLog(env, retained.Config{})
				label := l.Label("x", retained.Oldest)
				appendValues(env, l, "a", "b", "c")
				forgeEntry(env, env.Session(c), fmt.Sprintf("%019d-9999999999999-0000000000000", number))
				wantRead(env, label, 2, "a b")
				wantRead(env, label, 9, "c")
				wantRead(env, label, 9, "")
				appendValues(env, l, "d")
				wantRead(env, label, 9, "d")
				appendValues(env, l, "e", "f")
				wantRead(env, label, 9, "e f")
			})
		})
	}
}

// A cursor that no label has was made by another program: a new label gets another number, and
// does not try for that one for ever.
func TestANewLabelPassesOverACursorThatIsNobodys(t *testing.T) {
	testqueue.Run(t, func(t *testing.T, env *testqueue.Env) {
		c := env.Client()
		log := retained.NewLog(c, "events", retained.Config{})
		defer log.Close()
		if _, err := log.Append(env.Ctx, []byte("a")); err != nil {
			t.Fatal(err)
		}
		s := env.Session(c)
		for i := range 3 {
			env.Commit(s, coord.Create(fmt.Sprintf("/events/retained/cursors/%019d", i), []byte("not ours")))
		}
		batch, err := log.Label("l", retained.Oldest).TryRead(env.Ctx, 1)
		if err != nil || len(batch.Entries) != 1 {
			t.Fatalf("%+v, %v", batch, err)
		}
		env.WantErr(batch.Commit(env.Ctx), nil)
	})
}
