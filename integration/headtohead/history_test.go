package headtohead

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
