package zkq

import (
	"fmt"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/priority"
)

// State is where an entry stands.
type State string

// The states of an entry.
const (
	StateReady   State = "ready"   // can be taken
	StateHeld    State = "held"    // somebody works on it
	StateDelayed State = "delayed" // put aside until due
	StateDead    State = "dead"    // given up
)

// ParseState returns the state of that name, or an [ErrInvalid].
func ParseState(s string) (State, error) {
	switch st := State(s); st {
	case StateReady, StateHeld, StateDelayed, StateDead:
		return st, nil
	}
	return "", fmt.Errorf("state %q: allowed are ready, held, delayed, dead: %w", s, ErrInvalid)
}

// Entry is an entry as somebody sees it who does not hold it. By the time it is
// looked at it may have changed.
type Entry struct {
	Name       string
	Value      []byte // only where the method says so
	Priority   int
	State      State
	Holder     string    // of a held one: 32 hex digits
	Deliveries int       // how often it was handed out, crashes included, kazoo's takes excluded
	Failures   int       // how often that ended in a failure
	Reason     string    // of the last failure, or of the death
	Size       int       // of the value, in bytes
	Token      int64     // the commit that last wrote it: who holds it has this fencing token
	Unreadable bool      // its access list keeps this process from reading it: it is never handed out here
	Due        time.Time // of a delayed one: until then it is not handed out
	Expires    time.Time // nobody is handed it from then on; zero: never
	Created    time.Time // by the coordinator's clock, or the putter's; zero if neither says
	Since      time.Time // when a held entry was claimed, or a dead one died; zero where no time is kept (claims on etcd)
}

// MaxValue is the largest value in bytes that a queue takes on any coordinator:
// 1 MiB less 4 KiB. A server with lower limits of its own takes less.
const MaxValue = 1<<20 - 4<<10

// newEntry is the entry in a node of the entries' directory; its name parsed as n.
func newEntry(name string, n priority.Name, node coord.Node) Entry {
	value := layout.Body(node.Value)
	e := Entry{
		Name:       name,
		Value:      value,
		Priority:   n.Priority,
		State:      StateReady,
		Deliveries: int(node.Changes),
		Unreadable: node.Unreadable,
		Size:       len(value),
		Token:      node.Revision,
		Created:    node.Created,
		Expires:    layout.HeadersOf(node.Value).Expires(),
	}
	if e.Created.IsZero() {
		e.Created = n.Put
	}
	return e
}

// Stat counts a queue's entries by state.
type Stat struct {
	Ready, Held, Delayed, Dead int

	// Oldest is when the oldest entry that is ready or held was put; zero when
	// there is none.
	Oldest time.Time
}

// Total is the sum of the four.
func (s Stat) Total() int { return s.Ready + s.Held + s.Delayed + s.Dead }
