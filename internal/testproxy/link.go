// Package testproxy is a network that tests can break: TCP proxies that hold, drop, delay and reset, in either
// direction, and that lose the answer to one request of many.
package testproxy

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Direction is one of the two in which bytes go.
type Direction int

const (
	Requests Direction = iota // from those who dial
	Replies                   // from the servers
)

// Link is one client's way to the servers of a service, by a proxy for each of them.
type Link struct {
	addresses []string
	listeners []net.Listener
	protocol  func() Protocol
	running   sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond
	wait    time.Duration
	pairs   map[*pair]struct{}
	dials   int
	cut     bool
	closed  bool
	ways    [2]way
	lose    int // answers
	of      func(request []byte) bool
	lost    int
	then    int // bytes of requests after which replies are held; 0: never
}

// way is what happens to the bytes of one direction. The zero value lets them pass.
type way struct {
	held  bool
	of    []string // dialers whose bytes are held
	drop  bool
	delay time.Duration
	cut   int // bytes after which the connection ends; 0: never
}

// New returns a link that listens until it is closed. A nil protocol carries any bytes, and cannot lose single answers.
func New(protocol func() Protocol, servers ...string) (*Link, error) {
	if protocol == nil {
		protocol = func() Protocol { return plain{} }
	}
	l := &Link{protocol: protocol, pairs: make(map[*pair]struct{})}
	l.changed.L = &l.mu
	for _, server := range servers {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			l.Close()
			return nil, err
		}
		l.listeners = append(l.listeners, listener)
		l.addresses = append(l.addresses, listener.Addr().String())
		l.running.Go(func() { l.serve(listener, server) })
	}
	return l, nil
}

// NewFor is New for a test, which closes the link.
func NewFor(t testing.TB, protocol func() Protocol, servers ...string) *Link {
	t.Helper()
	l, err := New(protocol, servers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// Addresses are the proxies', in the order of the servers.
func (l *Link) Addresses() []string { return l.addresses }

// Wait has new connections wait so long for a server that does not listen, instead of ending at once. A proxy cannot refuse a
// connection as a server's machine would: whoever takes that for "not yet" takes an end for something else.
func (l *Link) Wait(most time.Duration) { l.set(func() { l.wait = most }) }

// Dials is how many connections have been made so far.
func (l *Link) Dials() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dials
}

// Cut ends all connections, and each new one at once, until Heal.
func (l *Link) Cut() {
	l.set(func() { l.cut = true })
	l.Kill()
}

// Hold keeps the bytes of one direction until Heal. Nobody is told: connections stand, and new ones are accepted.
func (l *Link) Hold(d Direction) { l.set(func() { l.ways[d].held = true }) }

// HoldOf is Hold for the connections of one dialer, as the protocol names them.
func (l *Link) HoldOf(dialer string, d Direction) {
	l.set(func() { l.ways[d].of = append(l.ways[d].of, dialer) })
}

// HoldRequests keeps what the client sends until Heal.
func (l *Link) HoldRequests() { l.Hold(Requests) }

// HoldReplies keeps what the servers send until Heal.
func (l *Link) HoldReplies() { l.Hold(Replies) }

// HoldRepliesAfter keeps what the servers send once the client has sent n bytes from now on: the answer to a request
// that large is kept, and to none before it.
func (l *Link) HoldRepliesAfter(n int) { l.set(func() { l.then = n }) }

// Drop throws the bytes of one direction away until Heal, which ends the connections that lost some.
func (l *Link) Drop(d Direction) { l.set(func() { l.ways[d].drop = true }) }

// Delay lets bytes of one direction wait for at least that long, until Heal.
func (l *Link) Delay(d Direction, by time.Duration) { l.set(func() { l.ways[d].delay = by }) }

// CutAfter ends the connection on which the n-th byte from now passes in one direction, after that byte.
func (l *Link) CutAfter(d Direction, n int) { l.set(func() { l.ways[d].cut = n }) }

// Lose loses the answers to the next n transactions whose request is one of those meant; nil means all. The server has
// the request and answers it; then the connection ends, before the first byte of that answer.
func (l *Link) Lose(n int, of func(request []byte) bool) {
	l.set(func() { l.lose, l.of = n, of })
}

// Lost is how many answers Lose has lost so far.
func (l *Link) Lost() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// Heal lets everything pass again, first what was held.
func (l *Link) Heal() {
	l.set(func() {
		l.cut, l.ways, l.lose, l.then = false, [2]way{}, 0, 0
		for p := range l.pairs {
			if p.hurt {
				l.end(p)
			}
		}
	})
}

// Kill ends the connections that stand; what was held on them is lost.
func (l *Link) Kill() {
	l.set(func() {
		for p := range l.pairs {
			l.end(p)
		}
	})
}

// Reset is Kill with a reset instead of an orderly end.
func (l *Link) Reset() {
	l.set(func() {
		for p := range l.pairs {
			p.linger(0)
			l.end(p)
		}
	})
}

// Close ends the link and returns when nothing of it runs.
func (l *Link) Close() {
	l.set(func() { l.closed = true })
	for _, listener := range l.listeners {
		listener.Close()
	}
	l.Kill()
	l.running.Wait()
}

// Bar lets no new connections come, until the function returned is called.
func (l *Link) Bar() (open func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.cut
	l.cut = true
	return func() { l.set(func() { l.cut = was }) }
}

func (l *Link) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.changed.Broadcast()
}

// end needs mu.
func (l *Link) end(p *pair) {
	p.close()
	delete(l.pairs, p)
}

func (l *Link) serve(listener net.Listener, server string) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.carry(client, server) })
	}
}

// carry is the life of one connection.
func (l *Link) carry(client net.Conn, server string) {
	l.mu.Lock()
	l.dials++
	refused := l.cut || l.closed
	until := time.Now().Add(l.wait)
	l.mu.Unlock()
	if refused {
		client.Close()
		return
	}
	c, err := net.Dial("tcp", server)
	for err != nil && time.Now().Before(until) && !l.over() {
		time.Sleep(10 * time.Millisecond)
		c, err = net.Dial("tcp", server)
	}
	if err != nil {
		client.Close()
		return
	}
	p := &pair{client: client, server: c, protocol: l.protocol()}
	l.mu.Lock()
	if refused = l.cut || l.closed; !refused {
		l.pairs[p] = struct{}{}
	}
	l.mu.Unlock()
	if refused {
		p.close()
		return
	}
	l.running.Go(func() { l.pump(p, Replies) })
	l.pump(p, Requests)
}

func (l *Link) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut || l.closed
}

// meant says whether the answer to a transaction may be lost.
func (l *Link) meant(request []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lose > 0 && (l.of == nil || l.of(request))
}

// loses says whether an answer that was meant is lost, now that it is there.
func (l *Link) loses() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lose == 0 {
		return false
	}
	l.lose--
	l.lost++
	return true
}

// pump carries one direction, and ends both when it ends.
func (l *Link) pump(p *pair, d Direction) {
	defer l.set(func() { l.end(p) })
	from, to := p.client, p.server
	if d == Replies {
		from, to = to, from
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		b, lost := buf[:n], false
		if d == Requests {
			b = p.protocol.Requests(b, l.meant)
		} else {
			b, lost = p.protocol.Replies(b, l.loses)
		}
		b, last := l.pass(p, d, b)
		if len(b) > 0 {
			if _, err := to.Write(b); err != nil {
				return
			}
		}
		if lost || last {
			return
		}
	}
}

// pass waits as long as bytes must, and returns those that may go on. Last: the connection ends after them.
func (l *Link) pass(p *pair, d Direction, b []byte) (may []byte, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d == Requests && l.then > 0 {
		if l.then -= len(b); l.then <= 0 {
			l.then, l.ways[Replies].held = 0, true
		}
	}
	w := &l.ways[d]
	if by := w.delay; by > 0 {
		l.mu.Unlock()
		time.Sleep(by)
		l.mu.Lock()
	}
	stands := func() bool { _, s := l.pairs[p]; return s }
	for stands() && (w.held || slices.Contains(w.of, p.protocol.Dialer())) {
		l.changed.Wait()
	}
	switch {
	case !stands():
		return nil, true
	case w.drop:
		p.hurt = true
		return nil, false
	case w.cut > 0 && len(b) >= w.cut:
		b, w.cut = b[:w.cut], 0
		return b, true
	case w.cut > 0:
		w.cut -= len(b)
	}
	return b, false
}

// pair is a connection to a proxy, and the one that continues it.
type pair struct {
	client, server net.Conn
	protocol       Protocol
	hurt           bool // has lost bytes
}

func (p *pair) close() {
	p.client.Close()
	p.server.Close()
}

func (p *pair) linger(seconds int) {
	for _, c := range []net.Conn{p.client, p.server} {
		c.(*net.TCPConn).SetLinger(seconds)
	}
}
