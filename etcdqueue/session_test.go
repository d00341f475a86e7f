package etcdqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

// TestCommitsComeBackAfterAMemberFails suspends and kills members while several goroutines
// write. Answered commits were applied once, refused ones were not, and the sessions live
// on.
func TestCommitsComeBackAfterAMemberFails(t *testing.T) {
	for name, fault := range map[string]func(m *testetcd.Member){
		"frozen": (*testetcd.Member).Pause,
		"killed": (*testetcd.Member).Kill,
	} {
		t.Run(name, func(t *testing.T) {
			cluster := testetcd.StartFor(t, 3, testetcd.Options{})
			at := prefix()
			var last [6]atomic.Int64
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			answered := make([]map[string]bool, len(last))
			refused := make([]map[string]bool, len(last))
			unknown := make([]int, len(last))
			var sessions []coord.Session
			for i := range last {
				s := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: at, SessionTimeout: time.Minute}))
				sessions = append(sessions, s)
				answered[i], refused[i] = make(map[string]bool), make(map[string]bool)
				wg.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						p := fmt.Sprintf("/q/%d-%d", i, n)
						_, err := s.Commit(ctx, coord.Create(p, nil))
						switch {
						case err == nil:
							answered[i][p] = true
							last[i].Store(time.Now().UnixNano())
						case errors.Is(err, coord.ErrUnknown):
							unknown[i]++
						default:
							refused[i][p] = true
							if ctx.Err() == nil {
								t.Error(err)
								return
							}
						}
						time.Sleep(2 * time.Millisecond)
					}
				})
			}
			for _, m := range cluster.Members { // the leader is among them
				time.Sleep(300 * time.Millisecond)
				fault(m)
				begun := time.Now()
				eventually(t, patience, "every client writes again", func() bool {
					for i := range last {
						if last[i].Load() < begun.Add(100*time.Millisecond).UnixNano() {
							return false
						}
					}
					return true
				})
				t.Logf("%s %s: all write again after %v", m.Name, name, time.Since(begun))
				m.Resume()
				if err := cluster.Restart(); err != nil {
					t.Fatal(err)
				}
			}
			stop()
			wg.Wait()
			for i, s := range sessions {
				select {
				case <-s.Done():
					t.Errorf("session %d is over", i)
				default:
				}
			}
			l, err := sessions[0].List(within(t, patience), "/q", coord.ListOptions{Fresh: true})
			if err != nil {
				t.Fatal(err)
			}
			there := make(map[string]bool)
			for _, n := range l.Nodes {
				there[n.Path] = true
			}
			total, maybe := 0, 0
			for i := range last {
				total += len(answered[i])
				maybe += unknown[i]
				for p := range answered[i] {
					if !there[p] {
						t.Errorf("%s was answered and is not there", p)
					}
				}
				for p := range refused[i] {
					if there[p] {
						t.Errorf("%s was refused and is there", p)
					}
				}
			}
			t.Logf("%d answered, %d unknown, %d there", total, maybe, len(there))
			if len(there) > total+maybe {
				t.Error("more is there than was committed")
			}
		})
	}
}

// TestSessionKeyFencesWithTheLeaseAlive deletes the session's key but not its lease: the
// comparison alone must stop every commit.
func TestSessionKeyFencesWithTheLeaseAlive(t *testing.T) {
	cluster, at := single.get(t), prefix()
	c := open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: at})
	s := session(t, c)
	for _, ops := range [][]coord.Op{
		{coord.Create("/q/a", nil)},
		slices.Repeat([]coord.Op{coord.CreateSequential("/q/s-", nil)}, 300),
	} {
		if _, err := cluster.Client(t).Delete(t.Context(), at+"/zkq/sessions/"+s.ID()); err != nil {
			t.Fatal(err)
		}
		_, err := s.Commit(t.Context(), ops...)
		if !errors.Is(err, coord.ErrSessionLost) || errors.Is(err, coord.ErrUnknown) {
			t.Errorf("%v", err)
		}
		if _, err = s.Get(t.Context(), "/q/a"); !errors.Is(err, coord.ErrSessionLost) {
			t.Errorf("get: %v", err)
		}
		s = session(t, c)
		if n, err := s.Count(t.Context(), "/q"); err != nil || n != 0 {
			t.Errorf("%d nodes, %v", n, err)
		}
	}
}

func TestLeaseHookFramesTheSession(t *testing.T) {
	cluster := single.get(t)
	var mu sync.Mutex
	var begun, ended []string
	c := open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix(), LeaseHook: func(id string) (func(), error) {
		mu.Lock()
		defer mu.Unlock()
		begun = append(begun, id)
		return func() {
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, id)
		}, nil
	}})
	first := session(t, c)
	id := first.ID()
	revoke(t, cluster.Client(t), id)
	<-first.Done()
	second := session(t, c).ID()
	c.Close()
	c.Close()
	mu.Lock()
	defer mu.Unlock()
	if want := []string{id, second}; !slices.Equal(begun, want) || !slices.Equal(ended, want) || id == second {
		t.Errorf("begun %q, ended %q, want both %q", begun, ended, want)
	}
	_, err := etcdqueue.Open(t.Context(), etcdqueue.Config{
		Endpoints: cluster.Endpoints(), Prefix: prefix(),
		LeaseHook: func(string) (func(), error) { return nil, errors.New("no hook today") },
	})
	if err == nil || !strings.Contains(err.Error(), "no hook today") {
		t.Errorf("%v", err)
	}
}

func TestSessionTimeoutIsTheServers(t *testing.T) {
	cluster := three.get(t) // elections last half a second: the least lease is one
	for asked, want := range map[time.Duration]time.Duration{time.Millisecond: time.Second, 1500 * time.Millisecond: 2 * time.Second, 0: 10 * time.Second} {
		c, err := etcdqueue.Open(t.Context(), etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: prefix(), SessionTimeout: asked, ConnectTimeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s := session(t, c)
		if got := s.Timeout(); got < want || got > want+time.Second {
			t.Errorf("asked for %v, granted %v", asked, got)
		}
	}
}

func revoke(t testing.TB, admin *clientv3.Client, id string) {
	t.Helper()
	var lease int64
	if _, err := fmt.Sscanf(id, "%x", &lease); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.Revoke(within(t, patience), clientv3.LeaseID(lease)); err != nil {
		t.Fatal(err)
	}
}

// TestAnOutageOfEtcdIsToldOf cuts a client off until its session is over, and asks for another.
func TestAnOutageOfEtcdIsToldOf(t *testing.T) {
	link := testetcd.NewLink(t, single.get(t).Endpoints()...)
	told := &heard{}
	c := open(t, etcdqueue.Config{Endpoints: link.Addresses(), Prefix: prefix(), SessionTimeout: 4 * time.Second, Warn: func(m string) { told.Warn(m) }})
	s := session(t, c)
	link.Cut()
	<-s.Done()
	opened := make(chan error, 1)
	go func() {
		_, err := c.Session(within(t, patience))
		opened <- err
	}()
	told.await(t, "no new session", link.Addresses()[0])
	link.Heal()
	if err := <-opened; err != nil {
		t.Error(err)
	}
	told.await(t, "there is a session", "again")
}
