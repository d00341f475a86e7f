// Package testproxy is a network that tests can break. Its TCP proxies hold, drop, delay and
// reset connections, in either direction. With a [Protocol] they also lose the answer to one
// request among many.
package testproxy

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Direction is the direction in which bytes pass.
type Direction int

const (
	Requests Direction = iota // from the client
	Replies                   // from the server
)

// Link is one client's network connection to a service: a proxy for each server. Its
// methods may be called from several goroutines.
type Link struct {
	addresses []string
	listeners []net.Listener
	protocol  func() Protocol
	running   sync.WaitGroup

	mu               sync.Mutex
	changed          sync.Cond     // for bytes that are held
	dialPatience     time.Duration // see RetryDials
	connections      map[*connection]struct{}
	dials            int
	isCut            bool
	isClosed         bool
	directions       [2]directionFaults
	answersToLose    int
	isTarget         func(request []byte) bool // of answersToLose; nil: every request
	answersLost      int
	holdRepliesAfter int // bytes of requests after which replies are held; 0: never
}

// directionFaults is what happens to the bytes of one direction. The zero value lets them
// pass.
type directionFaults struct {
	isHeld      bool
	heldDialers []string // dialers whose bytes are held
	isDropped   bool
	delay       time.Duration
	cutAfter    int // bytes after which the connection ends; 0: never
}

// New returns a link that listens until it is closed. With a nil protocol the link carries
// any bytes and cannot lose single answers.
func New(protocol func() Protocol, servers ...string) (*Link, error) {
	if protocol == nil {
		protocol = func() Protocol { return opaque{} }
	}
	l := &Link{protocol: protocol, connections: make(map[*connection]struct{})}
	l.changed.L = &l.mu
	for _, server := range servers {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			l.Close()
			return nil, err
		}
		l.listeners = append(l.listeners, listener)
		l.addresses = append(l.addresses, listener.Addr().String())
		l.running.Go(func() { l.accept(listener, server) })
	}
	return l, nil
}

// NewFor is [New] for a test. The link is closed when the test ends.
func NewFor(t testing.TB, protocol func() Protocol, servers ...string) *Link {
	t.Helper()
	l, err := New(protocol, servers...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// Addresses returns the addresses of the proxies, in the order of the servers.
func (l *Link) Addresses() []string { return l.addresses }

// RetryDials lets the proxies dial a server that does not listen again for up to limit,
// instead of ending the client's connection at once. A proxy has accepted that connection
// already, so it cannot refuse it as the server's machine would; some clients treat the two
// differently.
func (l *Link) RetryDials(limit time.Duration) { l.update(func() { l.dialPatience = limit }) }

// Dials returns how many connections clients have made so far.
func (l *Link) Dials() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dials
}

// Cut ends all connections. Until Heal each new one is ended at once.
func (l *Link) Cut() {
	l.update(func() { l.isCut = true })
	l.Kill()
}

// Hold keeps the bytes of one direction until Heal. Neither end notices: connections stand,
// and new ones are accepted.
func (l *Link) Hold(d Direction) { l.update(func() { l.directions[d].isHeld = true }) }

// HoldDialer is [Link.Hold] for the connections of one dialer: see [Protocol].Dialer.
func (l *Link) HoldDialer(dialer string, d Direction) {
	l.update(func() { l.directions[d].heldDialers = append(l.directions[d].heldDialers, dialer) })
}

// HoldRequests keeps what the client sends until Heal.
func (l *Link) HoldRequests() { l.Hold(Requests) }

// HoldReplies keeps what the servers send until Heal.
func (l *Link) HoldReplies() { l.Hold(Replies) }

// HoldRepliesAfter keeps what the servers send after the client has sent n bytes from now on:
// the answer to a request of that size is held, and none before it.
func (l *Link) HoldRepliesAfter(n int) { l.update(func() { l.holdRepliesAfter = n }) }

// Drop drops the bytes of one direction until Heal. Heal ends the connections that lost bytes.
func (l *Link) Drop(d Direction) { l.update(func() { l.directions[d].isDropped = true }) }

// Delay delays the bytes of one direction by at least that long, until Heal.
func (l *Link) Delay(d Direction, by time.Duration) { l.update(func() { l.directions[d].delay = by }) }

// CutAfter ends one connection: the one on which the n-th byte from now passes in the
// direction. The byte still passes.
func (l *Link) CutAfter(d Direction, n int) { l.update(func() { l.directions[d].cutAfter = n }) }

// LoseAnswers loses the answers to the next n transactions for whose requests isTarget
// reports true; nil means all. The server gets the request and answers it; the connection
// ends before the first byte of that answer reaches the client.
func (l *Link) LoseAnswers(n int, isTarget func(request []byte) bool) {
	l.update(func() { l.answersToLose, l.isTarget = n, isTarget })
}

// AnswersLost returns how many answers were lost so far.
func (l *Link) AnswersLost() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answersLost
}

// Heal ends all faults. Held bytes pass first.
func (l *Link) Heal() {
	l.update(func() {
		l.isCut, l.directions, l.answersToLose, l.holdRepliesAfter = false, [2]directionFaults{}, 0, 0
		for p := range l.connections {
			if p.hasLostBytes {
				l.endLocked(p)
			}
		}
	})
}

// Kill ends the existing connections. Held bytes are lost.
func (l *Link) Kill() {
	l.update(func() {
		for p := range l.connections {
			l.endLocked(p)
		}
	})
}

// Reset is [Link.Kill] with a TCP reset instead of an orderly end.
func (l *Link) Reset() {
	l.update(func() {
		for p := range l.connections {
			p.setLinger(0)
			l.endLocked(p)
		}
	})
}

// Close ends the link and returns when all its goroutines have ended.
func (l *Link) Close() {
	l.update(func() { l.isClosed = true })
	for _, listener := range l.listeners {
		listener.Close()
	}
	l.Kill()
	l.running.Wait()
}

// BlockNew ends each new connection at once, until the returned function is called.
func (l *Link) BlockNew() (open func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.isCut
	l.isCut = true
	return func() { l.update(func() { l.isCut = before }) }
}

// update changes the faults, and wakes the goroutines whose bytes are held.
func (l *Link) update(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.changed.Broadcast()
}

// endLocked ends a connection.
func (l *Link) endLocked(p *connection) {
	p.close()
	delete(l.connections, p)
}

// accept accepts the connections of one proxy.
func (l *Link) accept(listener net.Listener, server string) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.carryConnection(client, server) })
	}
}

// carryConnection dials the server and carries the bytes of one connection until it ends.
func (l *Link) carryConnection(client net.Conn, server string) {
	l.mu.Lock()
	l.dials++
	refused := l.isCut || l.isClosed
	deadline := time.Now().Add(l.dialPatience)
	l.mu.Unlock()
	if refused {
		client.Close()
		return
	}
	c, err := net.Dial("tcp", server)
	for err != nil && time.Now().Before(deadline) && !l.isClosing() {
		time.Sleep(10 * time.Millisecond)
		c, err = net.Dial("tcp", server)
	}
	if err != nil {
		client.Close()
		return
	}
	p := &connection{client: client, server: c, protocol: l.protocol()}
	l.mu.Lock()
	if refused = l.isCut || l.isClosed; !refused {
		l.connections[p] = struct{}{}
	}
	l.mu.Unlock()
	if refused {
		p.close()
		return
	}
	l.running.Go(func() { l.forward(p, Replies) })
	l.forward(p, Requests)
}

func (l *Link) isClosing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isCut || l.isClosed
}

// isMeant reports whether the answer to a transaction is to be lost.
func (l *Link) isMeant(request []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answersToLose > 0 && (l.isTarget == nil || l.isTarget(request))
}

// takeLoss reports whether an answer that was to be lost is lost now that it has come. An
// earlier one may have been the last to lose.
func (l *Link) takeLoss() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answersToLose == 0 {
		return false
	}
	l.answersToLose--
	l.answersLost++
	return true
}

// forward carries the bytes of one direction. When it ends, the connection ends.
func (l *Link) forward(p *connection, d Direction) {
	defer l.update(func() { l.endLocked(p) })
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
		b, isLost := buf[:n], false
		if d == Requests {
			b = p.protocol.Requests(b, l.isMeant)
		} else {
			b, isLost = p.protocol.Replies(b, l.takeLoss)
		}
		b, isLast := l.awaitPassage(p, d, b)
		if len(b) > 0 {
			if _, err := to.Write(b); err != nil {
				return
			}
		}
		if isLost || isLast {
			return
		}
	}
}

// awaitPassage waits while bytes are held or delayed, and returns those that may pass. isLast
// means that the connection ends after them.
func (l *Link) awaitPassage(p *connection, d Direction, b []byte) (passing []byte, isLast bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d == Requests && l.holdRepliesAfter > 0 {
		if l.holdRepliesAfter -= len(b); l.holdRepliesAfter <= 0 {
			l.holdRepliesAfter, l.directions[Replies].isHeld = 0, true
		}
	}
	w := &l.directions[d]
	if by := w.delay; by > 0 {
		l.mu.Unlock()
		time.Sleep(by)
		l.mu.Lock()
	}
	stands := func() bool { _, found := l.connections[p]; return found }
	for stands() && (w.isHeld || slices.Contains(w.heldDialers, p.protocol.Dialer())) {
		l.changed.Wait()
	}
	switch {
	case !stands():
		return nil, true
	case w.isDropped:
		p.hasLostBytes = true
		return nil, false
	case w.cutAfter > 0 && len(b) >= w.cutAfter:
		b, w.cutAfter = b[:w.cutAfter], 0
		return b, true
	case w.cutAfter > 0:
		w.cutAfter -= len(b)
	}
	return b, false
}

// connection is a client's connection to a proxy, and the proxy's connection to the server.
type connection struct {
	client, server net.Conn
	protocol       Protocol
	hasLostBytes   bool
}

func (p *connection) close() {
	p.client.Close()
	p.server.Close()
}

func (p *connection) setLinger(seconds int) {
	for _, c := range []net.Conn{p.client, p.server} {
		c.(*net.TCPConn).SetLinger(seconds)
	}
}
