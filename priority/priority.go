// Package priority turns entry names into (priority, sequence) and back. It has no
// I/O and no clock.
//
// The layout is kazoo's. An entry's name is "entry-", the priority in three
// digits, a dash, and a sequence that the coordination service appended:
//
//	entry-100-0000000042                                                  ZooKeeper
//	entry-100-0000000000000000042-1763683200000-9f86d081-000000           etcd
//
// Entries with lower priorities come first; within a priority, earlier puts. That is
// the byte order of the names, in both forms.
package priority

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The most and the least urgent priority that a name can carry, and kazoo's default.
const (
	Min     = 0
	Max     = 999
	Default = 100
)

// EntryPrefix begins the name of every entry, and of no other node.
const EntryPrefix = "entry-"

// ErrRange is the error of [Check].
var ErrRange = errors.New("priority out of range")

// Name is the parts of an entry's name.
type Name struct {
	Priority int
	Sequence int64     // grows with each put that began after another ended
	Put      time.Time // by the clock of the putting process; zero on ZooKeeper, whose names have no time
}

// Check returns [ErrRange] for a priority that no name can carry.
func Check(p int) error {
	if p < Min || p > Max {
		return fmt.Errorf("priority %d: allowed are %d (most urgent) to %d: %w", p, Min, Max, ErrRange)
	}
	return nil
}

// Prefix returns the part of a name before the sequence. The priority must have passed
// [Check].
func Prefix(p int) string {
	return fmt.Sprintf("%s%03d-", EntryPrefix, p)
}

// Parse returns the parts of a name. It accepts exactly the names that the services
// write, and reports false for all others, also for a negative sequence. Nodes with
// other names belong to other programs and must be left alone.
func Parse(name string) (Name, bool) {
	rest, ok := strings.CutPrefix(name, EntryPrefix)
	if !ok || len(rest) < 4 || rest[3] != '-' || !areDigits(rest[:3]) {
		return Name{}, false
	}
	var n Name
	n.Priority, _ = strconv.Atoi(rest[:3])
	rest = rest[4:]
	var err error
	if len(rest) == 10 && areDigits(rest) {
		n.Sequence, err = strconv.ParseInt(rest, 10, 64)
		return n, err == nil
	}
	if !isEtcdForm(rest) {
		return Name{}, false
	}
	n.Sequence, err = strconv.ParseInt(rest[:19], 10, 64)
	ms, _ := strconv.ParseInt(rest[20:33], 10, 64)
	n.Put = time.UnixMilli(ms)
	return n, err == nil
}

// Beyond lets a listing skip names that are not those of entries. name is such a name.
// The listing may go on after the returned name: no entry's name sorts between the two.
// more is false if no entry's name sorts after name at all.
func Beyond(name string) (after string, more bool) {
	const lowest, last = "000-0000000000", "\xff" // the lowest start of a rest; a byte that sorts after all text
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

// isEtcdForm reports whether s is 19 digits, 13 digits, 8 lower-case hexadecimal digits,
// and 6 to 12 digits, with dashes between them.
func isEtcdForm(s string) bool {
	return len(s) >= 49 && len(s) <= 55 && s[19] == '-' && s[33] == '-' && s[42] == '-' &&
		areDigits(s[:19]) && areDigits(s[20:33]) && areLowerHex(s[34:42]) && areDigits(s[43:])
}

func areDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func areLowerHex(s string) bool {
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') {
			return false
		}
	}
	return true
}
