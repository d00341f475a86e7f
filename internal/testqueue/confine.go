package testqueue

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"strings"
	"sync"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/priority"
)

// confined is a coordinator that reports every commit, read and watch of a node outside its queues and the producers'
// lanes, and passes it on.
type confined struct {
	coord.Coordinator
	queues []string // "/jobs"
	report func(what string)

	mu      sync.Mutex
	session *confinedSession
}

// Confine returns c for a process that uses these queues and no others. It calls report for each request for a node
// that belongs to none of them.
func Confine(c coord.Coordinator, report func(what string), queues ...string) coord.Coordinator {
	roots := make([]string, len(queues))
	for i, q := range queues {
		roots[i] = "/" + strings.TrimPrefix(q, "/")
	}
	return &confined{Coordinator: c, queues: roots, report: report}
}

func (c *confined) Session(ctx context.Context) (coord.Session, error) {
	s, err := c.Coordinator.Session(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil || c.session.Session != s {
		c.session = &confinedSession{Session: s, c: c}
	}
	return c.session, nil
}

type confinedSession struct {
	coord.Session
	c *confined
}

func (s *confinedSession) check(act string, paths ...string) {
	for _, p := range paths {
		if !ownPath(p, s.c.queues) {
			s.c.report(fmt.Sprintf("%s of %q, which is no node of %v", act, p, s.c.queues))
		}
	}
}

func (s *confinedSession) Get(ctx context.Context, path string) (coord.Node, error) {
	s.check("get", path)
	return s.Session.Get(ctx, path)
}

func (s *confinedSession) Read(ctx context.Context, paths ...string) ([]coord.Node, error) {
	s.check("read", paths...)
	return s.Session.Read(ctx, paths...)
}

func (s *confinedSession) List(ctx context.Context, dir string, o coord.ListOptions) (coord.List, error) {
	s.check("list", dir)
	return s.Session.List(ctx, dir, o)
}

func (s *confinedSession) Count(ctx context.Context, dir string) (int, error) {
	s.check("count", dir)
	return s.Session.Count(ctx, dir)
}

func (s *confinedSession) Watch(ctx context.Context, dirs ...string) (<-chan struct{}, error) {
	s.check("watch", dirs...)
	return s.Session.Watch(ctx, dirs...)
}

func (s *confinedSession) Commit(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) {
	for _, op := range ops {
		s.check(op.Kind.String(), op.Path)
	}
	return s.Session.Commit(ctx, ops...)
}

// ownForms are the names of the nodes of a queue, by directory.
var ownForms = map[string]*regexp.Regexp{
	"entries":          regexp.MustCompile(`^entry-\d{3}-$`), // and those of whole entries
	"taken":            nil,
	"attempts":         nil,
	"delayed":          regexp.MustCompile(`^\d{13}-(entry|put)-[0-9a-f-]+$`),
	"dead":             regexp.MustCompile(`^\d{13}-entry-[0-9a-f-]+$`),
	"broken":           regexp.MustCompile(`^\d{13}-entry-[0-9a-f-]+$`),
	"workers":          regexp.MustCompile(`^[0-9a-f]{32}$`),
	"watchers":         regexp.MustCompile(`^([0-9a-f]{32}|call)$`),
	"unique":           regexp.MustCompile(`^[0-9a-f]{64}$`),
	"retained":         regexp.MustCompile(`^(head|labels)$`),
	"retained/entries": regexp.MustCompile(`^\d{19}-\d{13}-\d{13}$`),
	"retained/cursors": regexp.MustCompile(`^\d{19}$`),
}

var laneForm = regexp.MustCompile(`^/zkq/producers/[0-9a-f]{16}-\d{2}$`)

// ownPath reports whether handles of these queues may use a path.
func ownPath(p string, queues []string) bool {
	if path.Clean(p) != p {
		return false
	}
	if p == "/zkq/swept" || p == "/zkq/producers" || laneForm.MatchString(p) {
		return true
	}
	for _, q := range queues {
		rest, below := strings.CutPrefix(p, q+"/")
		if p == q {
			return true
		}
		if !below {
			continue
		}
		if _, dir := ownForms[rest]; dir || rest == "config" || rest == "count" {
			return true
		}
		dir, name := path.Split(rest)
		dir = strings.TrimSuffix(dir, "/")
		_, entry := priority.Parse(name)
		form, ours := ownForms[dir]
		switch {
		case dir == "": // of a plain queue
			if entry || ownForms["entries"].MatchString(name) {
				return true
			}
		case !ours:
		case form != nil && form.MatchString(name):
			return true
		case entry && (dir == "entries" || dir == "taken" || dir == "attempts"):
			return true
		}
	}
	return false
}
