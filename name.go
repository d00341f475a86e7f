package zkq

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/priority"
)

// The nodes that zkq keeps beside a queue's entries.
const (
	dirEntries = "entries"
	dirTaken   = "taken"
	dirDelayed = "delayed"
	dirDead    = "dead"
	nodeConfig = "config"
	nodeCount  = "count"

	dirAttempts = "attempts"
	dirWorkers  = "workers"
)

// reserved may not be the last segment of a queue's name: it would be a node of the queue
// that the rest of the name may be. reservedBelow may be no segment at all: whatever lies
// below is an entry or a lock to kazoo.
var (
	reserved      = []string{dirDelayed, dirDead, dirBroken, dirAttempts, dirWorkers, dirLog, dirUnique, nodeConfig, nodeCount}
	reservedBelow = []string{dirEntries, dirTaken}
)

// reservedRoots may not be the first segment: ours for all queues, and
// ZooKeeper's own.
var reservedRoots = []string{"zkq", "zookeeper"}

// keeps says whether a node of that name in a directory of that name can be one that zkq
// made there. No queue may lie at or below such a node. Names of entries need no mention:
// no segment may look like one.
func keeps(dir, name string) bool {
	switch dir {
	case dirWorkers:
		return holderForm.MatchString(name)
	case dirUnique:
		return isKeySum(name)
	case dirDelayed:
		_, ok := parseDelayed(name)
		return ok
	case dirDead, dirBroken:
		_, _, ok := parseDead(name)
		return ok
	case dirLog:
		return slices.Contains([]string{logHeadNode, logLabelsNode, dirLogEntries, dirLogCursors}, name)
	}
	return false
}

// The longest queue name and the longest segment of one, in bytes.
const (
	MaxName    = 1024
	MaxSegment = 255
)

// CheckName returns the canonical form of a queue's name, with one leading slash,
// or an error that is [ErrInvalidName] and says what is wrong with it. A name is
// segments joined by single slashes; one leading slash is optional. No segment is
// empty, ".", "..", longer than [MaxSegment] bytes, "entries" or "taken", or begins with
// "entry-". The last is none of the other names that zkq keeps beside the entries: delayed,
// dead, broken, attempts, workers, retained, unique, config and count. They may stand before
// it, but not before what zkq itself would call a node there; and below the config or the
// count of a queue that has bounds nothing can be put. None holds control
// characters, or characters beyond U+FFFF such as emoji. The first is neither "zkq" nor "zookeeper".
func CheckName(name string) (string, error) {
	bad := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("queue name %q: %s: %w", name, fmt.Sprintf(format, args...), ErrInvalidName)
	}
	path := "/" + strings.TrimPrefix(name, "/")
	switch {
	case path == "/":
		return bad("is empty")
	case len(path) > MaxName:
		return bad("%d bytes, the limit is %d", len(path), MaxName)
	}
	if i := coord.BadByte(name); i >= 0 {
		if r, size := utf8.DecodeRuneInString(name[i:]); r == utf8.RuneError && size == 1 {
			return bad("byte %d is not UTF-8", i)
		} else if r > 0xffff {
			return bad("character %q at byte %d is beyond U+FFFF, and ZooKeeper takes none of those", r, i)
		}
		return bad("byte %d is not of a printable character", i)
	}
	at := len(name) - len(path) + 1 // of the segment, in the name as given
	segments := strings.Split(path[1:], "/")
	for i, seg := range segments {
		switch {
		case seg == "":
			return bad("empty segment at byte %d", at)
		case seg == ".", seg == "..":
			return bad("segment %q at byte %d", seg, at)
		case len(seg) > MaxSegment:
			return bad("segment at byte %d has %d bytes, the limit is %d", at, len(seg), MaxSegment)
		case strings.HasPrefix(seg, priority.EntryPrefix):
			return bad("segment %q at byte %d begins with %q, as entries do", seg, at, priority.EntryPrefix)
		case i == 0 && slices.Contains(reservedRoots, seg):
			return bad("the first segment %q is reserved: if the queue lies there, make that directory the chroot, the path in the coordinator's address", seg)
		case slices.Contains(reservedBelow, seg):
			return bad("segment %q at byte %d is reserved for what is below a queue: if the queue lies there, make the path up to it the chroot, the path in the coordinator's address", seg, at)
		case i == len(segments)-1 && slices.Contains(reserved, seg):
			return bad("the last segment %q at byte %d is reserved for what zkq keeps beside the entries of a queue: give the queue another name, or one below it", seg, at)
		case i > 0 && keeps(segments[i-1], seg):
			return bad("segment %q at byte %d is reserved: in a directory called %s zkq itself makes nodes of such names", seg, at, segments[i-1])
		}
		at += len(seg) + 1
	}
	return path, nil
}

// checkEntryName refuses what cannot name an entry.
func checkEntryName(name string) error {
	if _, ok := priority.Parse(name); !ok {
		return fmt.Errorf("entry name %q: entries are called entry-PPP-…, as put and ls print them: %w", name, ErrInvalidName)
	}
	return nil
}
