package lock

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/zkq/zkq/coord"
)

// Kind tells the three sorts of nodes met among locks.
type Kind uint8

// The kinds of lock nodes.
const (
	Held    Kind = iota + 1 // ephemeral: somebody works on it
	Aside                   // persistent, ours: put aside until due
	Foreign                 // persistent, not ours: left alone
)

// State is what a lock node says.
type State struct {
	Kind   Kind
	Holder string    // of a Held lock: its value, whoever wrote it
	Due    time.Time // of one put Aside
}

// aside is the value of a lock that puts its entry aside.
type aside struct {
	Version int   `json:"zkq"`
	DueMS   int64 `json:"due_ms"`
}

// PutAside is the op that puts the locked thing aside until due: nobody holds it then, and
// nobody can take it. Like GiveBack it needs a condition on the thing beside it.
func (l *Lock) PutAside(due time.Time) coord.Op {
	value, err := json.Marshal(aside{Version: 1, DueMS: due.UnixMilli()})
	if err != nil {
		panic(fmt.Sprintf("lock: put aside: %v", err)) // a struct of plain fields
	}
	return coord.Replace(l.path, value, l.fence)
}

// Read says what a lock node means.
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
