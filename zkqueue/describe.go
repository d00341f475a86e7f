package zkqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

// describeTimeout is how long Describe waits for one server.
const describeTimeout = 2 * time.Second

// Describe implements [coord.Describer]. It sends each server the four-letter word srvr
// over a connection of its own, and blocks for a few seconds at most. A server that does
// not answer, or that has srvr switched off, is listed with an error.
func (c *Coordinator) Describe(ctx context.Context) (coord.Service, error) {
	if ctx == nil {
		return coord.Service{}, fmt.Errorf("describe: no context: %w", coord.ErrInvalid)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	parts := make([][]coord.Server, len(c.cfg.Servers))
	inUse := c.connectedServer()
	var asked sync.WaitGroup
	for i, address := range c.cfg.Servers {
		asked.Go(func() { parts[i] = c.describeAddress(ctx, address, inUse) })
	}
	asked.Wait()
	if c.ctx.Err() != nil {
		return coord.Service{}, coord.ErrClosed
	}
	if ctx.Err() != nil {
		return coord.Service{}, ctx.Err()
	}
	return coord.Service{Name: "ZooKeeper", Servers: slices.Concat(parts...)}, nil
}

// describeAddress asks each server that an address stands for.
func (c *Coordinator) describeAddress(ctx context.Context, address string, inUse server) []coord.Server {
	lookup, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	servers, err := c.cfg.resolveServers(lookup, address)
	if err != nil {
		return []coord.Server{{Address: address, Err: err}}
	}
	slices.SortFunc(servers, func(a, b server) int { return strings.Compare(a.dialAddress, b.dialAddress) })
	described := make([]coord.Server, len(servers))
	var asked sync.WaitGroup
	for i, s := range servers {
		asked.Go(func() {
			described[i] = c.describeServer(ctx, s)
			described[i].InUse = s == inUse
		})
	}
	asked.Wait()
	return described
}

// connectedServer returns the server that the session is connected to, or the zero value.
func (c *Coordinator) connectedServer() server {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s == nil {
		return server{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isConnected || s.conn == nil {
		return server{}
	}
	return s.conn.server
}

// describeServer asks one server for its version and mode.
func (c *Coordinator) describeServer(ctx context.Context, to server) coord.Server {
	server := coord.Server{Address: to.String()}
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	answer, err := c.fourLetterWord(ctx, to, "srvr")
	if err != nil {
		server.Err = err
		if ctx.Err() != nil {
			server.Err = errors.New("no answer in time")
		}
		return server
	}
	for line := range strings.Lines(answer) {
		if v, ok := strings.CutPrefix(line, "Zookeeper version: "); ok {
			server.Version, _, _ = strings.Cut(strings.TrimSpace(v), "-") // without the commit it was built from
			server.Version, _, _ = strings.Cut(server.Version, ",")
		}
		if v, ok := strings.CutPrefix(line, "Mode: "); ok {
			server.Mode = strings.TrimSpace(v)
		}
	}
	switch {
	case strings.Contains(answer, "whitelist"):
		server.Err = errors.New("version and mode are not known: srvr is not in the server's 4lw.commands.whitelist")
	case server.Mode == "":
		line, _, _ := strings.Cut(strings.TrimSpace(answer), "\n")
		server.Err = fmt.Errorf("not serving: %q", line)
	}
	return server
}

// fourLetterWord sends one of ZooKeeper's four-letter words and returns the answer.
func (c *Coordinator) fourLetterWord(ctx context.Context, to server, word string) (string, error) {
	nc, err := c.cfg.dialServer(ctx, to)
	if err != nil {
		return "", err
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	if _, err := io.WriteString(nc, word); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(io.LimitReader(nc, 64<<10))
	if len(answer) > 0 {
		err = nil // a server may end TLS without a close notify
	}
	return string(answer), err
}
