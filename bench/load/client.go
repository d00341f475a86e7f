package load

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/zkq/zkq/coord"
)

// Client is a coordinator that counts.
type Client struct {
	coord.Coordinator

	Lost     atomic.Int64 // commits that were refused, because another client was first
	Pings    atomic.Int64 // heartbeats to ZooKeeper
	Listings atomic.Int64 // requests to ZooKeeper for a directory's children

	mu   sync.Mutex
	last *session
}

// session counts the commits that are refused.
type session struct {
	coord.Session
	client *Client
}

// Session returns the same session as long as it lives.
func (k *Client) Session(ctx context.Context) (coord.Session, error) {
	s, err := k.Coordinator.Session(ctx)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.last == nil || k.last.Session != s {
		k.last = &session{s, k}
	}
	return k.last, nil
}

func (s *session) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	r, err := s.Session.Commit(ctx, ops...)
	if errors.Is(err, coord.ErrVersion) || errors.Is(err, coord.ErrExist) || errors.Is(err, coord.ErrNotExist) {
		s.client.Lost.Add(1)
	}
	return r, err
}

// dial counts some of what is sent to ZooKeeper: each request is one write.
func (k *Client) dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &conn{c, k}, nil
}

type conn struct {
	net.Conn
	client *Client
}

func (c *conn) Write(b []byte) (int, error) {
	const ( // of the protocol: requests' types
		children  = 8
		children2 = 12
		ping      = 11
	)
	if len(b) >= 12 { // length, number, type
		switch binary.BigEndian.Uint32(b[8:]) {
		case ping:
			c.client.Pings.Add(1)
		case children, children2:
			c.client.Listings.Add(1)
		}
	}
	return c.Conn.Write(b)
}
