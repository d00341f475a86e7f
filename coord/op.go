package coord

import (
	"fmt"
	"strings"
)

// Kind says what an [Op] does.
type Kind uint8

// The kinds of ops.
const (
	KindCreate     Kind = iota + 1 // a persistent node that is not there yet
	KindEphemeral                  // the same, owned by the session
	KindSequential                 // a persistent node whose name the service completes
	KindSet                        // a new value, at a fence
	KindTouch                      // a new fence, the same value, at a fence
	KindDelete                     // at a fence
	KindCheck                      // nothing but the condition, at a fence
	KindReplace                    // an ephemeral node by a persistent one of the same path, at its fence
)

var kindNames = [...]string{"no kind", "create", "create ephemeral", "create sequential", "set", "touch", "delete", "check", "replace"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Op is one part of a commit. Make it with the function of its name.
type Op struct {
	Kind  Kind
	Path  string
	Value []byte
	Fence Fence

	// SignalLater allows the session's own watches to signal what the op creates or
	// deletes after Commit has returned, as they do with others' changes. It is for
	// changes that the caller knows of by itself, and costs less. Listings show such
	// a change as soon as any other.
	SignalLater bool
}

// Create creates a persistent node; [ErrExist] when the path is taken.
func Create(path string, value []byte) Op {
	return Op{Kind: KindCreate, Path: path, Value: value}
}

// CreateEphemeral creates a node that ends with the session; [ErrExist] when the
// path is taken, by whomever. Its fence is one that no ephemeral node of a plain
// ZooKeeper client starts with, so that a delete at it can never remove a lock
// that kazoo created.
func CreateEphemeral(path string, value []byte) Op {
	return Op{Kind: KindEphemeral, Path: path, Value: value}
}

// CreateSequential creates a persistent node whose name is prefix and a suffix
// that the service chooses; [Result.Path] tells it. Suffixes sort in the order of
// commits: when a commit was answered before another began, whoever made them,
// the names of the first that still stand sort before the names of the second under the
// same prefix. Within a commit they sort in the order of its ops. A suffix is never
// given twice. Several of a commit may share a prefix.
func CreateSequential(prefix string, value []byte) Op {
	return Op{Kind: KindSequential, Path: prefix, Value: value}
}

// Set gives the node a new value; [ErrNotExist], [ErrVersion]. Who owns the node
// stays as it was.
func Set(path string, value []byte, at Fence) Op {
	return Op{Kind: KindSet, Path: path, Value: value, Fence: at}
}

// Touch moves the node's fence on and counts a change, and keeps its value, which
// the caller hands over as it was read at that fence (ZooKeeper needs it again);
// [ErrNotExist], [ErrVersion].
func Touch(path string, value []byte, at Fence) Op {
	return Op{Kind: KindTouch, Path: path, Value: value, Fence: at}
}

// Delete removes the node, whoever owns it; [ErrNotExist], [ErrVersion].
func Delete(path string, at Fence) Op {
	return Op{Kind: KindDelete, Path: path, Fence: at}
}

// Check demands that the node stands at the fence; [ErrNotExist], [ErrVersion].
func Check(path string, at Fence) Op {
	return Op{Kind: KindCheck, Path: path, Fence: at}
}

// Replace puts a persistent node in the place of the ephemeral one that stands
// at the fence; there is no instant without either; [ErrNotExist], [ErrVersion].
func Replace(path string, value []byte, at Fence) Op {
	return Op{Kind: KindReplace, Path: path, Value: value, Fence: at}
}

// Result is what became of one op of an applied commit.
type Result struct {
	Path string // of the node, a sequential one's whole name

	// Fence is where the node stands now; 0 after Delete.
	Fence Fence

	// Revision is the commit's place in the order of all commits of the service:
	// it only ever grows, and one that another was waiting for is smaller. Known
	// for Set, Touch and CreateEphemeral; elsewhere it may be 0.
	Revision int64
}

// CheckOps is what every driver asks before it sends a commit: each path is
// valid, no two ops name the same one, and the whole is within the limits.
func CheckOps(l Limits, ops []Op) error {
	size, beside := 0, 0
	seen := make(map[string]int, len(ops))
	for i, op := range ops {
		if err := checkOp(op); err != nil {
			return fmt.Errorf("op %d: %w", i, err)
		}
		if len(op.Value) > l.ValueBytes {
			return &LimitError{What: "value of " + op.Path, Unit: "bytes", Size: len(op.Value), Limit: l.ValueBytes}
		}
		size += OpOverhead + len(op.Path) + len(op.Value)
		switch op.Kind {
		case KindCreate, KindSequential:
		case KindEphemeral, KindReplace:
			beside += MaxBeside + 1
		default:
			beside++
		}
		if op.Kind == KindSequential {
			continue
		}
		if j, dup := seen[op.Path]; dup {
			return fmt.Errorf("ops %d and %d of a commit both name %s: %w", j, i, op.Path, ErrInvalid)
		}
		seen[op.Path] = i
	}
	most := l.CommitOps
	if beside <= MaxBeside {
		most = l.Creates
	}
	if len(ops) > most {
		return &LimitError{What: "commit", Unit: "ops", Size: len(ops), Limit: most}
	}
	if size > l.CommitBytes {
		return &LimitError{What: "commit", Unit: "bytes", Size: size, Limit: l.CommitBytes}
	}
	return nil
}

// MaxBeside is how many sets, touches, deletes and checks may stand in a commit of
// more than CommitOps persistent creates: enough for a marker that tells whether
// it was applied. Ephemeral creates and replaces may not.
const MaxBeside = 4

// OpOverhead is what [CheckOps] counts for each op besides its path and value.
// It is more than either service's framing, a sequential suffix included.
const OpOverhead = 128

func checkOp(op Op) error {
	if op.Kind < KindCreate || op.Kind > KindReplace {
		return fmt.Errorf("%v: %w", op.Kind, ErrInvalid)
	}
	path := op.Path
	if op.Kind == KindSequential {
		path += "0" // the prefix may end with a dash, and names what comes with the suffix
	}
	return CheckPath(path)
}

// CheckPath reports what is wrong with a node's path: it begins with a slash, its
// segments are joined by single slashes, none is empty, "." or "..", and all of
// it is UTF-8 without control characters, surrogates, private-use characters and
// characters beyond U+FFFF such as emoji (ZooKeeper refuses those). It is at most
// [MaxPath] bytes long.
func CheckPath(path string) error {
	if !strings.HasPrefix(path, "/") || path == "/" {
		return fmt.Errorf("path %q: does not name a node below /: %w", path, ErrInvalid)
	}
	if len(path) > MaxPath {
		return fmt.Errorf("path %.40q…: %d bytes, the limit is %d: %w", path, len(path), MaxPath, ErrInvalid)
	}
	for seg := range strings.SplitSeq(path[1:], "/") {
		if seg == "" || seg == "." || seg == ".." {
			return fmt.Errorf("path %q: segment %q: %w", path, seg, ErrInvalid)
		}
	}
	if i := BadByte(path); i >= 0 {
		return fmt.Errorf("path %q: byte %d: not a printable character: %w", path, i, ErrInvalid)
	}
	return nil
}

// MaxPath is the longest path of a node, in bytes: a request for it fits every service.
const MaxPath = 64 << 10

// CheckDir is CheckPath for a directory to list or watch, which may be "/".
func CheckDir(dir string) error {
	if dir == "/" {
		return nil
	}
	return CheckPath(dir)
}

// CheckList is what every driver asks before it lists.
func CheckList(dir string, o ListOptions) error {
	if err := CheckDir(dir); err != nil {
		return err
	}
	switch {
	case o.Limit < 0:
		return fmt.Errorf("limit %d: %w", o.Limit, ErrInvalid)
	case o.Born < 0:
		return fmt.Errorf("revision %d: %w", o.Born, ErrInvalid)
	case o.Seen && (o.Fresh || o.Born != 0):
		return fmt.Errorf("a listing of what was seen is not a fresh one: %w", ErrInvalid)
	case o.Born != 0 && (o.After != "" || o.Limit != 0):
		return fmt.Errorf("a commit's nodes are not listed in pages: %w", ErrInvalid)
	}
	return nil
}

// BadByte returns where the first character of s begins that no path may hold,
// or -1.
func BadByte(s string) int {
	for i, r := range s {
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r >= 0xd800 && r <= 0xf8ff || r >= 0xfff0 {
			return i // what is not UTF-8 reads as U+FFFD and is among them
		}
	}
	return -1
}
