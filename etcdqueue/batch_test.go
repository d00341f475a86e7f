package etcdqueue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

// TestWaitingCommitsAreMerged counts the requests of many goroutines that commit at once,
// and checks each outcome.
func TestWaitingCommitsAreMerged(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{})
	s := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix()}))
	asked := func() int {
		t.Helper()
		r, err := testetcd.Requests(cluster.Endpoints()[0])
		if err != nil || r["Txn"] == 0 {
			t.Fatalf("%v, %v", r, err)
		}
		return r["Txn"]
	}
	before := asked()
	const callers, rounds = 200, 10
	inParallel(callers, func(i int) {
		fence := commit(t, s, coord.Create(fmt.Sprintf("/own/%d", i), nil))[0].Fence
		for round := range rounds {
			// One of all gets the common path, the others are told which op it was.
			r, err := s.Commit(t.Context(), coord.Touch(fmt.Sprintf("/own/%d", i), nil, fence),
				coord.CreateSequential("/q/e-", fmt.Append(nil, i)), coord.Create(fmt.Sprintf("/common/%d", round), nil))
			var refusal *coord.Refusal
			switch {
			case err == nil && len(r) == 3 && r[0].Fence > fence && r[0].Revision == int64(r[0].Fence):
				fence = r[0].Fence
			case !errors.As(err, &refusal) || refusal.Index != 2 || !errors.Is(err, coord.ErrExist) || refusal.Op.Path != fmt.Sprintf("/common/%d", round):
				t.Errorf("%+v, %v", r, err)
				return
			}
		}
	})
	for dir, want := range map[string]int{"/own": callers, "/q": rounds, "/common": rounds} {
		if n, err := s.Count(t.Context(), dir); err != nil || n != want {
			t.Errorf("%d nodes in %s, want %d, %v", n, dir, want, err)
		}
	}
	// The commits of a round name one path, and so cannot be merged.
	before += callers * rounds
	inParallel(callers, func(i int) {
		for round := range rounds {
			commit(t, s, coord.Create(fmt.Sprintf("/apart/%d-%d", i, round), nil))
		}
	})
	if n, most := asked()-before, callers*rounds/2; n > most {
		t.Errorf("%d requests for %d commits", n, callers*rounds)
	}
}

// TestAServerWithALowOpLimitTakesBatches has many goroutines commit at once to a server
// that allows few ops per transaction. The limit of a single commit is not lowered by that.
func TestAServerWithALowOpLimitTakesBatches(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{MaxTxnOps: 20})
	s := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix()}))
	inParallel(100, func(i int) {
		for round := range 10 {
			commit(t, s, coord.Create(fmt.Sprintf("/a/%d-%d", i, round), nil), coord.Create(fmt.Sprintf("/b/%d-%d", i, round), nil))
		}
	})
	if n, err := s.Count(t.Context(), "/a"); err != nil || n != 1000 {
		t.Errorf("%d nodes, %v", n, err)
	}
	if n := s.Limits().CommitOps; n < 127 {
		t.Errorf("a commit may have %d ops, though none was refused", n)
	}
}

// TestACommitWithoutSpaceRefusesNoOther has a client fill a small database and delete from
// it at the same time: the deletes succeed.
func TestACommitWithoutSpaceRefusesNoOther(t *testing.T) {
	cluster := testetcd.StartFor(t, 1, testetcd.Options{Quota: 8 << 20})
	s := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix()}))
	var small []coord.Result
	for i := range 100 {
		small = append(small, commit(t, s, coord.Create(fmt.Sprintf("/small/%d", i), nil))...)
	}
	var mu sync.Mutex
	answered, busy, maybe := make(map[string]bool), make(map[string]bool), 0
	value := bytes.Repeat([]byte("v"), 50<<10)
	filled, stop := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var fillers sync.WaitGroup
	for w := range 16 {
		fillers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				p := fmt.Sprintf("/large/%d-%d", w, i)
				_, err := s.Commit(context.Background(), coord.Create(p, value))
				mu.Lock()
				switch {
				case err == nil:
					answered[p] = true
				case errors.Is(err, coord.ErrUnknown):
					maybe++
				case errors.Is(err, coord.ErrBusy):
					busy[p] = true
					once.Do(func() { close(filled) })
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-filled:
	case <-time.After(patience):
		t.Error("never full")
	}
	for _, r := range small {
		if _, err := s.Commit(within(t, patience), coord.Delete(r.Path, r.Fence)); err != nil {
			t.Errorf("delete: %v", err)
			break
		}
	}
	close(stop)
	fillers.Wait()
	t.Logf("%d answered, %d busy, %d unknown", len(answered), len(busy), maybe)
	l, err := s.List(t.Context(), "/large", coord.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]bool)
	for _, n := range l.Nodes {
		there[n.Path] = true
		if busy[n.Path] {
			t.Errorf("%s is there, and was refused", n.Path)
		}
	}
	for p := range answered {
		if !there[p] {
			t.Errorf("%s is not there, and was answered", p)
		}
	}
	if len(there) < len(answered) || len(there) > len(answered)+maybe {
		t.Errorf("%d are there, %d were answered, %d perhaps", len(there), len(answered), maybe)
	}
}

// TestAForbiddenPathRefusesOnlyItsCommit uses credentials with rights on some paths only. A
// commit of another path is refused, and the commits merged with it are not.
func TestAForbiddenPathRefusesOnlyItsCommit(t *testing.T) {
	cluster := guardedServer(t)
	admin, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), Username: "root", Password: "root", Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	ctx := within(t, patience)
	for _, do := range []func() error{
		func() error { _, err := admin.RoleAdd(ctx, "part"); return err },
		func() error {
			_, err := admin.RoleGrantPermission(ctx, "part", "/part/q/", "/part/q0", clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error {
			_, err := admin.RoleGrantPermission(ctx, "part", "/part/zkq/", "/part/zkq0", clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := admin.UserAdd(ctx, "parter", password); return err },
		func() error { _, err := admin.UserGrantRole(ctx, "parter", "part"); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	s := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Username: "parter", Password: password, Prefix: "/part", SessionTimeout: 30 * time.Second}))
	inParallel(60, func(i int) {
		for round := range 5 {
			dir, want := "/q", error(nil)
			if i%10 == 0 {
				dir, want = "/other", coord.ErrForbidden
			}
			if _, err := s.Commit(t.Context(), coord.Create(fmt.Sprintf("%s/%d-%d", dir, i, round), nil)); !errors.Is(err, want) {
				t.Errorf("%s: %v", dir, err)
			}
		}
	})
	if n, err := s.Count(t.Context(), "/q"); err != nil || n != 54*5 {
		t.Errorf("%d nodes, %v", n, err)
	}
}
