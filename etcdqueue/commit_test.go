package etcdqueue_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

func alone(t testing.TB) coord.Session {
	t.Helper()
	return session(t, open(t, etcdqueue.Config{Endpoints: single.get(t).Endpoints(), Prefix: prefix()}))
}

func TestLargeCommitsAreWholeAndInOrder(t *testing.T) {
	for name, path := range map[string]func(i int) coord.Op{
		"one prefix": func(int) coord.Op { return coord.CreateSequential("/q/entries/entry-100-", make([]byte, 100)) },
		"many prefixes": func(i int) coord.Op {
			return coord.CreateSequential(fmt.Sprintf("/q/entries/entry-%03d-", i%1000), nil)
		},
		"fixed paths": func(i int) coord.Op { return coord.Create(fmt.Sprintf("/q/%d/n-%d", i%3, i), []byte("v")) },
		"many places": func(i int) coord.Op { return coord.Create(fmt.Sprintf("/q/%d/n", i), nil) },
		"some of either": func(i int) coord.Op {
			if i == 77 {
				return coord.Create("/zkq/marker", nil)
			}
			return coord.CreateSequential("/q/entries/entry-100-", nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := alone(t)
			n := s.Limits().Creates
			if n < 4096 {
				t.Fatalf("the limit is %d", n)
			}
			var ops []coord.Op
			for i := range n {
				ops = append(ops, path(i))
			}
			r := commit(t, s, ops...)
			last := make(map[string]string)
			for i, op := range ops {
				if op.Kind == coord.KindSequential {
					if r[i].Path <= last[op.Path] || !strings.HasPrefix(r[i].Path, op.Path) {
						t.Fatalf("op %d: %s after %s", i, r[i].Path, last[op.Path])
					}
					last[op.Path] = r[i].Path
				}
				if r[i].Fence != r[0].Fence {
					t.Fatalf("op %d has another fence", i)
				}
			}
			if got, err := s.Count(t.Context(), "/"); err != nil || got < n || got > n+2 { // and the session, and the format
				t.Errorf("%d nodes (%v), want %d", got, err, n)
			}
			for _, i := range []int{0, 77, 127, 128, n - 1} {
				node, err := s.Get(t.Context(), r[i].Path)
				if err != nil || node.Fence != r[i].Fence || !bytes.Equal(node.Value, ops[i].Value) {
					t.Errorf("op %d: %+v, %v", i, node, err)
				}
			}
		})
	}
}

func TestLargeCommitIsRefusedWhole(t *testing.T) {
	s := alone(t)
	var ops []coord.Op
	for i := range 300 {
		ops = append(ops, coord.Create(fmt.Sprintf("/q/n-%03d", i), nil))
	}
	ops = append(ops, coord.CreateSequential("/q/s-", nil))
	commit(t, s, coord.Create("/q/n-299", nil), coord.Create("/q/n-200", nil), coord.Create("/q/n-100-between", nil))
	_, err := s.Commit(t.Context(), ops...)
	var refusal *coord.Refusal
	if !errors.As(err, &refusal) || refusal.Index != 200 || !errors.Is(err, coord.ErrExist) {
		t.Fatalf("%v, want a refusal of op 200", err)
	}
	if n, err := s.Count(t.Context(), "/q"); err != nil || n != 3 {
		t.Errorf("%d nodes (%v), want the 3 that were there", n, err)
	}
	ops = slices.DeleteFunc(ops, func(op coord.Op) bool { return op.Path == "/q/n-200" || op.Path == "/q/n-299" })
	commit(t, s, ops...) // nodes in between do not matter
}

// TestLargeCommitsExcludeEachOther has many bulk commits name the same paths: each path is
// created once, by a commit that created all of its paths.
func TestLargeCommitsExcludeEachOther(t *testing.T) {
	at := prefix()
	var mu sync.Mutex
	won := 0
	var wg sync.WaitGroup
	for range 6 {
		s := session(t, open(t, etcdqueue.Config{Endpoints: single.get(t).Endpoints(), Prefix: at}))
		wg.Go(func() {
			for round := range 5 {
				var ops []coord.Op
				for i := range 150 {
					ops = append(ops, coord.Create(fmt.Sprintf("/q/%d-%d", round, i), []byte(s.ID())))
				}
				_, err := s.Commit(t.Context(), ops...)
				mu.Lock()
				switch {
				case err == nil:
					won++
				case !errors.Is(err, coord.ErrExist):
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if won != 5 {
		t.Errorf("%d commits won 5 rounds", won)
	}
	l, err := session(t, open(t, etcdqueue.Config{Endpoints: single.get(t).Endpoints(), Prefix: at})).List(t.Context(), "/q", coord.ListOptions{Values: true})
	if err != nil || len(l.Nodes) != 5*150 {
		t.Fatalf("%d nodes, %v", len(l.Nodes), err)
	}
	owner := make(map[string]string)
	for _, n := range l.Nodes {
		round := n.Path[:strings.IndexByte(n.Path, '-')]
		if owner[round] == "" {
			owner[round] = string(n.Value)
		}
		if owner[round] != string(n.Value) || n.Changes != 0 {
			t.Fatalf("%s was created by %s, others of the round by %s", n.Path, n.Value, owner[round])
		}
	}
}

func TestServersLimitIsLearned(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{MaxTxnOps: 40})
	s := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix()}))
	for range 10 {
		n := s.Limits().CommitOps
		var ops []coord.Op
		for i := range n {
			ops = append(ops, coord.Create(fmt.Sprintf("/q/%d-%d", n, i), nil))
		}
		_, err := s.Commit(t.Context(), ops...)
		if err == nil {
			if n > 40 {
				t.Errorf("%d ops were taken", n)
			}
			return
		}
		if !errors.Is(err, coord.ErrTooLarge) || s.Limits().CommitOps >= n || s.Limits().Creates < s.Limits().CommitOps {
			t.Fatalf("%v; the limits are %+v", err, s.Limits())
		}
	}
	t.Error("never taken")
}

// TestFullServiceIsBusyAndNothingIsLost has many goroutines fill a small database. Refused
// commits were not applied, answered ones were, and deletes go on. etcd refuses the commit
// that uses up the space although it has applied it.
func TestFullServiceIsBusyAndNothingIsLost(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{Quota: 8 << 20})
	at := prefix()
	s := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: at}))
	value := bytes.Repeat([]byte("v"), 100<<10)
	var mu sync.Mutex
	answered := make(map[string]coord.Fence)
	busy, maybe := make(map[string]bool), make(map[string]bool)
	var wg sync.WaitGroup
	var sessions []coord.Session // had while there is space for a lease
	for range 16 {
		sessions = append(sessions, session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: at})))
	}
	for w, s := range sessions {
		wg.Go(func() {
			refusals := 0
			for i := 0; refusals < 3 && i < 100; i++ {
				p := fmt.Sprintf("/q/%d-%d", w, i)
				r, err := s.Commit(t.Context(), coord.Create(p, value))
				mu.Lock()
				switch {
				case err == nil:
					answered[p] = r[0].Fence
				case errors.Is(err, coord.ErrUnknown):
					maybe[p] = true
				case errors.Is(err, coord.ErrBusy):
					busy[p] = true
					refusals++
				default:
					t.Error(err)
					refusals = 3
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d answered, %d busy, %d unknown", len(answered), len(busy), len(maybe))
	if len(busy) < 16 || len(maybe) > 64 {
		t.Errorf("%d answered, %d busy, %d unknown", len(answered), len(busy), len(maybe))
	}
	for p := range busy {
		if _, err := s.Get(t.Context(), p); !errors.Is(err, coord.ErrNotExist) {
			t.Errorf("%s was refused: %v", p, err)
		}
	}
	for p, f := range answered {
		commit(t, s, coord.Delete(p, f))
	}
}
