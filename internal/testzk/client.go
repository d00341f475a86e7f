package testzk

import (
	"testing"

	"github.com/zkq/zkq/coord"
)

// Client is a coordinator with the hooks of the conformance suite: those of its link, and
// Expire.
type Client struct {
	coord.Coordinator
	*Link
	t testing.TB
}

// NewClient returns c, whose connections go through l, with its hooks.
func NewClient(t testing.TB, c coord.Coordinator, l *Link) *Client {
	return &Client{Coordinator: c, Link: l, t: t}
}

// Expire has the service end the client's session, and reports whether it had one. An error
// fails the test.
func (c *Client) Expire() bool {
	had, err := c.Link.Expire()
	if err != nil {
		c.t.Errorf("expire: %v", err)
	}
	return had
}
