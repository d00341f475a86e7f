package testzk

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"

	"github.com/zkq/zkq/internal/testproxy"
)

// mesh is the links between members, each with a proxy for the two ports of the member it leads to.
type mesh struct {
	mu    sync.Mutex
	links map[way]*testproxy.Link
}

// way leads from the member that dials to the one that is dialled.
type way struct{ from, to int }

func newMesh(n int, quorum func(int) []string) (*mesh, error) {
	m := &mesh{links: make(map[way]*testproxy.Link)}
	m.mu.Lock()
	defer m.mu.Unlock()
	for from := range n {
		for to := range n {
			if from == to {
				continue
			}
			l, err := testproxy.New(func() testproxy.Protocol {
				return &greeting{back: func() string { return m.seen(to, from)[1] }}
			}, quorum(to)...)
			if err != nil {
				for _, l := range m.links {
					l.Close()
				}
				return nil, err
			}
			l.RetryDials(5 * time.Second) // a leader listens only a while after it was elected, on a busy machine
			m.links[way{from, to}] = l
		}
	}
	return m, nil
}

// seen is where one member finds another.
func (m *mesh) seen(by, of int) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.links[way{by, of}].Addresses()
}

func (m *mesh) close() {
	for _, l := range m.links {
		l.Close()
	}
}

// CutOff holds, until HealPeers, what the others send to a member and, unless it is only deaf, what it sends to them.
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

// HealPeers ends every CutOff.
func (c *Cluster) HealPeers() {
	for _, l := range c.mesh.links {
		l.Heal()
	}
}

// greeting is the first message on an election's connection, or another port's bytes. The member that dials says in it where
// it can be dialled, and is dialled there if its number is the smaller one: by the link that leads to it, therefore.
type greeting struct {
	back func() string // the address of that link
	said []byte
	over bool
}

func (g *greeting) Requests(b []byte, _ func([]byte) bool) []byte {
	if g.over {
		return b
	}
	g.said = append(g.said, b...)
	const head = 8 + 8 + 4 // version, number, length of the address
	version := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if n := min(len(version), len(g.said)); !bytes.Equal(g.said[:n], version[:n]) {
		return g.rest() // a follower's
	}
	if len(g.said) < head {
		return nil
	}
	n := head + int(binary.BigEndian.Uint32(g.said[16:]))
	if len(g.said) < n {
		return nil
	}
	back := g.back()
	out := binary.BigEndian.AppendUint32(g.said[:16:16], uint32(len(back)))
	out = append(out, back...)
	g.said = g.said[n:]
	return append(out, g.rest()...)
}

func (g *greeting) rest() []byte {
	g.over = true
	return g.said
}

func (g *greeting) Replies(b []byte, _ func() bool) ([]byte, bool) { return b, false }
func (g *greeting) Dialer() string                                 { return "" }
