package headtohead

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// commit is a transaction that ZooKeeper applied.
type commit struct {
	zxid    int64
	time    time.Time
	session int64
	closes  bool // ends the session
	changes []change
}

// change is what a commit did to a node.
type change struct {
	act   string
	path  string
	value []byte
}

// What can be done to a node.
const (
	made    = "made"
	written = "written"
	removed = "removed"
)

// The kinds of transactions that matter here, by ZooKeeper's numbers.
const (
	kindCreate  = 1
	kindDelete  = 2
	kindSet     = 5
	kindMulti   = 14
	kindCreate2 = 15
	kindClose   = -11
	kindError   = -1
)

// readHistory reads what a cluster has committed from the logs in its members' data directories.
//
// A member that was killed keeps what it had written last, committed or not, and one that fell behind has a gap. So a
// transaction counts when two have it, or when a later one of the same epoch counts: a leader's proposals are in order.
func readHistory(dirs []string) ([]commit, error) {
	has := make(map[int64]int)
	all := make(map[int64]commit)
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "version-2", "log.*"))
		if err != nil {
			return nil, err
		}
		mine := make(map[int64]bool)
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			commits, err := readLog(b)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			for _, c := range commits {
				mine[c.zxid], all[c.zxid] = true, c
			}
		}
		for zxid := range mine {
			has[zxid]++
		}
	}
	last := make(map[int64]int64) // of an epoch, that two have
	for zxid, n := range has {
		if n > 1 {
			last[zxid>>32] = max(last[zxid>>32], zxid)
		}
	}
	var history []commit
	for zxid, c := range all {
		if zxid <= last[zxid>>32] {
			history = append(history, c)
		}
	}
	slices.SortFunc(history, func(a, b commit) int { return int(min(1, max(-1, a.zxid-b.zxid))) })
	return history, nil
}

var errLog = errors.New("not a ZooKeeper log")

// readLog reads one file. It ends, as ZooKeeper's own reading does, where nothing whole follows.
func readLog(b []byte) ([]commit, error) {
	f := frame{b: b}
	if f.int() != 0x5a4b4c47 || f.int() != 2 {
		return nil, errLog
	}
	f.long()
	var commits []commit
	for {
		f.long() // checksum
		record := f.buffer()
		if len(record) == 0 || f.bytes(1) == nil || f.short {
			return commits, nil
		}
		c, err := readCommit(record)
		if err != nil {
			return nil, err
		}
		commits = append(commits, c)
	}
}

func readCommit(b []byte) (commit, error) {
	f := frame{b: b}
	c := commit{session: f.long()}
	f.int()
	c.zxid, c.time = f.long(), time.UnixMilli(f.long())
	kind := f.int()
	c.closes = kind == kindClose
	if kind != kindMulti {
		c.add(kind, &f)
	} else {
		failed := false
		for range f.int() {
			kind := f.int()
			body := frame{b: f.buffer()}
			failed = failed || kind == kindError
			c.add(kind, &body)
			f.short = f.short || body.short
		}
		if failed {
			c.changes = nil
		}
	}
	if f.short {
		return c, fmt.Errorf("transaction %#x: %w", c.zxid, errLog)
	}
	return c, nil
}

func (c *commit) add(kind int32, f *frame) {
	switch kind {
	case kindCreate, kindCreate2:
		c.changes = append(c.changes, change{made, string(f.buffer()), bytes.Clone(f.buffer())})
	case kindSet:
		c.changes = append(c.changes, change{written, string(f.buffer()), bytes.Clone(f.buffer())})
	case kindDelete:
		c.changes = append(c.changes, change{act: removed, path: string(f.buffer())})
	}
}

// frame reads ZooKeeper's encoding.
type frame struct {
	b     []byte
	short bool // it ended too early
}

func (f *frame) bytes(n int) []byte {
	if n < 0 || n > len(f.b) {
		f.short, f.b = true, nil
		return nil
	}
	taken := f.b[:n:n]
	f.b = f.b[n:]
	return taken
}

func (f *frame) int() int32 {
	if b := f.bytes(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (f *frame) long() int64 {
	if b := f.bytes(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// buffer is bytes after their length; a length of -1 is none.
func (f *frame) buffer() []byte {
	n := f.int()
	if n == -1 {
		return nil
	}
	return f.bytes(int(n))
}

// logOf is a member's log of transactions, each of its own content.
func logOf(t *testing.T, transactions ...[]byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	b := slices.Concat(be32(0x5a4b4c47), be32(2), be64(0))
	for _, txn := range transactions {
		b = slices.Concat(b, be64(0), be32(uint32(len(txn))), txn, []byte("B"))
	}
	b = append(b, make([]byte, 4096)...) // as ZooKeeper allocates it
	if err := os.MkdirAll(filepath.Join(dir, "version-2"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "version-2", "log.1"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func be64(n int64) []byte  { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
func text32(s string) []byte {
	return append(be32(uint32(len(s))), s...)
}

func txnOf(zxid int64, kind int32, body ...[]byte) []byte {
	return slices.Concat(be64(7), be32(1), be64(zxid), be64(1000*zxid), be32(uint32(kind)), slices.Concat(body...))
}

func TestHistoryIsWhatTwoMembersHaveAndWhatComesBefore(t *testing.T) {
	path := func(h []commit) (paths []string) {
		for _, c := range h {
			for _, ch := range c.changes {
				paths = append(paths, ch.act+" "+ch.path)
			}
		}
		return paths
	}
	del := func(zxid int64) []byte { return txnOf(zxid, kindDelete, text32(fmt.Sprint("/", zxid))) }
	const epoch = int64(1) << 32
	a := logOf(t, del(1), del(2), del(3), del(4)) // 4 was never committed
	b := logOf(t, del(1), del(3), del(epoch+1))   // and this one fell behind
	c := logOf(t, del(epoch+1))
	history, err := readHistory([]string{a, b, c})
	if want := []string{"removed /1", "removed /2", "removed /3", fmt.Sprint("removed /", epoch+1)}; err != nil || !slices.Equal(path(history), want) {
		t.Errorf("%q, %v; want %q", path(history), err, want)
	}
}

func TestHistoryLeavesOutRefusedMultis(t *testing.T) {
	sub := func(kind int32, body []byte) []byte { return slices.Concat(be32(uint32(kind)), text32(string(body))) }
	good := txnOf(1, kindMulti, be32(2), sub(kindDelete, text32("/a")), sub(kindSet, slices.Concat(text32("/b"), text32("v"), be32(1))))
	bad := txnOf(2, kindMulti, be32(2), sub(kindDelete, text32("/a")), sub(kindError, be32(0)))
	end := txnOf(3, kindClose)
	dirs := []string{logOf(t, good, bad, end), logOf(t, good, bad, end)}
	history, err := readHistory(dirs)
	if err != nil || len(history) != 3 || len(history[1].changes) != 0 || !history[2].closes {
		t.Fatalf("%+v, %v", history, err)
	}
	if ch := history[0].changes; len(ch) != 2 || ch[0].act != removed || ch[0].path != "/a" || ch[1].act != written || string(ch[1].value) != "v" {
		t.Errorf("%+v", ch)
	}
	if history[0].session != 7 || history[0].time.UnixMilli() != 1000 {
		t.Errorf("%+v", history[0])
	}
}
