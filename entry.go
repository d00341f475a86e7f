package zkq

import (
	"fmt"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/lock"
	"github.com/zkq/zkq/priority"
)

// State is where an entry is in its life.
type State string

// The states of an entry.
const (
	StateReady   State = "ready"   // can be taken
	StateHeld    State = "held"    // a worker holds its lock
	StateDelayed State = "delayed" // cannot be taken before it is due
	StateDead    State = "dead"    // given up; kept until an operator requeues or removes it
)

// ParseState returns the state of that name, or an [ErrInvalid].
func ParseState(s string) (State, error) {
	switch st := State(s); st {
	case StateReady, StateHeld, StateDelayed, StateDead:
		return st, nil
	}
	return "", fmt.Errorf("state %q: allowed are ready, held, delayed, dead: %w", s, ErrInvalid)
}

// Entry describes an entry to a process that does not hold it. Another process may have
// changed the entry since it was read.
type Entry struct {
	Name     string
	Value    []byte // only where the method says so
	Priority int    // 0 to 999; 0 is the most urgent
	State    State

	Holder     string // of a held entry: 32 hexadecimal digits
	Deliveries int    // how often it was handed out; counts crashes, but not takes by kazoo
	Failures   int    // how many of these deliveries ended in a failure
	Reason     string // of the last failure, or of the death

	Size       int   // of the value, in bytes
	Token      int64 // the commit that last wrote the entry; while it is held, its holder's fencing token
	Unreadable bool  // its access list keeps this process from reading it, and from being handed it

	Due     time.Time // of a delayed entry: it is not handed out before
	Expires time.Time // it is not handed out from then on; zero: never
	Created time.Time // by the clock of the service, or else of the process that put it; zero if neither is known
	Since   time.Time // when a held entry was claimed, or a dead one died; zero where no time is kept (claims on etcd)
}

// MaxValue is the largest value, in bytes, that a queue takes on any coordinator: 1 MiB
// less 4 KiB is allowed. A server with lower limits of its own takes less.
const MaxValue = 1<<20 - 4<<10

// newEntry returns the entry in a node among the entries, as ready. n is its parsed name.
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

	// Oldest is when the oldest entry that is ready or held was put. It is zero when
	// no entry is.
	Oldest time.Time
}

// Total returns the number of entries in all four states.
func (s Stat) Total() int { return s.Ready + s.Held + s.Delayed + s.Dead }

// locked describes an entry whose lock is n.
func (e Entry) locked(n coord.Node) Entry {
	switch st := lock.Read(n); st.Kind {
	case lock.Aside:
		e.State, e.Due = StateDelayed, st.Due
	default:
		e.State, e.Holder, e.Since = StateHeld, st.Holder, n.Created
	}
	return e
}

// expired says whether the entry's time to live is over: nobody is handed it any more.
func (e Entry) expired() bool {
	return expired(e.Expires) && e.State != StateHeld && e.State != StateDead
}
