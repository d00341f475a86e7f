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

// addPeerProxy puts a proxy before the member's port for its peers.
func (m *Member) addPeerProxy() error {
	l, err := testproxy.New(func() testproxy.Protocol { return &peerProtocol{} }, strings.TrimPrefix(m.Peer, "http://"))
	if err != nil {
		return err
	}
	m.peers, m.Advertised = l, "http://"+l.Addresses()[0]
	return nil
}

// CutOff holds, until [Cluster.HealPeers], what the other members send to a member. Unless it is
// only deaf, what it sends to them is held, too. That is all of raft and the requests of the
// others. The member's own requests beside raft pass: it forwards the renewal of leases, for
// example.
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

// HealPeers ends every [Cluster.CutOff].
func (c *Cluster) HealPeers() {
	for _, m := range c.Members {
		m.peers.Heal()
	}
}

// peerProtocol follows a connection between members. It is HTTP; the first request names the
// member that made it.
type peerProtocol struct {
	mu     sync.Mutex
	head   []byte
	dialer string
}

const fromHeader = "X-Server-From: "

func (p *peerProtocol) Requests(b []byte, _ func([]byte) bool) []byte {
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

func (p *peerProtocol) Replies(b []byte, _ func() bool) ([]byte, bool) { return b, false }

func (p *peerProtocol) Dialer() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dialer
}
