package zkqueue_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/zkqueue"
)

// TestWaitingCommitsAreMerged counts the requests of many goroutines that commit at once.
func TestWaitingCommitsAreMerged(t *testing.T) {
	cfg, requests := count(zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)})
	s := session(t, open(t, cfg))
	commit(t, s, coord.Create("/q/first", nil), coord.Create("/own/first", nil))
	before := requests.of(opMulti)
	const callers, rounds = 200, 20
	inParallel(callers, func(i int) {
		fence := coord.Fence(0)
		for round := range rounds {
			path := fmt.Sprintf("/own/%d", i)
			ops := []coord.Op{coord.CreateSequential("/q/e-", fmt.Append(nil, i)), coord.Create(path, nil)}
			if round > 0 {
				ops[1] = coord.Touch(path, nil, fence)
			}
			r, err := s.Commit(within(t, patience), ops...)
			if err != nil || !strings.HasPrefix(r[0].Path, "/q/e-") || r[1].Path != path || r[1].Fence != coord.Fence(round) {
				t.Errorf("round %d: %+v, %v", round, r, err)
				return
			}
			fence = r[1].Fence
			if n, err := s.Read(within(t, patience), r[0].Path); err != nil || string(n[0].Value) != fmt.Sprint(i) {
				t.Errorf("%s is not what %d put: %+v, %v", r[0].Path, i, n, err)
			}
		}
	})
	if n, most := requests.of(opMulti)-before, callers*rounds/2; n > most {
		t.Errorf("%d requests for %d commits", n, callers*rounds)
	}
	if n, err := s.Count(within(t, patience), "/q"); err != nil || n != callers*rounds+1 {
		t.Errorf("%d nodes, %v", n, err)
	}
}

// TestARefusalAffectsNoOtherCommit merges commits of one common path, of which one
// succeeds, with commits that are refused for other reasons.
func TestARefusalAffectsNoOtherCommit(t *testing.T) {
	s := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)}))
	commit(t, s, coord.Create("/q/first", nil), coord.Create("/common/first", nil), coord.Create("/stands/first", nil))
	const callers, rounds = 60, 10
	var mu sync.Mutex
	won := make(map[string]int)
	inParallel(callers, func(i int) {
		for round := range rounds {
			own := coord.Create(fmt.Sprintf("/q/%d-%d", i, round), nil)
			last, want := coord.Create(fmt.Sprintf("/stands/%d-%d", i, round), nil), error(nil)
			switch i % 4 {
			case 1:
				last, want = coord.Delete(fmt.Sprintf("/q/none%d", i), 0), coord.ErrNotExist
			case 2:
				last, want = coord.Set("/stands/first", nil, 7), coord.ErrVersion
			case 3:
				last, want = coord.Create(fmt.Sprintf("/common/%d", round), nil), coord.ErrExist
			}
			_, err := s.Commit(within(t, patience), own, last)
			var r *coord.Refusal
			switch {
			case i%4 == 3 && err == nil:
				mu.Lock()
				won[last.Path]++
				mu.Unlock()
			case want == nil && err == nil:
			case want == nil || !errors.As(err, &r) || r.Index != 1 || r.Err != want || r.Op.Path != last.Path:
				t.Errorf("%d in round %d: %v, want %v of op 1", i, round, err, want)
			}
		}
	})
	for round := range rounds {
		if n := won[fmt.Sprintf("/common/%d", round)]; n != 1 {
			t.Errorf("the common path of round %d was created %d times", round, n)
		}
	}
	for dir, want := range map[string]int{"/q": callers/4*rounds + rounds + 1, "/stands": callers/4*rounds + 1, "/common": rounds + 1} {
		if n, err := s.Count(within(t, patience), dir); err != nil || n != want {
			t.Errorf("%s has %d nodes, %v; want %d", dir, n, err, want)
		}
	}
}

// TestMissingDirectoriesAreCreated commits to many directories at once, none of which
// exists.
func TestMissingDirectoriesAreCreated(t *testing.T) {
	s := session(t, open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)}))
	inParallel(100, func(i int) {
		commit(t, s, coord.Create(fmt.Sprintf("/a/%d/b/x", i), nil), coord.Create(fmt.Sprintf("/c/%d/x", i), nil))
	})
	for i := range 100 {
		if n, err := s.Read(within(t, patience), fmt.Sprintf("/a/%d/b/x", i), fmt.Sprintf("/c/%d/x", i)); err != nil || n[0].Path == "" || n[1].Path == "" {
			t.Errorf("%+v, %v", n, err)
		}
	}
}

// TestCommitsBeyondOneRequestAreSentSeparately uses paths so long that the waiting commits,
// few and small as they are, would together exceed ZooKeeper's limit: it would close the
// connection.
func TestCommitsBeyondOneRequestAreSentSeparately(t *testing.T) {
	link := singleLink(t)
	root := chroot(t) + "/" + strings.Repeat("r", 20_000)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: root}))
	commit(t, s, coord.Create("/q/first", nil))
	dials := link.Dials()
	inParallel(200, func(i int) {
		rs := commit(t, s, coord.CreateEphemeral(fmt.Sprintf("/q/%d", i), nil))
		commit(t, s, coord.Delete(rs[0].Path, rs[0].Fence))
	})
	if n := link.Dials(); n != dials {
		t.Errorf("%d connections were made meanwhile", n-dials)
	}
}

// TestMergedCommitsWithoutAnAnswerAreUnknown loses the answers of many commits at once.
// Their outcome is found by reading, and none is applied twice.
func TestMergedCommitsWithoutAnAnswerAreUnknown(t *testing.T) {
	link, root, z := threeWays(t), chroot(t), plain(t)
	s := session(t, open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: root}))
	commit(t, s, coord.Create("/q/first", nil), coord.Create("/own/first", nil))
	const callers = 50
	var mu sync.Mutex
	outcome := make(map[string]error)
	for round := range 5 {
		commit(t, s, coord.CreateSequential("/q/e-", nil)) // it is connected, and knows the counter
		link.HoldReplies()
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				path := fmt.Sprintf("/own/%d-%d", round, i)
				_, err := s.Commit(within(t, patience), coord.Create(path, nil), coord.CreateSequential("/q/e-", []byte(path)))
				mu.Lock()
				defer mu.Unlock()
				outcome[path] = err
			})
		}
		eventually(t, patience, "one of them is applied", func() bool {
			there, _, err := z.Children(root + "/own")
			return err == nil && slices.ContainsFunc(there, func(name string) bool { return strings.HasPrefix(name, fmt.Sprint(round, "-")) })
		})
		link.Kill()
		link.Heal()
		wg.Wait()
	}
	put := make(map[string]int)
	l, err := s.List(within(t, patience), "/q", coord.ListOptions{Values: true, Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Nodes {
		put[string(n.Value)]++
	}
	doubts := 0
	for path, err := range outcome {
		n, rerr := s.Read(within(t, patience), path)
		if rerr != nil {
			t.Fatal(rerr)
		}
		there := n[0].Path != ""
		switch {
		case put[path] > 1 || (put[path] == 1) != there:
			t.Errorf("%s was put %d times, its node is there: %v", path, put[path], there)
		case err == nil && !there:
			t.Errorf("%s was applied and is not there", path)
		case err != nil && !errors.Is(err, coord.ErrUnknown):
			t.Errorf("%s: %v", path, err)
		case err != nil:
			doubts++
		}
	}
	if doubts == 0 {
		t.Error("no answer was lost")
	}
}
