package layout

import "encoding/json"

// History is what an entry's earlier deliveries came to, in the node of its name in
// [HistoryDir]. An entry that never came back has none.
type History struct {
	Failures int    `json:"failures"`          // deliveries that ended in Fail
	Forgiven int64  `json:"forgiven"`          // deliveries that do not count against the entry
	Updates  int64  `json:"updates,omitempty"` // writes of the value by holders, which do not count either
	Stuck    int    `json:"stuck,omitempty"`   // failures in which the handler did not return
	Reason   string `json:"reason,omitempty"`  // of the last failure
}

// MaxReason bounds what is kept of a reason, in bytes.
const MaxReason = 1024

// mostCounted is more than any entry reaches: a larger number was not counted.
const mostCounted = 1 << 40

// ParseHistory reads a history. A value that zkq did not write is read as an empty one.
func ParseHistory(value []byte) History {
	var h History
	if json.Unmarshal(value, &h) != nil || h.Failures < 0 || h.Forgiven < 0 || h.Updates < 0 || h.Stuck < 0 ||
		max(int64(h.Failures), int64(h.Stuck), h.Forgiven, h.Updates) > mostCounted {
		return History{}
	}
	return h
}

// Value returns what its node holds.
func (h History) Value() []byte { return mustMarshal(h) }
