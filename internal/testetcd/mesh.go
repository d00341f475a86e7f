package testetcd

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zkq/zkq/internal/testproxy"
)

// link puts a proxy before the member's port for its peers.
func (m *Member) link() error {
	l, err := testproxy.New(func() testproxy.Protocol { return &peerTalk{} }, strings.TrimPrefix(m.Peer, "http://"))
	if err != nil {
		return err
	}
	m.peers, m.Seen = l, "http://"+l.Addresses()[0]
	return nil
}

// CutOff holds, until HealPeers, what the others send to a member and, unless it is only deaf, what it sends to them: all of
// raft, and what they ask it for. What it asks of them beside raft (the renewal of a lease that its own client sent) passes.
func (c *Cluster) CutOff(ctx context.Context, client *clientv3.Client, member *Member, deaf bool) error {
	status, err := client.Status(ctx, member.Client)
	if err != nil {
		return err
	}
	id := strconv.FormatUint(status.Header.MemberId, 16)
	for _, m := range c.Members {
		if m == member {
			m.peers.Hold(testproxy.Requests)
			if !deaf {
				m.peers.Hold(testproxy.Replies)
			}
			continue
		}
		m.peers.HoldDialer(id, testproxy.Replies)
		if !deaf {
			m.peers.HoldDialer(id, testproxy.Requests)
		}
	}
	return nil
}

// HealPeers ends every CutOff.
func (c *Cluster) HealPeers() {
	for _, m := range c.Members {
		m.peers.Heal()
	}
}

// peerTalk is a connection between members: HTTP, whose first request names the member that made it.
type peerTalk struct {
	mu     sync.Mutex
	head   []byte
	dialer string
}

const fromHeader = "X-Server-From: "

func (p *peerTalk) Requests(b []byte, _ func([]byte) bool) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.head = append(p.head, b[:min(len(b), 4096)]...); len(p.head) > 8192 || p.dialer != "" {
		p.head = nil
		return b
	}
	if _, rest, found := bytes.Cut(p.head, []byte(fromHeader)); found {
		if id, _, whole := bytes.Cut(rest, []byte("\r\n")); whole {
			p.dialer = string(id)
		}
	}
	return b
}

func (p *peerTalk) Replies(b []byte, _ func() bool) ([]byte, bool) { return b, false }

func (p *peerTalk) Dialer() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dialer
}
