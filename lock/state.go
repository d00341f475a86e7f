package lock

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/zkq/zkq/coord"
)

// Kind is the kind of a node in a directory of locks.
type Kind uint8

// The kinds of lock nodes.
const (
	Held    Kind = iota + 1 // ephemeral: a session holds the lock
	Aside                   // persistent, written by zkq: the thing is put aside until due
	Foreign                 // persistent, not written by zkq: not to be touched
)

// State is what the node of a lock means.
type State struct {
	Kind   Kind
	Holder string    // of a Held or Foreign lock: its value
	Due    time.Time // of one put Aside
}

// aside is the value of a lock that puts its entry aside.
type aside struct {
	Version int   `json:"zkq"`
	DueMS   int64 `json:"due_ms"`
}

// PutAside returns the op that puts the locked thing aside until due. Until then it has no
// holder and cannot be taken. Commit it, like [Lock.GiveBack], together with a condition
// on the thing.
func (l *Lock) PutAside(due time.Time) coord.Op {
	value, err := json.Marshal(aside{Version: 1, DueMS: due.UnixMilli()})
	if err != nil {
		panic(fmt.Sprintf("lock: put aside: %v", err)) // a struct of plain fields
	}
	return coord.Replace(l.path, value, l.fence)
}

// Read returns what the node of a lock means.
func Read(n coord.Node) State {
	if n.Owner != "" {
		return State{Kind: Held, Holder: string(n.Value)}
	}
	var a aside
	if json.Unmarshal(n.Value, &a) == nil && a.Version == 1 && a.DueMS > 0 {
		return State{Kind: Aside, Due: time.UnixMilli(a.DueMS)}
	}
	return State{Kind: Foreign, Holder: string(n.Value)}
}
