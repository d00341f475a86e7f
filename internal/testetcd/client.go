package testetcd

import (
	"context"
	"strconv"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/zkq/zkq/coord"
)

// Client is a coordinator with the hooks of the conformance suite: those of its
// link, and Expire.
type Client struct {
	coord.Coordinator
	*Link
	admin *clientv3.Client

	mu sync.Mutex
	id string // of the session that it returned last
}

// NewClient returns c, whose connections go through l, with its hooks. The connections of
// admin do not go through l.
func NewClient(c coord.Coordinator, l *Link, admin *clientv3.Client) *Client {
	return &Client{Coordinator: c, Link: l, admin: admin}
}

// Session is that of the coordinator. The session is kept for Expire.
func (c *Client) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err == nil {
		c.mu.Lock()
		c.id = s.ID()
		c.mu.Unlock()
	}
	return s, err
}

// Expire revokes the lease of the session, and reports whether it had one.
func (c *Client) Expire() bool {
	c.mu.Lock()
	id, err := strconv.ParseInt(c.id, 16, 64)
	c.mu.Unlock()
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = c.admin.Revoke(ctx, clientv3.LeaseID(id))
	return err == nil
}
