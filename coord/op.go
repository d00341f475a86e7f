package coord

import (
	"fmt"
	"strings"
)

// Kind is what an [Op] does.
type Kind uint8

// The kinds of ops.
const (
	KindCreate     Kind = iota + 1 // a persistent node that does not exist yet
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

// Op is one part of a commit. Make it with [Create], [Set] and the other functions.
type Op struct {
	Kind  Kind
	Path  string
	Value []byte
	Fence Fence

	// SignalLater allows the session's own watches to signal the change after Commit
	// has returned, as they do for changes of other clients. It costs less, and is for
	// changes that the caller does not wait for. Listings show such a change as soon
	// as any other.
	SignalLater bool
}

// Create creates a persistent node. It is refused with [ErrExist] if the path is taken.
func Create(path string, value []byte) Op {
	return Op{Kind: KindCreate, Path: path, Value: value}
}

// CreateEphemeral creates a node that ends with the session. It is refused with
// [ErrExist] if the path is taken. A new ephemeral node of a plain ZooKeeper client never
// has the same fence, so a delete at this fence cannot remove a lock that kazoo created.
func CreateEphemeral(path string, value []byte) Op {
	return Op{Kind: KindEphemeral, Path: path, Value: value}
}

// CreateSequential creates a persistent node whose name is prefix and a suffix that the
// service chooses; it is in [Result.Path]. Suffixes sort in the order of commits: if a
// commit was answered before another one began, its names sort before those of the other
// under the same prefix, unless they were deleted before. That holds for commits of
// different clients, too. Within a commit names sort in the order of the ops. A suffix is
// never given twice. Several ops of a commit may share a prefix.
func CreateSequential(prefix string, value []byte) Op {
	return Op{Kind: KindSequential, Path: prefix, Value: value}
}

// Set gives the node a new value. It keeps the owner. It is refused with [ErrNotExist] or
// [ErrVersion].
func Set(path string, value []byte, at Fence) Op {
	return Op{Kind: KindSet, Path: path, Value: value, Fence: at}
}

// Touch gives the node a new fence, counts a change, and keeps the value. The caller
// passes the value that it read at the old fence, because ZooKeeper needs it again. It is
// refused with [ErrNotExist] or [ErrVersion].
func Touch(path string, value []byte, at Fence) Op {
	return Op{Kind: KindTouch, Path: path, Value: value, Fence: at}
}

// Delete removes the node, whichever session owns it. It is refused with [ErrNotExist] or
// [ErrVersion].
func Delete(path string, at Fence) Op {
	return Op{Kind: KindDelete, Path: path, Fence: at}
}

// Check changes nothing. It is refused with [ErrNotExist] or [ErrVersion] unless the node
// has the fence.
func Check(path string, at Fence) Op {
	return Op{Kind: KindCheck, Path: path, Fence: at}
}

// Replace puts a persistent node in the place of the ephemeral one that has the fence. At
// every instant one of the two exists. It is refused with [ErrNotExist] or [ErrVersion].
func Replace(path string, value []byte, at Fence) Op {
	return Op{Kind: KindReplace, Path: path, Value: value, Fence: at}
}

// Result is the result of one op of an applied commit.
type Result struct {
	Path string // of the node; of a sequential one with the suffix

	// Fence is the node's fence after the commit; 0 after Delete.
	Fence Fence

	// Revision is the commit's place in the order of all commits of the service. If
	// a commit was answered before another one began, its revision is smaller. It is
	// known for Set, Touch and CreateEphemeral; for other kinds it may be 0.
	Revision int64
}

// CheckOps returns why a commit must not be sent: a path is invalid or named twice
// ([ErrInvalid]), or the commit is beyond the limits ([*LimitError]). Every driver calls
// it before it sends a commit.
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

// MaxBeside is how many sets, touches, deletes and checks a commit of more than CommitOps
// persistent creates may hold. That is enough for a marker by which the caller can find
// out whether the commit was applied. Such a commit holds no ephemeral creates and no
// replaces.
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
		path += "0" // the path is complete only with a suffix
	}
	return CheckPath(path)
}

// CheckPath returns [ErrInvalid] unless path can be the path of a node. A path begins with
// a slash, its segments are joined by single slashes, and none is empty, "." or "..". It
// is UTF-8 of at most [MaxPath] bytes. It holds none of the characters that ZooKeeper
// refuses: control, surrogate and private-use characters, and all beyond U+FFFF, such as
// emoji.
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

// CheckDir is [CheckPath] for a directory to list or watch, which may also be "/".
func CheckDir(dir string) error {
	if dir == "/" {
		return nil
	}
	return CheckPath(dir)
}

// CheckList returns [ErrInvalid] if dir or the options are. Every driver calls it before
// it lists.
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

// BadByte returns the index of the first character of s that no path may hold, or -1.
func BadByte(s string) int {
	for i, r := range s {
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r >= 0xd800 && r <= 0xf8ff || r >= 0xfff0 {
			return i // also for bytes that are not UTF-8, which range yields as U+FFFD
		}
	}
	return -1
}
