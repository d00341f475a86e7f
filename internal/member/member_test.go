package member

import (
	"context"
	"path"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

const dir = "/q/workers"

// client returns a client and its session.
func client(t *testing.T, store *coordtest.Store) (*coordtest.Coordinator, coord.Session) {
	t.Helper()
	c := store.Open(coordtest.Options{Timeout: 6 * time.Second})
	t.Cleanup(func() { c.Close() })
	s, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func list(t *testing.T, s coord.Session) []string {
	t.Helper()
	names, err := List(t.Context(), s, dir)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestAHandleIsAMemberInEachOfItsSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const me = "00000000000000000000000000000001"
		store := coordtest.NewStore()
		_, watcher := client(t, store)
		isClosed := false
		r := NewRegistry(path.Join(dir, me), func() bool { return isClosed })
		_, first := client(t, store)
		if r.RegisterAgain(t.Context(), first); r.IsRegistered(first) {
			t.Error("a handle that never registered is a member")
		}
		for range 2 {
			if err := r.Register(t.Context(), first); err != nil || !r.IsRegistered(first) {
				t.Fatalf("register: %v", err)
			}
		}
		if got := list(t, watcher); !slices.Equal(got, []string{me}) {
			t.Errorf("the members are %q", got)
		}
		// The service has not ended the first session when the handle has its second.
		_, second := client(t, store)
		if r.IsRegistered(second) {
			t.Error("the handle is a member in a session that it has not used")
		}
		if r.RegisterAgain(t.Context(), second); !r.IsRegistered(second) {
			t.Error("the handle is no member in its second session")
		}
		n, err := watcher.Get(t.Context(), path.Join(dir, me))
		if w, ok := Parse(n); err != nil || !ok || n.Owner != second.ID() || w.PID == 0 {
			t.Errorf("its node is %+v, %v", n, err)
		}
		r.Unregister(t.Context())
		if got := list(t, watcher); len(got) != 0 {
			t.Errorf("after the handle's end the members are %q", got)
		}
		isClosed = true
		if r.RegisterAgain(t.Context(), second); r.IsRegistered(second) {
			t.Error("a closed handle is a member again")
		}
	})
}

func TestOnlyNamesOfHoldersAreMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := client(t, coordtest.NewStore())
		const me = "0123456789abcdef0123456789abcdef"
		for _, name := range []string{me, "queue", me + "0", "0123456789ABCDEF0123456789ABCDEF"} {
			if _, err := s.Commit(context.Background(), coord.Create(path.Join(dir, name), nil)); err != nil {
				t.Fatal(err)
			}
		}
		if got := list(t, s); !slices.Equal(got, []string{me}) {
			t.Errorf("the members are %q", got)
		}
		n, err := s.Get(t.Context(), path.Join(dir, me))
		if _, ok := Parse(n); err != nil || ok {
			t.Errorf("a node that is not ephemeral is a member's: %+v, %v", n, err)
		}
	})
}
