package zkqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
)

// describeTimeout is how long a server may take to tell of itself.
const describeTimeout = 2 * time.Second

// Describe implements [coord.Describer]. It sends each server the word srvr, which
// ZooKeeper answers unless somebody forbade it.
func (c *Coordinator) Describe(ctx context.Context) (coord.Service, error) {
	if ctx == nil {
		return coord.Service{}, fmt.Errorf("describe: no context: %w", coord.ErrInvalid)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.quit, cancel)()
	servers := make([]coord.Server, len(c.cfg.Servers))
	var asked sync.WaitGroup
	for i, address := range c.cfg.Servers {
		asked.Go(func() { servers[i] = c.describe(ctx, address) })
	}
	asked.Wait()
	if c.quit.Err() != nil {
		return coord.Service{}, coord.ErrClosed
	}
	if ctx.Err() != nil {
		return coord.Service{}, ctx.Err()
	}
	inUse := c.address()
	for i := range servers {
		servers[i].InUse = servers[i].Address == inUse
	}
	return coord.Service{Name: "ZooKeeper", Servers: servers}, nil
}

// address is the server to which the session is connected, "" while it is not.
func (c *Coordinator) address() string {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.isUp || s.conn == nil {
		return ""
	}
	return s.conn.address
}

func (c *Coordinator) describe(ctx context.Context, address string) coord.Server {
	server := coord.Server{Address: address}
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	answer, err := c.ask(ctx, address, "srvr")
	if err != nil {
		server.Err = err
		if ctx.Err() != nil {
			server.Err = errors.New("no answer in time")
		}
		return server
	}
	for line := range strings.Lines(answer) {
		if v, ok := strings.CutPrefix(line, "Zookeeper version: "); ok {
			server.Version, _, _ = strings.Cut(strings.TrimSpace(v), "-") // what it was built from
			server.Version, _, _ = strings.Cut(server.Version, ",")
		}
		if v, ok := strings.CutPrefix(line, "Mode: "); ok {
			server.Mode = strings.TrimSpace(v)
		}
	}
	switch {
	case strings.Contains(answer, "whitelist"):
		server.Err = errors.New("it tells neither version nor mode: srvr is not in its 4lw.commands.whitelist")
	case server.Mode == "":
		line, _, _ := strings.Cut(strings.TrimSpace(answer), "\n")
		server.Err = fmt.Errorf("it does not serve: %q", line)
	}
	return server
}

// ask sends a four letter word by a connection of its own.
func (c *Coordinator) ask(ctx context.Context, address, word string) (string, error) {
	nc, err := c.cfg.connect(ctx, address)
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
		err = nil // TLS may end without its last word
	}
	return string(answer), err
}
