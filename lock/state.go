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
	Resting                 // persistent, written by zkq: the thing rests until due
	Foreign                 // persistent, not written by zkq: not to be touched
)

// State is what the node of a lock means.
type State struct {
	Kind   Kind
	Holder string    // of a Held or Foreign lock: its value
	Due    time.Time // of a Resting one
}

// rest is the value of the node of a thing that rests.
type rest struct {
	Version int   `json:"zkq"`
	DueMS   int64 `json:"due_ms"`
}

// RestOp returns the op that lets the locked thing rest until due. Until then it has no
// holder and cannot be locked. Commit it, like [Lock.ReleaseOp], together with a condition
// on the thing.
func (l *Lock) RestOp(due time.Time) coord.Op {
	value, err := json.Marshal(rest{Version: 1, DueMS: due.UnixMilli()})
	if err != nil {
		panic(fmt.Sprintf("lock: rest: %v", err)) // a struct of plain fields
	}
	return coord.Replace(l.path, value, l.fence)
}

// Read returns what the node of a lock means.
func Read(n coord.Node) State {
	if n.Owner != "" {
		return State{Kind: Held, Holder: string(n.Value)}
	}
	var a rest
	if json.Unmarshal(n.Value, &a) == nil && a.Version == 1 && a.DueMS > 0 {
		return State{Kind: Resting, Due: time.UnixMilli(a.DueMS)}
	}
	return State{Kind: Foreign, Holder: string(n.Value)}
}
