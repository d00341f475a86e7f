package group_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
)

var limits = group.Limits{Commits: 64}

// service answers each batch after a while. It refuses the commits it is told to refuse,
// reports only the first refusal of a batch, and records what it applied.
type service struct {
	*group.Runner
	answer   time.Duration
	refuse   map[string]bool
	requests atomic.Int64

	mu      sync.Mutex
	applied map[string]int
	under   int // requests at once
	most    int
}

func newService(flights int, answer time.Duration, refuse ...string) *service {
	s := &service{answer: answer, refuse: map[string]bool{}, applied: map[string]int{}}
	for _, p := range refuse {
		s.refuse[p] = true
	}
	s.Runner = group.NewRunner(limits, flights, s.send)
	return s
}

func (s *service) send(b *group.Batch) []group.Outcome {
	commits := b.Seal()
	if len(commits) == 0 {
		return nil
	}
	s.requests.Add(1)
	s.mu.Lock()
	s.under++
	s.most = max(s.most, s.under)
	s.mu.Unlock()
	time.Sleep(s.answer)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.under--
	outcomes := make([]group.Outcome, len(commits))
	for i, c := range commits {
		if s.refuse[c.Ops[0].Path] {
			for j := range outcomes {
				outcomes[j].Err = group.ErrAgain
			}
			outcomes[i].Err = &coord.Refusal{Op: c.Ops[0], Err: coord.ErrVersion}
			return outcomes
		}
	}
	for i, c := range commits {
		s.applied[c.Ops[0].Path]++
		outcomes[i].Results = []coord.Result{{Path: c.Ops[0].Path}}
	}
	return outcomes
}

func (s *service) do(ctx context.Context, path string) error {
	rs, err := s.Do(ctx, []coord.Op{coord.Set(path, nil, 1)})
	if err == nil && (len(rs) != 1 || rs[0].Path != path) {
		return fmt.Errorf("%s has the results %v", path, rs)
	}
	return err
}

func TestARefusalIsItsOwnCommitsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(2, time.Millisecond, "/3", "/17", "/18", "/40")
		errs := make([]error, 60)
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() { errs[i] = s.do(t.Context(), fmt.Sprint("/", i)) })
		}
		all.Wait()
		for i, err := range errs {
			path := fmt.Sprint("/", i)
			if s.refuse[path] != errors.Is(err, coord.ErrVersion) || !s.refuse[path] && err != nil {
				t.Errorf("%s: %v", path, err)
			}
			if want := map[bool]int{false: 1}[s.refuse[path]]; s.applied[path] != want {
				t.Errorf("%s was applied %d times, want %d", path, s.applied[path], want)
			}
		}
		if n := s.requests.Load(); n > 30 {
			t.Errorf("60 commits of which 4 were refused took %d requests", n)
		}
		s.End(coord.ErrClosed)
		s.Wait()
	})
}

func TestNoCommitWaitsForCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(16, time.Second)
		var all sync.WaitGroup
		for i := range 16 {
			time.Sleep(time.Millisecond)
			all.Go(func() {
				began := time.Now()
				if err := s.do(t.Context(), fmt.Sprint("/", i)); err != nil || time.Since(began) != s.answer {
					t.Errorf("%v after %v", err, time.Since(began))
				}
			})
		}
		all.Wait()
		if s.most != 16 {
			t.Errorf("%d requests under way at once, want 16", s.most)
		}
		s.Wait()
	})
}

func TestNoMoreFlightsThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(3, time.Second)
		var all sync.WaitGroup
		for i := range 40 {
			time.Sleep(time.Millisecond)
			all.Go(func() { _ = s.do(t.Context(), fmt.Sprint("/", i)) })
		}
		all.Wait()
		if n := s.requests.Load(); s.most != 3 || n > 5 || len(s.applied) != 40 {
			t.Errorf("%d of 40 applied by %d requests, %d at once", len(s.applied), n, s.most)
		}
		s.Wait()
	})
}

func TestWhoLeavesBeforeTheSendingIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(1, time.Second)
		go func() { _ = s.do(t.Context(), "/first") }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := s.do(ctx, "/left"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, coord.ErrUnknown) {
			t.Errorf("left while waiting: %v", err)
		}
		if err := s.do(t.Context(), "/last"); err != nil {
			t.Error(err)
		}
		if s.applied["/left"] != 0 || s.applied["/last"] != 1 {
			t.Errorf("applied %v", s.applied)
		}
		s.Wait()
	})
}

func TestWhoLeavesAfterTheSendingDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(1, time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second+100*time.Millisecond)
		defer cancel()
		go func() { _ = s.do(t.Context(), "/first") }() // the others wait for it, and travel together
		synctest.Wait()
		stayed := make(chan error, 1)
		go func() { stayed <- s.do(t.Context(), "/stays") }()
		if err := s.do(ctx, "/left"); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, coord.ErrUnknown) {
			t.Errorf("left under way: %v", err)
		}
		if err := <-stayed; err != nil || s.requests.Load() != 2 || s.applied["/left"] != 1 {
			t.Errorf("the other of the batch: %v after %d requests, applied %v", err, s.requests.Load(), s.applied)
		}
		s.Wait()
	})
}

func TestWhoLeftIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(1, time.Second, "/refused")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second+100*time.Millisecond)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() { _ = s.do(t.Context(), "/first") }) // the others wait for it, and travel together
		synctest.Wait()
		all.Go(func() { _ = s.do(t.Context(), "/refused") })
		all.Go(func() {
			if err := s.do(ctx, "/left"); !errors.Is(err, coord.ErrUnknown) {
				t.Error(err)
			}
		})
		all.Go(func() {
			if err := s.do(t.Context(), "/stays"); err != nil {
				t.Error(err)
			}
		})
		all.Wait()
		if s.applied["/left"] != 0 || s.requests.Load() != 3 {
			t.Errorf("applied %v by %d requests", s.applied, s.requests.Load())
		}
		s.Wait()
	})
}

func TestAfterTheEndNothingIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(1, time.Second)
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- s.do(t.Context(), "/sent") }()
		synctest.Wait()
		go func() { second <- s.do(t.Context(), "/waits") }()
		synctest.Wait()
		s.End(coord.ErrSessionLost)
		s.End(coord.ErrClosed)
		if err := <-second; !errors.Is(err, coord.ErrSessionLost) {
			t.Errorf("what waited: %v", err)
		}
		if err := s.do(t.Context(), "/late"); !errors.Is(err, coord.ErrSessionLost) {
			t.Errorf("what came late: %v", err)
		}
		if err := <-first; err != nil || len(s.applied) != 1 {
			t.Errorf("what was sent: %v, applied %v", err, s.applied)
		}
		s.Wait()
	})
}

func TestTheCallersBytesAreTheirsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent string
		open := make(chan struct{})
		r := group.NewRunner(limits, 1, func(b *group.Batch) []group.Outcome {
			<-open
			sent = string(b.Seal()[0].Ops[0].Value)
			return make([]group.Outcome, 1)
		})
		value := []byte("as it was")
		go func() { _, _ = r.Do(t.Context(), []coord.Op{coord.Create("/a", value)}) }()
		synctest.Wait()
		copy(value, "changed")
		close(open)
		r.Wait()
		if sent != "as it was" {
			t.Errorf("sent %q", sent)
		}
	})
}

func TestABatchThatWasNotSentAfterAllIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		r := group.NewRunner(limits, 1, func(b *group.Batch) []group.Outcome {
			for {
				commits := b.Seal()
				if tries++; tries == 2 || len(commits) == 0 {
					if len(commits) != 1 || commits[0].Ops[0].Path != "/a" {
						t.Errorf("%d commits are sent in the end, one of them of a caller who has gone", len(commits))
					}
					return make([]group.Outcome, len(commits))
				}
				b.Unseal() // the connection was gone
				time.Sleep(time.Second)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		stays := make(chan error, 1)
		go func() {
			_, err := r.Do(t.Context(), []coord.Op{coord.Create("/a", nil)})
			stays <- err
		}()
		if _, err := r.Do(ctx, []coord.Op{coord.Create("/b", nil)}); errors.Is(err, coord.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := <-stays; err != nil || tries != 2 {
			t.Errorf("%v after %d tries", err, tries)
		}
		r.Wait()
	})
}

func TestWhatIsNotSentInTimeNeverIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		r := group.NewRunner(limits, 1, func(b *group.Batch) []group.Outcome {
			commits := b.Seal()
			for _, c := range commits {
				sent = append(sent, c.Ops[0].Path)
			}
			time.Sleep(time.Minute) // under way
			return make([]group.Outcome, len(commits))
		})
		do := func(path string) <-chan error {
			ch := make(chan error, 1)
			go func() {
				_, err := r.DoWithin(t.Context(), time.Second, []coord.Op{coord.Create(path, nil)})
				ch <- err
			}()
			synctest.Wait()
			return ch
		}
		first := do("/a")
		second := do("/b")
		if n := r.Waiting(); n != 1 {
			t.Errorf("%d wait", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if err := <-second; !errors.Is(err, group.ErrLate) || r.Waiting() != 0 {
			t.Errorf("what waited: %v, and %d wait", err, r.Waiting())
		}
		if err := <-first; err != nil { // for as long as it takes
			t.Errorf("what was under way: %v", err)
		}
		r.Wait()
		if !slices.Equal(sent, []string{"/a"}) {
			t.Errorf("%q were sent", sent)
		}
	})
}

// closedLoop has each of several callers make one commit after the other for a while.
func closedLoop(callers int, work time.Duration, do func(path string)) (commits int64) {
	var all sync.WaitGroup
	var n atomic.Int64
	end := time.Now().Add(work)
	for i := range callers {
		all.Go(func() {
			for time.Now().Before(end) {
				do(fmt.Sprint("/", i))
				n.Add(1)
			}
		})
	}
	all.Wait()
	return n.Load()
}

// The service has one processor, and every request takes the same time of it.
func TestCallersOfABusyServiceShareRequests(t *testing.T) {
	var cpu sync.Mutex
	var requests atomic.Int64
	r := group.NewRunner(limits, 16, func(b *group.Batch) []group.Outcome {
		commits := b.Seal()
		requests.Add(1)
		cpu.Lock()
		for began := time.Now(); time.Since(began) < 50*time.Microsecond; {
			runtime.Gosched()
		}
		cpu.Unlock()
		return make([]group.Outcome, len(commits))
	})
	// So many commits, and not so long: the machine may stand still meanwhile.
	const callers, each = 16, 150
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for range each {
				if _, err := r.Do(t.Context(), []coord.Op{coord.Set(fmt.Sprint("/", i), nil, 1)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	r.Wait()
	const commits = callers * each
	t.Logf("%d commits in %d requests", commits, requests.Load())
	if requests.Load()*4 > commits*3 { // alone they would be as many
		t.Errorf("%d commits took %d requests", commits, requests.Load())
	}
}

// In virtual time a request of 2 ms takes exactly that, and every caller's next commit
// begins at once. So 16 callers make 16 commits in 2 ms, however they share requests.
func TestCallersOfASlowDiskLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(16, 2*time.Millisecond)
		commits := closedLoop(16, time.Second, func(path string) {
			if err := s.do(t.Context(), path); err != nil {
				t.Error(err)
			}
		})
		if commits < 16*495 {
			t.Errorf("%d commits in 500 times 2 ms by 16 callers", commits)
		}
		s.Wait()
	})
}
