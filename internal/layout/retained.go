package layout

import (
	"fmt"
	"strconv"
	"time"
)

// LastNumber is more than any log reaches: a larger number was not counted.
const LastNumber = 1 << 62

// RetainedEntry is what the name of a log's entry says:
// <number, 19 digits>-<put ms, 13 digits>-<expires ms, 13 digits>.
type RetainedEntry struct {
	Number  int64
	Put     time.Time
	Expires time.Time // zero: never
}

// Name returns the name in [RetainedEntriesDir].
func (e RetainedEntry) Name() string {
	expires := int64(0)
	if !e.Expires.IsZero() {
		expires = e.Expires.UnixMilli()
	}
	return fmt.Sprintf("%s-%013d-%013d", RetainedNumber(e.Number), e.Put.UnixMilli(), expires)
}

// ParseRetained reads a name in [RetainedEntriesDir].
func ParseRetained(name string) (e RetainedEntry, ok bool) {
	if len(name) != 19+1+13+1+13 || name[19] != '-' || name[33] != '-' {
		return e, false
	}
	var n [3]int64
	for i, digits := range []string{name[:19], name[20:33], name[34:]} {
		v, err := strconv.ParseUint(digits, 10, 63)
		if err != nil {
			return e, false
		}
		n[i] = int64(v)
	}
	e.Number, e.Put = n[0], time.UnixMilli(n[1])
	if n[2] != 0 {
		e.Expires = time.UnixMilli(n[2])
	}
	return e, true
}

// RetainedNumber returns how a number begins the name of an entry, or is the name of a
// cursor in [RetainedCursorsDir].
func RetainedNumber(n int64) string { return fmt.Sprintf("%019d", n) }

// RetainedHead is what [RetainedHeadNode] holds. Every append writes it.
type RetainedHead struct {
	Next int64 `json:"next"` // the number of the next entry
}

// Value returns what its node holds.
func (h RetainedHead) Value() []byte { return mustMarshal(h) }

// RetainedLabels is what [RetainedLabelsNode] holds: the number of each label's cursor.
type RetainedLabels struct {
	Next   int64            `json:"next"` // the number of the next label
	Labels map[string]int64 `json:"labels"`
}

// Value returns what its node holds.
func (l RetainedLabels) Value() []byte { return mustMarshal(l) }

// RetainedCursor is what a node in [RetainedCursorsDir] holds: the position of a label.
type RetainedCursor struct {
	Next int64 `json:"next"` // the number of the entry to be read next
}

// Value returns what its node holds.
func (c RetainedCursor) Value() []byte { return mustMarshal(c) }
