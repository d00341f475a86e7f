package testetcd

import (
	"net"
	"sync"
	"testing"
)

// Link is one client's way to a cluster: a proxy for each member.
type Link struct {
	addresses []string
	listeners []net.Listener
	running   sync.WaitGroup

	mu     sync.Mutex
	change *sync.Cond // of what follows
	pairs  map[*pair]bool
	dials  int
	state  state
}

// state is what a link does with its connections. The zero value lets all pass.
type state struct {
	cut, closed       bool
	requests, replies bool // held
	then              int  // bytes of requests after which replies are held; 0: never
}

// pair is a client's connection and the one that continues it.
type pair struct{ client, server net.Conn }

func (p *pair) close() {
	p.client.Close()
	p.server.Close()
}

// NewLink returns a link that listens until the test ends.
func NewLink(t testing.TB, members ...string) *Link {
	t.Helper()
	l := &Link{pairs: make(map[*pair]bool)}
	l.change = sync.NewCond(&l.mu)
	t.Cleanup(l.close)
	for _, member := range members {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.listeners = append(l.listeners, listener)
		l.addresses = append(l.addresses, listener.Addr().String())
		l.running.Go(func() {
			for {
				client, err := listener.Accept()
				if err != nil {
					return
				}
				l.running.Go(func() { l.carry(client, member) })
			}
		})
	}
	return l
}

// Addresses are the proxies', in the order of the members.
func (l *Link) Addresses() []string { return l.addresses }

// Dials is the number of connections that the client has made.
func (l *Link) Dials() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dials
}

// Cut ends every connection, and each new one at once, until Heal.
func (l *Link) Cut() { l.set(func(s *state) { s.cut = true }) }

// HoldRequests keeps what the client sends until Heal.
func (l *Link) HoldRequests() { l.set(func(s *state) { s.requests = true }) }

// HoldReplies keeps what the members send until Heal.
func (l *Link) HoldReplies() { l.set(func(s *state) { s.replies = true }) }

// HoldRepliesAfter keeps what the members send once the client has sent n bytes
// from now on: the answer to a request that large is lost, and to none before it.
func (l *Link) HoldRepliesAfter(n int) { l.set(func(s *state) { s.then = n }) }

// Heal lets everything pass, first what was held.
func (l *Link) Heal() { l.set(func(s *state) { *s = state{closed: s.closed} }) }

func (l *Link) close() {
	l.set(func(s *state) { s.closed = true })
	for _, listener := range l.listeners {
		listener.Close()
	}
	l.running.Wait()
}

func (l *Link) set(f func(*state)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.state)
	if l.state.cut || l.state.closed {
		for p := range l.pairs {
			p.close()
			delete(l.pairs, p)
		}
	}
	l.change.Broadcast()
}

// carry is the life of one connection.
func (l *Link) carry(client net.Conn, member string) {
	server, err := net.Dial("tcp", member)
	if err != nil {
		client.Close()
		return
	}
	p := &pair{client, server}
	l.mu.Lock()
	l.dials++
	refused := l.state.cut || l.state.closed
	if !refused {
		l.pairs[p] = true
	}
	l.mu.Unlock()
	if refused {
		p.close()
		return
	}
	l.running.Go(func() { l.pump(p, client, server, &l.state.replies) })
	l.pump(p, server, client, &l.state.requests)
}

// pump carries one direction, and ends both when it ends.
func (l *Link) pump(p *pair, to, from net.Conn, held *bool) {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.pairs, p)
		p.close()
		l.change.Broadcast()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || !l.free(p, held, n) {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// free waits until a direction is not held, for n bytes to pass. False: the
// connection is over.
func (l *Link) free(p *pair, held *bool, n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := &l.state; held == &s.requests && s.then > 0 {
		s.then = max(s.then-n, 0)
		s.replies = s.replies || s.then == 0
	}
	for *held && l.pairs[p] {
		l.change.Wait()
	}
	return l.pairs[p]
}
