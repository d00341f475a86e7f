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

// ParseState returns the state of that name, as Entries and the command print it. For any
// other name it returns [ErrInvalid].
func ParseState(s string) (State, error) {
	switch st := State(s); st {
	case StateReady, StateHeld, StateDelayed, StateDead:
		return st, nil
	}
	return "", fmt.Errorf("state %q: allowed are ready, held, delayed, dead: %w", s, ErrInvalid)
}

// Entry describes an entry to a process that does not hold it. It is a copy: another process
// may have changed the entry since it was read. A simple [Queue] keeps no counts and no Reason.
type Entry struct {
	Name     string // entry-PPP-…; delayed puts and dead entries have names of other forms
	Value    []byte // only where the method says so
	Priority int    // 0 to 999; 0 is the most urgent
	State    State

	Holder     string // of a held entry: its holder, as in [WorkerInfo]: 32 hexadecimal digits
	Deliveries int    // how often it was handed out; includes crashes, but not takes by kazoo
	Failures   int    // how many of these deliveries ended in a failure
	Reason     string // of the last failure; of a dead entry, why it is dead

	Size       int   // of the value, in bytes
	Token      int64 // the commit that last wrote the entry; while it is held, its holder's fencing token
	Unreadable bool  // its access list keeps this process from reading it, and from being handed it

	Due     time.Time // of a delayed entry: when it becomes ready
	Expires time.Time // when its time to live ends; zero: never
	Created time.Time // by the clock of the service, or else of the process that put it; zero if neither is known
	Since   time.Time // when it was claimed, or became dead; zero for other states, and for claims on etcd
}

// MaxValue is the largest value in bytes: 1 MiB less 4 KiB is allowed. Larger values are refused
// with [ErrTooLarge], on every coordinator. A server with lower limits of its own refuses
// smaller values too.
const MaxValue = 1<<20 - 4<<10

// newEntry returns the entry in a node of the queue, in state ready. n is its parsed name. The
// caller sets another state, and subtracts updates from Deliveries: both change the node.
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

// Stat counts a queue's entries by state. Expired entries that are neither held nor dead do not
// count.
type Stat struct {
	Ready, Held, Delayed, Dead int

	// Oldest is when the oldest entry that is ready or held was put. It is zero when
	// no entry is.
	Oldest time.Time
}

// Total returns the number of entries in all four states.
func (s Stat) Total() int { return s.Ready + s.Held + s.Delayed + s.Dead }

// locked returns e in the state that its lock n says: held, or delayed if the lock has a due
// time.
func (e Entry) locked(n coord.Node) Entry {
	switch st := lock.Read(n); st.Kind {
	case lock.Resting:
		e.State, e.Due = StateDelayed, st.Due
	default:
		e.State, e.Holder, e.Since = StateHeld, st.Holder, n.Created
	}
	return e
}

// expired reports whether takes skip the entry because its time to live is over. Held and dead
// entries do not expire.
func (e Entry) expired() bool {
	return expired(e.Expires) && e.State != StateHeld && e.State != StateDead
}
