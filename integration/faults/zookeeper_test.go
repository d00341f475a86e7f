//go:build faults

package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testfleet"
	"github.com/zkq/zkq/internal/testproxy"
	"github.com/zkq/zkq/internal/testzk"
)

const zooKeeperTick = 250 * time.Millisecond // as testzk starts it

// zkMember is a testzk.Member whose errors, of a process that is there, cannot happen.
type zkMember struct{ *testzk.Member }

func (m zkMember) Terminate() { must(m.Member.Terminate()) }
func (m zkMember) Pause()     { must(m.Member.Pause()) }
func (m zkMember) Resume()    { must(m.Member.Resume()) }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// zooKeeper starts three members, which write a snapshot every hundred transactions or so.
func zooKeeper(t *testing.T) *service {
	c := testzk.StartFor(t, 3, testzk.Options{Peers: true, SnapCount: 100})
	s := &service{
		Config: testfleet.Config{
			Place: testfleet.Place{Service: testfleet.ZooKeeper, Addresses: c.Addresses(), Root: testfleet.NewRoot(), Session: 4 * time.Second},
			Bound: 8 * time.Second,
			Link:  func(t testing.TB) *testproxy.Link { return testzk.NewLink(t, c.Addresses()...).Link },
		},
		serve: func(t testing.TB) {
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
		},
		cutOff: func(_ testing.TB, m member, deaf bool) { c.CutOff(m.(zkMember).Member, deaf) },
		heal:   c.HealPeers,
	}
	for _, m := range c.Members {
		s.members = append(s.members, zkMember{m})
	}
	s.leads = func(testing.TB) member {
		if m, err := c.Leader(); err == nil {
			return zkMember{m}
		}
		return nil
	}
	last := int64(0)
	s.commits = func(t testing.TB) []testfleet.Commit {
		s.leader(t)
		txns, err := c.Log(last)
		if err != nil {
			t.Fatal(err)
		}
		var commits []testfleet.Commit
		for _, x := range txns {
			last = x.Zxid
			commit := testfleet.Commit{Revision: x.Zxid, Session: fmt.Sprintf("%016x", x.Session)}
			for _, c := range x.Changes {
				path, ours := strings.CutPrefix(c.Path, s.Root)
				if !ours {
					continue
				}
				change := testfleet.Change{Path: path, Deleted: c.Kind == testzk.Deleted, Value: string(c.Data)}
				if c.Ephemeral {
					change.Owner = commit.Session
				}
				commit.Changes = append(commit.Changes, change)
			}
			commits = append(commits, commit)
		}
		return commits
	}
	return s
}
