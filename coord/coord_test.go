package coord_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var limits = coord.Limits{ValueBytes: 100, CommitBytes: 1500, CommitOps: 6, Creates: 8}

func creates(n int) []coord.Op {
	return slices.Repeat([]coord.Op{coord.CreateSequential("/q/e-", nil)}, n)
}

func checks(n int) (ops []coord.Op) {
	for i := range n {
		ops = append(ops, coord.Check(fmt.Sprint("/c", i), 1))
	}
	return ops
}

func TestCheckOpsTakesWhatIsWithinTheLimits(t *testing.T) {
	for _, ops := range [][]coord.Op{
		nil,
		{coord.Create("/a", make([]byte, 100))},
		{coord.Touch("/a", nil, 1), coord.CreateEphemeral("/b", nil), coord.Delete("/c", 0)},
		creates(8),
		append(checks(coord.MaxBeside), creates(4)...),
		append([]coord.Op{coord.Set("/a", nil, 1), coord.Touch("/b", nil, 1), coord.Delete("/c", 1)}, creates(5)...),
	} {
		if err := coord.CheckOps(limits, ops); err != nil {
			t.Errorf("CheckOps(%v) = %v", ops, err)
		}
	}
}

func TestCheckOpsRefusesTheRestAndSaysWhy(t *testing.T) {
	for _, c := range []struct {
		ops  []coord.Op
		is   error
		says string
	}{
		{[]coord.Op{coord.Create("/a", make([]byte, 101))}, coord.ErrTooLarge, "101 bytes, the limit is 100"},
		{[]coord.Op{coord.Set("/a", nil, 1), coord.Delete("/a", 1)}, coord.ErrInvalid, "both name /a"},
		{checks(7), coord.ErrTooLarge, "7 ops, the limit is 6"},
		{append(creates(2), checks(coord.MaxBeside+1)...), coord.ErrTooLarge, "7 ops, the limit is 6"},
		{append(creates(6), coord.CreateEphemeral("/a", nil)), coord.ErrTooLarge, "7 ops, the limit is 6"},
		{append(creates(6), coord.Replace("/a", nil, 1)), coord.ErrTooLarge, "7 ops, the limit is 6"},
		{creates(9), coord.ErrTooLarge, "9 ops, the limit is 8"},
		{append(checks(1), creates(8)...), coord.ErrTooLarge, "9 ops, the limit is 8"},
		{slices.Repeat([]coord.Op{coord.CreateSequential("/q/e-", make([]byte, 100))}, 8), coord.ErrTooLarge, "the limit is 1500"},
		{[]coord.Op{{Path: "/a"}}, coord.ErrInvalid, "kind"},
		{[]coord.Op{{Kind: 99, Path: "/a"}}, coord.ErrInvalid, "kind 99"},
		{[]coord.Op{coord.Create("a", nil)}, coord.ErrInvalid, `"a"`},
		{[]coord.Op{coord.CreateSequential("/a/../b-", nil)}, coord.ErrInvalid, `".."`},
	} {
		err := coord.CheckOps(limits, c.ops)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("CheckOps(%v) = %v; want %v that says %q", c.ops, err, c.is, c.says)
		}
	}
}

func TestCheckPath(t *testing.T) {
	for _, good := range []string{"/a", "/a/b", "/a b", "/ü", "/a.b", "/...", "/日本", "/\uffef", "/" + strings.Repeat("a", coord.MaxPath-1)} {
		if err := coord.CheckPath(good); err != nil {
			t.Errorf("CheckPath(%q) = %v", good, err)
		}
	}
	for _, bad := range []string{"", "/", "a", "//", "/a/", "/a//b", "/.", "/a/..", "/a\x00", "/\n", "/\x7f", "/\u0080", "/\ue000", "/\uffff", "/\xff", "/📮", "/a/\U00010000", "/" + strings.Repeat("a", coord.MaxPath)} {
		if err := coord.CheckPath(bad); !errors.Is(err, coord.ErrInvalid) {
			t.Errorf("CheckPath(%q) = %v", bad, err)
		}
	}
	if err := coord.CheckDir("/"); err != nil {
		t.Errorf("CheckDir(/) = %v", err)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	store := coordtest.NewStore()
	c := store.Open(coordtest.Options{})
	defer c.Close()
	s, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Get(t.Context(), "/zkq/format")
	if err != nil || string(n.Value) != "1" {
		t.Fatalf("a session leaves format %q, %v", n.Value, err)
	}
	for _, v := range []string{"2", "", "x", "-1", "99999999999999999999"} {
		rs, err := s.Commit(t.Context(), coord.Set(n.Path, []byte(v), n.Fence))
		if err != nil {
			t.Fatal(err)
		}
		n.Fence = rs[0].Fence
		if err := coord.CheckFormat(t.Context(), s); !errors.Is(err, coord.ErrFormat) {
			t.Errorf("format %q: %v", v, err)
		}
		other := store.Open(coordtest.Options{})
		if _, err := other.Session(t.Context()); !errors.Is(err, coord.ErrFormat) {
			t.Errorf("session at format %q: %v", v, err)
		}
		other.Close()
	}
}

// A refused commit changes nothing and says which op was refused.
func Example() {
	c := coordtest.NewStore().Open(coordtest.Options{})
	defer c.Close()
	ctx := context.Background()
	s, _ := c.Session(ctx)
	rs, _ := s.Commit(ctx, coord.Create("/a", []byte("one")))
	s.Commit(ctx, coord.Set("/a", []byte("two"), rs[0].Fence))

	_, err := s.Commit(ctx, coord.Create("/b", nil), coord.Delete("/a", rs[0].Fence))
	var r *coord.Refusal
	fmt.Println(errors.As(err, &r), r.Index, errors.Is(err, coord.ErrVersion))
	n, _ := s.Get(ctx, "/a")
	fmt.Printf("%s %d\n", n.Value, n.Changes)
	// Output:
	// true 1 true
	// two 1
}

// unanswered is a session whose commits get no answer before the caller gives up.
type unanswered struct {
	coord.Session
	giveUp context.CancelFunc
}

func (s unanswered) Get(context.Context, string) (coord.Node, error) {
	return coord.Node{}, coord.ErrNotExist
}

func (s unanswered) Commit(context.Context, ...coord.Op) ([]coord.Result, error) {
	s.giveUp()
	return nil, coord.ErrUnknown
}

// To the caller an ErrUnknown would mean that what it wanted to commit is in doubt.
func TestFormatThatIsNotAnsweredIsNoDoubtOfTheCallers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := coord.CheckFormat(ctx, unanswered{giveUp: cancel})
	if !errors.Is(err, context.Canceled) || errors.Is(err, coord.ErrUnknown) {
		t.Errorf("CheckFormat: %v", err)
	}
}
