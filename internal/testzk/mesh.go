package testzk

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"

	"github.com/zkq/zkq/internal/testproxy"
)

// mesh is the links between members. Each link has a proxy for the two peer ports of a member.
type mesh struct {
	mu    sync.Mutex
	links map[route]*testproxy.Link
}

// route is the direction of a link: from the member that dials to the one that is dialled.
type route struct{ from, to int }

func newMesh(n int, quorum func(int) []string) (*mesh, error) {
	m := &mesh{links: make(map[route]*testproxy.Link)}
	m.mu.Lock()
	defer m.mu.Unlock()
	for from := range n {
		for to := range n {
			if from == to {
				continue
			}
			l, err := testproxy.New(func() testproxy.Protocol {
				return &greeting{backAddress: func() string { return m.addressesFor(to, from)[1] }}
			}, quorum(to)...)
			if err != nil {
				for _, l := range m.links {
					l.Close()
				}
				return nil, err
			}
			l.RetryDials(5 * time.Second) // on a busy machine a new leader does not listen at once
			m.links[route{from, to}] = l
		}
	}
	return m, nil
}

// addressesFor returns the addresses at which one member finds another.
func (m *mesh) addressesFor(by, of int) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.links[route{by, of}].Addresses()
}

func (m *mesh) close() {
	for _, l := range m.links {
		l.Close()
	}
}

// CutOff holds, until [Cluster.HealPeers], what the other members send to a member. Unless it is
// only deaf, what it sends to them is held, too.
func (c *Cluster) CutOff(member *Member, deaf bool) {
	for w, l := range c.mesh.links {
		if w.from == member.number {
			l.Hold(testproxy.Replies)
		}
		if w.to == member.number {
			l.Hold(testproxy.Requests)
		}
		if w.from == member.number && !deaf {
			l.Hold(testproxy.Requests)
		}
		if w.to == member.number && !deaf {
			l.Hold(testproxy.Replies)
		}
	}
}

// HealPeers ends every [Cluster.CutOff].
func (c *Cluster) HealPeers() {
	for _, l := range c.mesh.links {
		l.Heal()
	}
}

// greeting rewrites the first message on an election's connection; other connections it passes
// unchanged. In that message the member that dials tells its own address, and is dialled there
// if its number is the smaller one. The address is replaced by that of the link to it.
type greeting struct {
	backAddress func() string // returns the address of that link
	pending     []byte
	isOver      bool
}

func (g *greeting) Requests(b []byte, _ func([]byte) bool) []byte {
	if g.isOver {
		return b
	}
	g.pending = append(g.pending, b...)
	const head = 8 + 8 + 4 // version, number, length of the address
	version := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if n := min(len(version), len(g.pending)); !bytes.Equal(g.pending[:n], version[:n]) {
		return g.passPending() // a follower's connection, not an election's
	}
	if len(g.pending) < head {
		return nil
	}
	n := head + int(binary.BigEndian.Uint32(g.pending[16:]))
	if len(g.pending) < n {
		return nil
	}
	back := g.backAddress()
	out := binary.BigEndian.AppendUint32(g.pending[:16:16], uint32(len(back)))
	out = append(out, back...)
	g.pending = g.pending[n:]
	return append(out, g.passPending()...)
}

func (g *greeting) passPending() []byte {
	g.isOver = true
	return g.pending
}

func (g *greeting) Replies(b []byte, _ func() bool) ([]byte, bool) { return b, false }
func (g *greeting) Dialer() string                                 { return "" }
