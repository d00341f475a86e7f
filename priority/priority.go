// Package priority turns entry names into (priority, sequence) and back. It is
// pure: no I/O, no clock.
//
// The layout is kazoo's. An entry's name is "entry-", the priority in three
// digits, a dash, and a sequence that the coordinator appended:
//
//	entry-100-0000000042                                                  ZooKeeper
//	entry-100-0000000000000000042-1763683200000-9f86d081-000000           etcd
//
// Lower priorities come first, and within a priority earlier puts. Both forms
// are built so that the byte order of names is that order: what sorts names
// sorts entries.
package priority

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The priorities that a name can carry, most urgent first, and the one that
// kazoo gives a put which does not say.
const (
	Min     = 0
	Max     = 999
	Default = 100
)

// EntryPrefix begins the name of every entry and of nothing else.
const EntryPrefix = "entry-"

// ErrRange is what [Check] reports.
var ErrRange = errors.New("priority out of range")

// Name is an entry's name, taken apart.
type Name struct {
	Priority int
	Sequence int64     // grows with each put that began after another ended
	Put      time.Time // when, by the putter's clock; zero where the name does not say
}

// Check reports a priority that no name can carry, as [ErrRange].
func Check(p int) error {
	if p < Min || p > Max {
		return fmt.Errorf("priority %d: allowed are %d (most urgent) to %d: %w", p, Min, Max, ErrRange)
	}
	return nil
}

// Prefix returns what stands before the sequence in the names of a priority that
// passed [Check].
func Prefix(p int) string {
	return fmt.Sprintf("%s%03d-", EntryPrefix, p)
}

// Parse takes a name apart. It accepts exactly what the coordinators write and
// reports false for all else, a negative sequence included: such nodes are
// somebody else's, and are left alone.
func Parse(name string) (Name, bool) {
	rest, ok := strings.CutPrefix(name, EntryPrefix)
	if !ok || len(rest) < 4 || rest[3] != '-' || !digits(rest[:3]) {
		return Name{}, false
	}
	var n Name
	n.Priority, _ = strconv.Atoi(rest[:3])
	rest = rest[4:]
	var err error
	if len(rest) == 10 && digits(rest) {
		n.Sequence, err = strconv.ParseInt(rest, 10, 64)
		return n, err == nil
	}
	if !etcdForm(rest) {
		return Name{}, false
	}
	n.Sequence, err = strconv.ParseInt(rest[:19], 10, 64)
	ms, _ := strconv.ParseInt(rest[20:33], 10, 64)
	n.Put = time.UnixMilli(ms)
	return n, err == nil
}

// Beyond says where a listing that came to name, which no entry has, may go on: no
// entry's name sorts behind name and before after. more is false where none sorts
// behind name at all.
func Beyond(name string) (after string, more bool) {
	const lowest, last = "000-0000000000", "\xff" // what every sequence begins with; what sorts behind all text
	if !strings.HasPrefix(name, EntryPrefix) {
		return EntryPrefix[:len(EntryPrefix)-1] + "," + last, name < EntryPrefix
	}
	for i := range len(lowest) {
		at := len(EntryPrefix) + i
		if at == len(name) {
			return name, true
		}
		least, most := lowest[i], byte('9')
		if least == '-' {
			most = '-'
		}
		switch b := name[at]; {
		case b < least:
			return max(name, name[:at]+string(least-1)+last), true
		case b > most:
			return max(name, name[:at]+last), true
		}
	}
	return name, true
}

// etcdForm says whether it is 19 digits, 13 digits, 8 of lower-case hex, and 6 to 12
// digits, with dashes between them.
func etcdForm(s string) bool {
	return len(s) >= 49 && len(s) <= 55 && s[19] == '-' && s[33] == '-' && s[42] == '-' &&
		digits(s[:19]) && digits(s[20:33]) && lowerHex(s[34:42]) && digits(s[43:])
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}
