package layout

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/zkq/zkq/priority"
)

// Names that begin with a time, so that a listing is in order of time:
// <unix ms, 13 digits>-<rest>.

// LastMillis is the latest time, in milliseconds since 1970, that 13 digits can say: in
// the year 2286.
const LastMillis = 9_999_999_999_999

// msDigits is the length of a time in a name. All are equally long, so that they sort as text.
const msDigits = 13

// timedName returns the name <unix ms, 13 digits>-<rest>.
func timedName(at time.Time, rest string) string {
	return fmt.Sprintf("%0*d-%s", msDigits, at.UnixMilli(), rest)
}

// CutMillis splits <unix ms, 13 digits>-<rest>.
func CutMillis(name string) (ms int64, rest string, ok bool) {
	if len(name) <= msDigits || name[msDigits] != '-' {
		return 0, "", false
	}
	for _, digit := range []byte(name[:msDigits]) {
		if digit < '0' || digit > '9' {
			return 0, "", false
		}
		ms = 10*ms + int64(digit-'0')
	}
	return ms, name[msDigits+1:], true
}

// Delayed is what a name in [DelayedDir] says. It is either the index of a resting entry, or a
// delayed put, which has no entry yet.
type Delayed struct {
	Due      time.Time
	Entry    string // its name among the entries; "" of a delayed put
	Priority int    // of a delayed put
}

// IsPut reports whether it is a delayed put.
func (d Delayed) IsPut() bool { return d.Entry == "" }

// DelayedName returns the name in [DelayedDir] of an entry, or of a [DelayedPut].
func DelayedName(due time.Time, rest string) string { return timedName(due, rest) }

// ParseDelayed reads a name in [DelayedDir].
func ParseDelayed(name string) (Delayed, bool) {
	ms, rest, ok := CutMillis(name)
	d := Delayed{Due: time.UnixMilli(ms)}
	if !ok {
		return d, false
	}
	if n, put := delayedPutPriority(rest); put {
		d.Priority = n
		return d, true
	}
	d.Entry = rest
	_, ok = priority.Parse(rest)
	return d, ok
}

// delayedPutPrefix tells a delayed put from the index of an entry.
const delayedPutPrefix = "put-"

// DelayedPut returns the part behind the time of the name of a delayed put: put-PPP-<16
// hex>. It is the i-th value of the put, and id tells puts apart.
func DelayedPut(priority int, id [6]byte, i int) string {
	return fmt.Sprintf("%s%03d-%s%04x", delayedPutPrefix, priority, hex.EncodeToString(id[:]), i)
}

// delayedPutPriority reads the priority in put-PPP-<16 hex>.
func delayedPutPriority(rest string) (int, bool) {
	text, ok := strings.CutPrefix(rest, delayedPutPrefix)
	if !ok || len(text) != 20 || text[3] != '-' {
		return 0, false
	}
	for i, c := range []byte(text) {
		if digit := c >= '0' && c <= '9'; i != 3 && !digit && (i < 3 || c < 'a' || c > 'f') {
			return 0, false
		}
	}
	n, err := strconv.Atoi(text[:3])
	return n, err == nil
}

// DeadName returns the name in [DeadDir] of an entry that dies at a time. Its value is an
// envelope around the entry's value, bytes unchanged.
func DeadName(at time.Time, entry string) string { return timedName(at, entry) }

// ParseDead returns the name that a dead entry had before it died.
func ParseDead(name string) (entry string, parsed priority.Name, ok bool) {
	if _, entry, ok = CutMillis(name); ok {
		parsed, ok = priority.Parse(entry)
	}
	return entry, parsed, ok
}

// BrokenName returns the name in [BrokenDir] of the trace that an entry's lock was broken
// at a time.
func BrokenName(at time.Time, entry string) string { return timedName(at, entry) }
