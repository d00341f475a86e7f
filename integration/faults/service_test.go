//go:build faults

package faults

import (
	"testing"

	"github.com/zkq/zkq/internal/testfleet"
)

// service is a cluster with what a fault must know of it.
type service struct {
	testfleet.Config
	members []member

	serve   func(testing.TB)                        // starts the members that do not run, and waits until all serve
	leads   func(testing.TB) member                 // or nil
	cutOff  func(t testing.TB, m member, deaf bool) // from its peers
	heal    func()                                  // all that was cut off
	commits func(testing.TB) []testfleet.Commit     // since it was called last, in order
	own     []fault
}

// member is one process of a cluster.
type member interface {
	Kill()
	Terminate()
	Pause()
	Resume()
}

// leader waits until all members serve and one of them leads.
func (s *service) leader(t testing.TB) member {
	t.Helper()
	s.serve(t)
	var leader member
	eventually(t, patience, s.Service+" has a leader", func() bool {
		leader = s.leads(t)
		return leader != nil
	})
	return leader
}

func (s *service) follower(t testing.TB) member {
	t.Helper()
	leader := s.leader(t)
	for _, m := range s.members {
		if m != leader {
			return m
		}
	}
	panic("there are three members")
}
