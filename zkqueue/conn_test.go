package zkqueue_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/zkqueue"
)

// changing returns cfg with servers whose answers pass through change.
func changing(cfg zkqueue.Config, change func(request, answer []byte) []byte) zkqueue.Config {
	dial := dialOf(cfg)
	cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
		c, err := dial(ctx, address)
		return &replyConn{Conn: c, change: change, requests: make(map[int32][]byte)}, err
	}
	return cfg
}

type replyConn struct {
	net.Conn
	change func(request, answer []byte) []byte
	begun  bool // the connect response was read
	ready  []byte

	mu       sync.Mutex
	asked    bool
	requests map[int32][]byte
}

func (c *replyConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.asked {
		c.requests[int32(binary.BigEndian.Uint32(p[4:]))] = bytes.Clone(p[4:])
	}
	c.asked = true
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func (c *replyConn) Read(p []byte) (int, error) {
	if len(c.ready) == 0 {
		head := make([]byte, 4)
		if _, err := io.ReadFull(c.Conn, head); err != nil {
			return 0, err
		}
		body := make([]byte, binary.BigEndian.Uint32(head))
		if _, err := io.ReadFull(c.Conn, body); err != nil {
			return 0, err
		}
		if c.begun {
			c.mu.Lock()
			request := c.requests[int32(binary.BigEndian.Uint32(body))]
			c.mu.Unlock()
			if request != nil {
				body = c.change(request, body)
			}
		}
		c.begun = true
		c.ready = append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	}
	n := copy(p, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// TestAnAnswerCutShortIsUnknown cuts the answers to applied and to refused commits at every
// byte: the error may never promise that nothing was applied.
func TestAnAnswerCutShortIsUnknown(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	at, whole := -1, 0 // where the next answer to a commit is cut, and how long it was
	cfg := changing(zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)}, func(request, answer []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		if at < 0 || binary.BigEndian.Uint32(request[4:]) != opMulti || !bytes.Contains(request, []byte("/q/cut")) {
			return answer
		}
		whole = len(answer)
		answer, at = answer[:min(at, whole)], -1
		return answer
	})
	s := session(t, open(t, cfg))
	commit(t, s, coord.Create("/q/set", nil))
	const header = 16
	for _, applied := range []bool{true, false} {
		mu.Lock()
		whole = header + 1
		mu.Unlock()
		for cut := header; cut < whole; cut++ {
			mu.Lock()
			at = cut
			mu.Unlock()
			path := fmt.Sprintf("/q/cut%d", cut)
			ops := []coord.Op{coord.Create(path, nil), coord.Set("/q/set", nil, coord.Fence(cut-header)), coord.CreateSequential("/q/s-", nil), coord.Check("/q", 0)}
			_, err := s.Commit(within(t, patience), ops...)
			if !errors.Is(err, coord.ErrUnknown) || errors.Is(err, coord.ErrTooLarge) {
				t.Errorf("applied %v, cut at %d of %d: %v, want ErrUnknown", applied, cut, whole, err)
			}
			if _, err := s.Get(within(t, patience), path); err != nil {
				t.Errorf("cut at %d: %v", cut, err)
			}
		}
	}
}

// TestAReadWhoseAnswerIsCutShortIsMadeAgain cuts one answer to each kind of read.
func TestAReadWhoseAnswerIsCutShortIsMadeAgain(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	cuts := make(map[uint32]int)
	cfg := changing(zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)}, func(request, answer []byte) []byte {
		mu.Lock()
		defer mu.Unlock()
		op := binary.BigEndian.Uint32(request[4:])
		if cuts[op] > 0 || !strings.Contains(string(request), "/q") || op != opGetData && op != opGetChildren && op != opMultiRead || len(answer) < 30 {
			return answer
		}
		cuts[op]++
		return answer[:len(answer)-10]
	})
	s := session(t, open(t, cfg))
	commit(t, s, coord.Create("/q/a", []byte("1")), coord.Create("/q/b", []byte("2")))
	if n, err := s.Get(within(t, patience), "/q/a"); err != nil || string(n.Value) != "1" {
		t.Errorf("get: %q, %v", n.Value, err)
	}
	if got := names(t, s, "/q", coord.ListOptions{Fresh: true}); len(got) != 2 {
		t.Errorf("list: %q", got)
	}
	if n, err := s.Read(within(t, patience), "/q/a", "/q/b"); err != nil || len(n) != 2 || string(n[1].Value) != "2" {
		t.Errorf("read: %v, %v", n, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if cuts[opGetData] == 0 || cuts[opGetChildren] == 0 {
		t.Errorf("cut were %v", cuts)
	}
}
