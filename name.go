package zkq

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/priority"
)

// The nodes that zkq keeps beside a queue's entries. None may be a segment of a
// queue's name.
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

var reserved = []string{dirEntries, dirTaken, dirDelayed, dirDead, dirBroken, dirAttempts, dirWorkers, dirLog, "unique", "config", "count"}

// reservedRoots may not be the first segment: ours for all queues, and
// ZooKeeper's own.
var reservedRoots = []string{"zkq", "zookeeper"}

// The longest queue name and the longest segment of one, in bytes.
const (
	MaxName    = 1024
	MaxSegment = 255
)

// CheckName returns the canonical form of a queue's name, with one leading slash,
// or an error that is [ErrInvalidName] and says what is wrong with it. A name is
// segments joined by single slashes; one leading slash is optional. No segment is
// empty, ".", "..", longer than [MaxSegment] bytes, begins with "entry-", or is a
// name that zkq keeps for itself beside the entries; none holds control
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
	for i, seg := range strings.Split(path[1:], "/") {
		switch {
		case seg == "":
			return bad("empty segment at byte %d", at)
		case seg == ".", seg == "..":
			return bad("segment %q at byte %d", seg, at)
		case len(seg) > MaxSegment:
			return bad("segment at byte %d has %d bytes, the limit is %d", at, len(seg), MaxSegment)
		case strings.HasPrefix(seg, priority.EntryPrefix):
			return bad("segment %q at byte %d begins with %q, as entries do", seg, at, priority.EntryPrefix)
		case slices.Contains(reserved, seg), i == 0 && slices.Contains(reservedRoots, seg):
			return bad("segment %q at byte %d is reserved", seg, at)
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
