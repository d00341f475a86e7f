package layout

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

var (
	laneForm  = regexp.MustCompile(`^[0-9a-f]{16}-[0-9]{2}$`)
	tokenForm = regexp.MustCompile(`^([0-9a-f]{16}-[0-9]{2})-([1-9][0-9]{0,18})$`)
)

// LaneName returns the name in [ProducersDir] of the n-th lane of a series of 16
// hexadecimal digits.
func LaneName(series string, n int) string { return fmt.Sprintf("%s-%02d", series, n) }

// IsLane reports whether a name in [ProducersDir] is one of a lane.
func IsLane(name string) bool { return laneForm.MatchString(name) }

// FormatToken returns the token of the n-th put of a lane.
func FormatToken(lane string, n uint64) string { return fmt.Sprintf("%s-%d", lane, n) }

// ParseToken splits a token into its lane's name and the put's number there.
func ParseToken(token string) (lane string, n uint64, ok bool) {
	m := tokenForm.FindStringSubmatch(token)
	if m == nil {
		return "", 0, false
	}
	n, err := strconv.ParseUint(m[2], 10, 64)
	return m[1], n, err == nil
}

// Marker is what a lane's node says of the last put in it. Its form is "1 <n> put
// <note>", written in the commit that creates the entries. With "void" instead of "put" it
// was written by a process that made sure that the put will never be applied.
type Marker struct {
	N    uint64 // the number of the put; 0 when the lane has had none
	Void bool
	Note []byte
}

// Value returns what the lane's node holds.
func (m Marker) Value() []byte {
	state := "put"
	if m.Void {
		state = "void"
	}
	b := fmt.Appendf(nil, "1 %d %s", m.N, state)
	if len(m.Note) > 0 {
		b = append(append(b, ' '), m.Note...)
	}
	return b
}

// ParseMarker reads what a lane's node holds.
func ParseMarker(value []byte) (m Marker, ok bool) {
	fields := bytes.SplitN(value, []byte(" "), 4)
	if len(fields) < 3 || string(fields[0]) != "1" {
		return m, false
	}
	n, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		return m, false
	}
	m.N, m.Void = n, string(fields[2]) == "void"
	if len(fields) == 4 {
		m.Note = fields[3]
	}
	return m, m.Void || string(fields[2]) == "put"
}

// SweptValue returns what [SweptNode] holds after a sweep at a time, in milliseconds since
// 1970.
func SweptValue(ms int64) []byte { return []byte("1 " + strconv.FormatInt(ms, 10)) }

// ParseSwept reads what [SweptNode] holds.
func ParseSwept(value []byte) (ms int64, ok bool) {
	text, ok := strings.CutPrefix(string(value), "1 ")
	ms, err := strconv.ParseInt(text, 10, 64)
	return ms, ok && err == nil
}
