package testzk

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Txn is a transaction in the log of a member. If it has no changes, it was refused or changes no
// node.
type Txn struct {
	Zxid    int64
	Time    time.Time
	Session int64 // that made the request
	Ended   bool  // the session ended; Changes removes its ephemeral nodes
	Changes []Change
}

// Change is what a transaction did to a node.
type Change struct {
	Kind      ChangeKind
	Path      string
	Data      []byte // after the change
	Ephemeral bool   // of a created node
}

// ChangeKind is what was done to a node.
type ChangeKind int

const (
	Created ChangeKind = iota + 1
	Set
	Deleted
)

// The types of transactions, by ZooKeeper's numbers. Other types change no node.
const (
	txnCreate       = 1
	txnDelete       = 2
	txnSet          = 5
	txnMulti        = 14
	txnCreate2      = 15
	txnContainer    = 19
	txnDeleteEmpty  = 20
	txnTTL          = 21
	txnCloseSession = -11
	txnError        = -1
)

// ReadLog reads the transactions after a zxid in the logs of a data directory, in their order. A
// transaction that is incomplete, because the member was killed, ends its file.
func ReadLog(dir string, after int64) ([]Txn, error) {
	files, err := filepath.Glob(filepath.Join(dir, "version-2", "log.*"))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(zxidOfName(a), zxidOfName(b)) }) // by their first transaction
	var all []Txn
	for i, file := range files {
		if i+1 < len(files) && zxidOfName(files[i+1]) <= after {
			continue // all its transactions are older
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		txns, err := parseLog(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, t := range txns {
			// A member that had to drop its last transactions wrote others into a later file.
			for len(all) > 0 && all[len(all)-1].Zxid >= t.Zxid {
				all = all[:len(all)-1]
			}
			if t.Zxid > after {
				all = append(all, t)
			}
		}
	}
	return all, nil
}

// errLog means that a file is no log, or a log of an unknown version.
var errLog = errors.New("not a transaction log that can be read")

// parseLog parses a file: a header, then for each transaction its checksum, its length, its bytes
// and the letter B. Zeros follow.
func parseLog(b []byte) ([]Txn, error) {
	const magic = "ZKLG\x00\x00\x00\x02"
	if len(b) < 16 || string(b[:8]) != magic {
		return nil, errLog
	}
	b = b[16:]
	var txns []Txn
	for len(b) >= 12 {
		sum, n := binary.BigEndian.Uint64(b), int(binary.BigEndian.Uint32(b[8:]))
		if n == 0 || len(b) < 12+n+1 || uint64(adler32.Checksum(b[12:12+n])) != sum || b[12+n] != 'B' {
			break
		}
		t, err := parseTxn(b[12 : 12+n])
		if err != nil {
			return nil, err
		}
		txns = append(txns, t)
		b = b[12+n+1:]
	}
	return txns, nil
}

func parseTxn(b []byte) (Txn, error) {
	j := &jute{b: b}
	t := Txn{Session: j.long()}
	j.int() // the number of the request
	t.Zxid = j.long()
	t.Time = time.UnixMilli(j.long())
	kind := j.int()
	var failed bool
	switch kind {
	case txnMulti:
		for n := j.count(); n > 0 && !j.isTruncated; n-- {
			kind, body := j.int(), &jute{b: j.bytes()}
			failed = failed || kind == txnError
			t.Changes = body.change(t.Changes, kind)
			j.isTruncated = j.isTruncated || body.isTruncated
		}
	case txnCloseSession:
		t.Ended = true
		for n := j.count(); n > 0 && !j.isTruncated; n-- {
			t.Changes = append(t.Changes, Change{Kind: Deleted, Path: string(j.bytes())})
		}
	default:
		t.Changes = j.change(t.Changes, kind)
	}
	if failed {
		t.Changes = nil
	}
	if j.isTruncated {
		return t, fmt.Errorf("transaction %#x of type %d: %w", t.Zxid, kind, errLog)
	}
	return t, nil
}

// jute decodes ZooKeeper's serialization: big endian, with lengths before strings and lists.
// isTruncated is set when the bytes end too early; all values are zero then.
type jute struct {
	b           []byte
	isTruncated bool
}

// change appends the change of a transaction of that type.
func (j *jute) change(to []Change, kind int) []Change {
	switch kind {
	case txnCreate, txnCreate2:
		c := Change{Kind: Created, Path: string(j.bytes()), Data: j.bytes()}
		for n := j.count(); n > 0 && !j.isTruncated; n-- { // of access control
			j.int()
			j.bytes()
			j.bytes()
		}
		c.Ephemeral = j.take(1)[0] != 0
		return append(to, c)
	case txnContainer, txnTTL:
		return append(to, Change{Kind: Created, Path: string(j.bytes()), Data: j.bytes()})
	case txnSet:
		return append(to, Change{Kind: Set, Path: string(j.bytes()), Data: j.bytes()})
	case txnDelete, txnDeleteEmpty:
		return append(to, Change{Kind: Deleted, Path: string(j.bytes())})
	}
	return to
}

func (j *jute) take(n int) []byte {
	if n < 0 || n > len(j.b) {
		j.isTruncated, j.b = true, nil
		return make([]byte, 8) // enough for every number
	}
	b := j.b[:n]
	j.b = j.b[n:]
	return b
}

func (j *jute) int() int    { return int(int32(binary.BigEndian.Uint32(j.take(4)))) }
func (j *jute) long() int64 { return int64(binary.BigEndian.Uint64(j.take(8))) }

// count returns the length of a list. -1, for no list, counts as 0, and so does the end of the
// record.
func (j *jute) count() int {
	if len(j.b) == 0 {
		return 0
	}
	return max(j.int(), 0)
}

func (j *jute) bytes() []byte {
	n := j.int()
	if n < 0 || j.isTruncated {
		return nil
	}
	return j.take(n)
}

// Log returns what the cluster has committed after a zxid, in order, by the logs of its members.
// The zxid is 0 or where the call before ended. All members must serve.
//
// A transaction in the logs of a majority is committed. A transaction in one log only is
// committed if another member got it in a snapshot; the name of a snapshot tells its last zxid.
// Otherwise a leader that had lost its majority proposed it in vain. (The member's own snapshots
// do not count: a leader that steps down applies all that it has before it learns what was
// committed.)
//
// ZooKeeper 3.8.0 also lets a follower log proposals after it has told the others, for the
// election, how far its log goes (ZOOKEEPER-4712). Such proposals are not committed. So an epoch
// is cut earlier if the transactions of the next epoch are possible only then, by the nodes that
// exist.
func (c *Cluster) Log(after int64) ([]Txn, error) {
	logs := make([][]Txn, len(c.Members))
	snapped := make([]map[int64]int64, len(c.Members)) // of each member: by epoch, the last zxid in a snapshot
	writers := make(map[int64]int)
	for i, m := range c.Members {
		data := filepath.Join(m.dir, "data")
		var err error
		if logs[i], err = ReadLog(data, after); err != nil {
			return nil, err
		}
		for _, t := range logs[i] {
			writers[t.Zxid]++
		}
		snapshots, err := filepath.Glob(filepath.Join(data, "version-2", "snapshot.*"))
		if err != nil {
			return nil, err
		}
		snapped[i] = make(map[int64]int64)
		for _, file := range snapshots {
			zxid := zxidOfName(file)
			snapped[i][zxid>>32] = max(snapped[i][zxid>>32], zxid)
		}
	}
	committed := make(map[int64]Txn)
	for i, log := range logs {
		for _, t := range log {
			holds := writers[t.Zxid] > len(c.Members)/2
			for j, s := range snapped {
				holds = holds || j != i && t.Zxid <= s[t.Zxid>>32]
			}
			if holds {
				committed[t.Zxid] = t
			}
		}
	}
	all := slices.Collect(maps.Values(committed))
	slices.SortFunc(all, func(a, b Txn) int { return cmp.Compare(a.Zxid, b.Zxid) })
	last := after
	for _, t := range all {
		if t.Zxid>>32 == last>>32 && t.Zxid != last+1 || t.Zxid>>32 != last>>32 && t.Zxid&(1<<32-1) > 1 {
			return nil, fmt.Errorf("no member has the transactions between %#x and %#x: %w", last, t.Zxid, errLog)
		}
		last = t.Zxid
	}
	if after != c.logRead.to || c.logRead.nodes == nil {
		c.logRead.nodes = make(nodeSet)
	}
	all = c.logRead.nodes.dropImpossible(all)
	c.logRead.to = last
	return all, nil
}

// nodeSet is the paths that exist.
type nodeSet map[string]bool

// apply applies a transaction, and reports whether it was possible.
func (n nodeSet) apply(t Txn) (could bool) {
	could = true
	for _, c := range t.Changes {
		if there := n[c.Path]; there == (c.Kind == Created) {
			could = false
		}
		if c.Kind == Deleted {
			delete(n, c.Path)
		} else {
			n[c.Path] = true
		}
	}
	return could
}

// dropImpossible applies transactions and returns them. It drops those at the end of an epoch that
// make transactions of the next epoch impossible.
func (n nodeSet) dropImpossible(all []Txn) []Txn {
	var done []Txn
	for len(all) > 0 {
		epoch := func(t Txn) int64 { return t.Zxid >> 32 }
		this := len(all)
		if i := slices.IndexFunc(all, func(t Txn) bool { return epoch(t) != epoch(all[0]) }); i > 0 {
			this = i
		}
		next := all[this:]
		if i := slices.IndexFunc(next, func(t Txn) bool { return epoch(t) != epoch(next[0]) }); i > 0 {
			next = next[:i]
		}
		end := n.endOfEpoch(all[:this], next)
		for _, t := range all[:end] {
			n.apply(t)
		}
		done = append(done, all[:end]...)
		all = all[this:]
	}
	return done
}

// endOfEpoch returns how many of an epoch's transactions were committed: all, or the number that
// makes the fewest transactions of the next epoch impossible.
func (n nodeSet) endOfEpoch(this, next []Txn) int {
	impossible := func(upTo int) (sum int) {
		then := maps.Clone(n)
		for _, t := range this[:upTo] {
			then.apply(t)
		}
		for _, t := range next {
			if !then.apply(t) {
				sum++
			}
		}
		return sum
	}
	const mostInVain = 500
	best, least := len(this), impossible(len(this))
	for end := len(this) - 1; least > 0 && end >= max(0, len(this)-mostInVain); end-- {
		if sum := impossible(end); sum < least {
			best, least = end, sum
		}
	}
	return best
}

// zxidOfName returns the zxid that the name of a file ends with.
func zxidOfName(file string) int64 {
	zxid, _ := strconv.ParseInt(file[strings.LastIndexByte(file, '.')+1:], 16, 64)
	return zxid
}
