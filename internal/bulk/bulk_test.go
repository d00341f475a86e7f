package bulk_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/bulk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var limits = coord.Limits{ValueBytes: 1000, CommitBytes: 100_000, CommitOps: 128, Creates: 128}

// service is a service with nodes, all at fence 1 and each with another beside it. It counts the
// commits and keeps their sizes.
type service struct {
	nodes  map[string]bool
	sizes  []int
	fail   error // of the next commit; nil: none
	failAt int   // the commit that fails; 0: the first
}

func (s *service) send(_ context.Context, ops ...coord.Op) ([]coord.Result, error) {
	s.sizes = append(s.sizes, len(ops))
	if s.fail != nil && len(s.sizes) > s.failAt {
		return nil, s.fail
	}
	seen := make(map[string]bool)
	for i, op := range ops {
		if seen[op.Path] {
			return nil, fmt.Errorf("%s twice: %w", op.Path, coord.ErrInvalid)
		}
		seen[op.Path] = true
		if !s.nodes[op.Path] {
			return nil, &coord.Refusal{Index: i, Op: op, Err: coord.ErrNotExist}
		}
	}
	results := make([]coord.Result, len(ops))
	for i, op := range ops {
		delete(s.nodes, op.Path)
		results[i].Path = op.Path
	}
	return results, nil
}

// deletions returns n changes of two ops each, and a service that has all their nodes.
func deletions(n int) ([][]coord.Op, *service) {
	s := &service{nodes: make(map[string]bool)}
	var changes [][]coord.Op
	for i := range n {
		a, b := fmt.Sprintf("/a/%d", i), fmt.Sprintf("/b/%d", i)
		s.nodes[a], s.nodes[b] = true, true
		changes = append(changes, []coord.Op{coord.Delete(a, 1), coord.Delete(b, 1)})
	}
	return changes, s
}

func TestChangesShareCommits(t *testing.T) {
	changes, s := deletions(150)
	for i, o := range bulk.Commit(t.Context(), limits, 60, changes, s.send) {
		if o.Err != nil || len(o.Results) != 2 || o.Results[1].Path != changes[i][1].Path {
			t.Fatalf("change %d: %v, %v", i, o.Results, o.Err)
		}
	}
	if !slices.Equal(s.sizes, []int{120, 120, 60}) || len(s.nodes) > 0 {
		t.Errorf("commits of %v ops, %d nodes are left", s.sizes, len(s.nodes))
	}
}

func TestCommitsKeepTheLimits(t *testing.T) {
	changes, s := deletions(100)
	bulk.Commit(t.Context(), coord.Limits{CommitOps: 21, CommitBytes: 1 << 20}, 64, changes, s.send)
	if slices.Max(s.sizes) != 20 || len(s.nodes) > 0 {
		t.Errorf("commits of %v ops where 21 are allowed", s.sizes)
	}
	changes, s = deletions(100)
	most := 10 * bulk.Bytes(changes[99][0])
	bulk.Commit(t.Context(), coord.Limits{CommitOps: 128, CommitBytes: most}, 64, changes, s.send)
	if slices.Max(s.sizes) != 10 || len(s.nodes) > 0 {
		t.Errorf("commits of %v ops where 10 are as large as is allowed", s.sizes)
	}
}

func TestARefusedChangeLeavesTheOthersAlone(t *testing.T) {
	for _, gone := range [][]int{{0}, {59}, {7, 8}, {0, 30, 59}, {1, 2, 3, 4, 5, 40, 41, 42}} {
		changes, s := deletions(60)
		for _, i := range gone {
			delete(s.nodes, changes[i][1].Path)
		}
		for i, o := range bulk.Commit(t.Context(), limits, 60, changes, s.send) {
			var r *coord.Refusal
			switch isGone := slices.Contains(gone, i); {
			case !isGone && (o.Err != nil || s.nodes[changes[i][0].Path]):
				t.Errorf("%v are gone, and change %d, which is to be applied: %v", gone, i, o.Err)
			case isGone && (!errors.As(o.Err, &r) || r.Index != 1 || r.Op.Path != changes[i][1].Path):
				t.Errorf("change %d, which was to be refused for its second op: %v", i, o.Err)
			case isGone && !s.nodes[changes[i][0].Path]:
				t.Errorf("a part of the refused change %d was applied", i)
			}
		}
		if most := 2 + 8*len(gone); len(s.sizes) > most {
			t.Errorf("%d commits for %d refused changes", len(s.sizes), len(gone))
		}
	}
}

func TestAllRefusedCostsTwoCommitsAChangeAtMost(t *testing.T) {
	changes, s := deletions(60)
	clear(s.nodes)
	for i, o := range bulk.Commit(t.Context(), limits, 60, changes, s.send) {
		if !errors.Is(o.Err, coord.ErrNotExist) {
			t.Errorf("change %d: %v", i, o.Err)
		}
	}
	if len(s.sizes) > 120 {
		t.Errorf("%d commits", len(s.sizes))
	}
}

func TestAnotherErrorEndsTheCommits(t *testing.T) {
	changes, s := deletions(90)
	s.fail, s.failAt = coord.ErrUnknown, 1
	outcomes := bulk.Commit(t.Context(), limits, 30, changes, s.send)
	for i, o := range outcomes {
		isUnknown := errors.Is(o.Err, coord.ErrUnknown)
		if i < 30 && o.Err != nil || i >= 30 && i < 60 && !isUnknown || i >= 60 && (o.Err == nil || isUnknown) {
			t.Errorf("change %d: %v", i, o.Err)
		}
	}
	if len(s.sizes) != 2 {
		t.Errorf("commits of %v ops", s.sizes)
	}
}

func TestAForbiddenChangeIsFoundByTryingEach(t *testing.T) {
	changes, s := deletions(10)
	forbid := func(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
		if i := slices.IndexFunc(ops, func(op coord.Op) bool { return op.Path == changes[4][0].Path }); i >= 0 {
			return nil, &coord.ForbiddenError{Index: i, Op: ops[i], Err: errors.New("no")}
		}
		return s.send(ctx, ops...)
	}
	for i, o := range bulk.Commit(t.Context(), limits, 10, changes, forbid) {
		if forbidden := errors.Is(o.Err, coord.ErrForbidden); forbidden != (i == 4) || !forbidden && o.Err != nil {
			t.Errorf("change %d: %v", i, o.Err)
		}
	}
}

func TestChangesOfOnePathDoNotShareACommit(t *testing.T) {
	changes, s := deletions(3)
	changes[1] = []coord.Op{changes[0][0]}
	outcomes := bulk.Commit(t.Context(), limits, 10, changes, s.send)
	if s.sizes[0] != 2 || outcomes[0].Err != nil || !errors.Is(outcomes[1].Err, coord.ErrNotExist) || outcomes[2].Err != nil {
		t.Errorf("commits of %v ops: %v", s.sizes, outcomes)
	}
}

func TestInPartsYieldsInOrderAndRunsSoManyAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		items := make([]int, 100)
		for i := range items {
			items[i] = i
		}
		var mu sync.Mutex
		running, most := 0, 0
		do := func(part []int) []int {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Duration(100-part[0]) * time.Second) // later parts are faster
			mu.Lock()
			running--
			mu.Unlock()
			return part
		}
		for _, underWay := range []int{1, 3} {
			most = 0
			var got []int
			for part := range bulk.InParts(items, 7, underWay, do) {
				got = append(got, part...)
			}
			if !slices.Equal(got, items) {
				t.Errorf("%d under way: %v", underWay, got)
			}
			if most != underWay {
				t.Errorf("%d ran at a time, and %d may", most, underWay)
			}
		}
		var begun atomic.Int32
		for range bulk.InParts(items, 10, 2, func(part []int) int { begun.Add(1); time.Sleep(time.Duration(1+part[0]) * time.Second); return 0 }) {
			break
		}
		if begun.Load() != 2 {
			t.Errorf("%d parts were begun by a loop that ended with the first", begun.Load())
		}
	})
}
