package testzk

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Link is one client's way to a cluster, by a proxy for each of its servers.
type Link struct {
	servers   []string
	addresses []string
	listeners []net.Listener
	wg        sync.WaitGroup

	mu       sync.Mutex
	changed  sync.Cond
	pairs    map[*pair]struct{}
	cut      bool
	requests bool // hold what goes to the servers
	replies  bool // hold what comes from them
	barred   bool // let no new connections come
	closed   bool
	dials    int
	session  []byte // the last connect response that named one
}

type pair struct{ client, server net.Conn }

func (p *pair) close() {
	p.client.Close()
	p.server.Close()
}

// NewLink listens until the test ends.
func NewLink(t testing.TB, servers ...string) *Link {
	t.Helper()
	l := &Link{servers: servers, pairs: make(map[*pair]struct{})}
	l.changed.L = &l.mu
	for _, server := range servers {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.listeners = append(l.listeners, listener)
		l.addresses = append(l.addresses, listener.Addr().String())
		l.wg.Go(func() { l.serve(listener, server) })
	}
	t.Cleanup(l.Close)
	return l
}

// Addresses are the proxies', one for each server.
func (l *Link) Addresses() []string { return l.addresses }

// Cut ends all connections and lets none come, until Heal.
func (l *Link) Cut() {
	l.set(func() { l.cut = true })
	l.Kill()
}

// HoldRequests keeps what the client sends, connections included, until Heal.
func (l *Link) HoldRequests() { l.set(func() { l.requests = true }) }

// HoldReplies keeps what the servers answer, until Heal.
func (l *Link) HoldReplies() { l.set(func() { l.replies = true }) }

// Heal lets everything pass again, first what was held.
func (l *Link) Heal() { l.set(func() { l.cut, l.requests, l.replies = false, false, false }) }

// Kill ends the connections that stand; what was held on them is lost.
func (l *Link) Kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.pairs {
		p.close()
	}
	clear(l.pairs)
	l.changed.Broadcast()
}

// Dials is how many connections the client has made so far.
func (l *Link) Dials() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dials
}

// Close ends the link and returns when nothing of it runs.
func (l *Link) Close() {
	l.set(func() { l.closed = true })
	for _, listener := range l.listeners {
		listener.Close()
	}
	l.Kill()
	l.wg.Wait()
}

func (l *Link) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.changed.Broadcast()
}

func (l *Link) serve(listener net.Listener, server string) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		l.wg.Go(func() { l.join(client, server) })
	}
}

func (l *Link) join(client net.Conn, server string) {
	l.mu.Lock()
	l.dials++
	cut := l.cut || l.barred || l.closed
	l.mu.Unlock()
	if cut {
		client.Close()
		return
	}
	c, err := net.Dial("tcp", server)
	if err != nil {
		client.Close()
		return
	}
	p := &pair{client, c}
	l.mu.Lock()
	if l.cut || l.barred || l.closed {
		l.mu.Unlock()
		p.close()
		return
	}
	l.pairs[p] = struct{}{}
	l.mu.Unlock()
	l.wg.Go(func() { l.copy(p, client, c, &l.replies, l.grant()) })
	l.copy(p, c, client, &l.requests, nil)
}

// grant looks at the first frame that a server sends for the session it grants.
func (l *Link) grant() func([]byte) {
	var frame []byte
	return func(b []byte) {
		const length = 4 + 4 + 4 + 8 + 4 + 16 // its own, version, timeout, session, password
		if len(frame) >= length {
			return
		}
		frame = append(frame, b...)
		if len(frame) >= length && binary.BigEndian.Uint64(frame[12:]) != 0 {
			l.set(func() { l.session = frame[8:length] })
		}
	}
}

// Expire has the service end the client's session, from another connection, and
// reports whether there was one.
func (l *Link) Expire() (bool, error) {
	l.mu.Lock()
	session := slices.Clone(l.session)
	l.session = nil
	l.barred = true // or the client might take its session back
	l.mu.Unlock()
	defer l.set(func() { l.barred = false })
	if session == nil {
		return false, nil
	}
	var errs []error
	for _, server := range l.servers {
		err := closeSession(server, session)
		if err == nil {
			return true, nil
		}
		errs = append(errs, err)
	}
	return false, errors.Join(errs...)
}

// closeSession takes a session over (timeout, id and password) and closes it.
func closeSession(server string, session []byte) error {
	c, err := net.DialTimeout("tcp", server, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(session)))
	b = append(b, make([]byte, 12)...) // version, last zxid seen
	b = append(b, session...)
	if _, err := c.Write(b); err != nil {
		return err
	}
	answer := make([]byte, 20)
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(answer[12:]) == 0 {
		return nil // it was over
	}
	if _, err := c.Write([]byte{0, 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xf5}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c) // until the server has closed it
	return err
}

// copy carries one direction until either side ends.
func (l *Link) copy(p *pair, to, from net.Conn, held *bool, see func([]byte)) {
	defer func() {
		l.mu.Lock()
		delete(l.pairs, p)
		l.changed.Broadcast()
		l.mu.Unlock()
		p.close()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && see != nil {
			see(buf[:n])
		}
		if n > 0 && l.pass(p, held) {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass waits while the direction is held, and reports whether p still stands.
func (l *Link) pass(p *pair, held *bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for *held {
		if _, stands := l.pairs[p]; !stands {
			return false
		}
		l.changed.Wait()
	}
	_, stands := l.pairs[p]
	return stands
}
