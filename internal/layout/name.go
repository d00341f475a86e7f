package layout

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/zkq/zkq/priority"
)

// Directories and nodes below a queue's own node.
const (
	EntriesDir  = "entries"  // kazoo's; the entries of a locking queue
	TakenDir    = "taken"    // kazoo's; the locks
	DelayedDir  = "delayed"  // the index of delayed entries, and delayed puts
	DeadDir     = "dead"     // dead entries
	BrokenDir   = "broken"   // traces of locks that were broken by hand
	HistoryDir  = "attempts" // what earlier deliveries of an entry came to
	WorkersDir  = "workers"  // registered workers
	WatchersDir = "watchers" // which of many idle workers watch the queue
	UniqueDir   = "unique"   // unique keys
	RetainedDir = "retained" // the log of the queue's name
	ConfigNode  = "config"
	CountNode   = "count"
)

// CallNode is the node in [WatchersDir] that calls all workers to the queue.
const CallNode = "call"

// Nodes of a log, below [RetainedDir].
const (
	RetainedEntriesDir = "entries"
	RetainedCursorsDir = "cursors"
	RetainedHeadNode   = "head"
	RetainedLabelsNode = "labels"
)

// Nodes that serve all queues.
const (
	ProducersDir = "/zkq/producers" // the lanes of all producers
	SweptNode    = "/zkq/swept"     // when the lanes were last swept
)

var (
	// lastReserved may not be the last segment of a queue's name. It would be a node
	// of the queue that the rest of the name may be.
	lastReserved = []string{DelayedDir, DeadDir, BrokenDir, HistoryDir, WorkersDir, WatchersDir, RetainedDir, UniqueDir, ConfigNode, CountNode}

	// alwaysReserved may be no segment at all. To kazoo, everything below these is an
	// entry or a lock.
	alwaysReserved = []string{EntriesDir, TakenDir}

	// firstReserved may not be the first segment: the first is zkq's for all queues,
	// the second ZooKeeper's own.
	firstReserved = []string{"zkq", "zookeeper"}
)

// Reserved returns the names that the last segment of a queue's name may not have, and
// those that no segment may have.
func Reserved() (last, always []string) {
	return slices.Clone(lastReserved), slices.Clone(alwaysReserved)
}

// IsOwn reports whether zkq itself may have made a node of that name in a directory of
// that name. No queue may lie at or below such a node. Names of entries need no mention:
// no segment of a queue's name looks like one.
func IsOwn(dir, name string) bool {
	switch dir {
	case WorkersDir:
		return IsHolder(name)
	case WatchersDir:
		return name == CallNode || IsHolder(name)
	case UniqueDir:
		return IsKeySum(name)
	case DelayedDir:
		_, ok := ParseDelayed(name)
		return ok
	case DeadDir, BrokenDir:
		_, _, ok := ParseDead(name)
		return ok
	case RetainedDir:
		return slices.Contains([]string{RetainedHeadNode, RetainedLabelsNode, RetainedEntriesDir, RetainedCursorsDir}, name)
	}
	return false
}

// The longest queue name and the longest segment of one, in bytes.
const (
	MaxName    = 1024
	MaxSegment = 255
)

// CheckSegments returns an error that says which segment of name no queue can have, and
// why. An optional leading slash is not part of a segment. Characters are not checked:
// they are the service's matter.
func CheckSegments(name string) error {
	path := strings.TrimPrefix(name, "/")
	offset := len(name) - len(path) // of the segment, in the name as given
	segments := strings.Split(path, "/")
	for i, seg := range segments {
		switch {
		case seg == "":
			return fmt.Errorf("empty segment at byte %d", offset)
		case seg == ".", seg == "..":
			return fmt.Errorf("segment %q at byte %d", seg, offset)
		case len(seg) > MaxSegment:
			return fmt.Errorf("segment at byte %d has %d bytes, the limit is %d", offset, len(seg), MaxSegment)
		case strings.HasPrefix(seg, priority.EntryPrefix):
			return fmt.Errorf("segment %q at byte %d begins with %q, as entries do", seg, offset, priority.EntryPrefix)
		case i == 0 && slices.Contains(firstReserved, seg):
			return fmt.Errorf("the first segment %q is reserved: if the queue lies there, make that directory the chroot, the path in the coordinator's address", seg)
		case slices.Contains(alwaysReserved, seg):
			return fmt.Errorf("segment %q at byte %d is reserved for what is below a queue: if the queue lies there, make the path up to it the chroot, the path in the coordinator's address", seg, offset)
		case i == len(segments)-1 && slices.Contains(lastReserved, seg):
			return fmt.Errorf("the last segment %q at byte %d is reserved for what zkq keeps beside the entries of a queue: give the queue another name, or one below it", seg, offset)
		case i > 0 && IsOwn(segments[i-1], seg):
			return fmt.Errorf("segment %q at byte %d is reserved: in a directory called %s zkq itself makes nodes of such names", seg, offset, segments[i-1])
		}
		offset += len(seg) + 1
	}
	return nil
}

// holderForm is the form of a holder, which is the name of a worker's node too.
var holderForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// IsHolder reports whether text is the name of a holder: 32 lowercase hexadecimal digits.
func IsHolder(text string) bool { return holderForm.MatchString(text) }
