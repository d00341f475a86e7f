package handle_test

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"testing"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/handle"
)

// lister is a session whose only directory holds names, and which records how it was asked.
type lister struct {
	coord.Session
	names  []string
	asked  []string
	failed error // of the second listing
}

func (s *lister) List(_ context.Context, dir string, o coord.ListOptions) (l coord.List, err error) {
	s.asked = append(s.asked, fmt.Sprintf("%s after %q, fresh %v", dir, o.After, o.Fresh))
	if s.failed != nil && len(s.asked) == 2 {
		return l, s.failed
	}
	for _, name := range s.names {
		if name <= o.After {
			continue
		}
		if l.More = len(l.Nodes) == o.Limit; l.More {
			break
		}
		l.Nodes = append(l.Nodes, coord.Node{Path: path.Join(dir, name)})
	}
	return l, nil
}

func TestPagesYieldsEachNodeOnceAndAsksForAFreshFirstPage(t *testing.T) {
	s := &lister{names: []string{"a", "b", "c", "d", "e"}}
	var got []string
	for page, err := range handle.Pages(t.Context(), s, "/q", coord.ListOptions{Limit: 2, Fresh: true}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range page {
			got = append(got, path.Base(n.Path))
		}
	}
	if !slices.Equal(got, s.names) {
		t.Errorf("yielded %q", got)
	}
	want := []string{`/q after "", fresh true`, `/q after "b", fresh false`, `/q after "d", fresh false`}
	if !slices.Equal(s.asked, want) {
		t.Errorf("asked %q, want %q", s.asked, want)
	}
}

func TestPagesEndsWithTheFirstError(t *testing.T) {
	s := &lister{names: []string{"a", "b", "c", "d", "e"}, failed: errors.New("failed")}
	var errs []error
	for _, err := range handle.Pages(t.Context(), s, "/q", coord.ListOptions{Limit: 2}) {
		errs = append(errs, err)
	}
	if len(errs) != 2 || errs[0] != nil || errs[1] != s.failed {
		t.Errorf("errors %v", errs)
	}
}
