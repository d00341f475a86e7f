package zkqueue

import (
	"context"
	"fmt"
	"strings"

	"github.com/zkq/zkq/coord"
)

// List returns the direct children of dir; see [coord.Session]. For a watched directory it
// answers from memory where it can.
func (s *session) List(ctx context.Context, dir string, o coord.ListOptions) (coord.List, error) {
	if err := coord.CheckList(dir, o); err != nil {
		return coord.List{}, fmt.Errorf("list: %w", err)
	}
	if ctx == nil {
		return coord.List{}, fmt.Errorf("list %s: no context: %w", dir, coord.ErrInvalid)
	}
	p := page{limit: o.Limit, fresh: o.Fresh || o.Born != 0}
	if o.Values {
		p.limit = 0 // nodes that are deleted meanwhile make room for others
	}
	if o.After != "" {
		p.after = strings.TrimSuffix(dir, "/") + "/" + o.After
	}
	err := ctx.Err()
	if err == nil {
		err = s.cache.list(ctx, dir, &p)
	}
	var l coord.List
	switch {
	case err != nil:
	case o.Born != 0:
		l, err = s.listCreated(ctx, p.paths, o)
	case o.Values:
		l, err = s.listValues(ctx, p.paths, o)
	default:
		l.Nodes, l.More = make([]coord.Node, len(p.paths)), p.more
		for i, path := range p.paths {
			l.Nodes[i].Path = path
		}
	}
	if err != nil {
		return coord.List{}, fmt.Errorf("list %s: %w", dir, err)
	}
	if !l.More && o.After == "" && o.Born == 0 {
		l.Stamp = p.stamp
	}
	return l, nil
}

// listValues reads the nodes at paths until it has as many as o asks for.
func (s *session) listValues(ctx context.Context, paths []string, o coord.ListOptions) (coord.List, error) {
	limit := len(paths)
	if o.Limit > 0 {
		limit = min(limit, o.Limit)
	}
	var l coord.List
	for len(paths) > 0 && len(l.Nodes) < limit {
		n := min(limit-len(l.Nodes), len(paths))
		nodes, err := s.readValues(ctx, paths[:n])
		if err != nil {
			return coord.List{}, err
		}
		l.Nodes = append(l.Nodes, nodes...)
		paths = paths[n:]
	}
	l.More = len(paths) > 0
	return l, nil
}

// readValues reads the nodes at paths and keeps their order. It leaves out nodes that do
// not exist and nodes that are only directories.
func (s *session) readValues(ctx context.Context, paths []string) ([]coord.Node, error) {
	found, err := s.readNodes(ctx, paths)
	if err != nil {
		return nil, err
	}
	nodes := make([]coord.Node, 0, len(paths))
	for i, d := range found {
		if d == nil || len(d.value) == 0 && d.stat.NumChildren > 0 {
			continue
		}
		nodes = append(nodes, d.node(paths[i]))
	}
	return nodes, nil
}
