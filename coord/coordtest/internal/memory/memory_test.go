package memory_test

import (
	"errors"
	"testing"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest/internal/memory"
)

// open returns a new client of the service, and a session of it.
func open(t *testing.T, service *memory.Service) (*memory.Client, coord.Session) {
	t.Helper()
	client := service.Open("", 0, coord.Limits{})
	t.Cleanup(func() { client.Close() })
	session, err := client.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return client, session
}

func TestCounterEndsAsZooKeepers(t *testing.T) {
	service := memory.New(false)
	_, session := open(t, service)
	service.SetCounter("/q", coord.LastNumber)
	r, err := session.Commit(t.Context(), coord.CreateSequential("/q/n-", nil))
	if err != nil || r[0].Path != "/q/n-2147483646" {
		t.Errorf("the last is %v, %v", r, err)
	}
	for range 2 {
		if _, err := session.Commit(t.Context(), coord.CreateSequential("/q/n-", nil)); !errors.Is(err, coord.ErrExhausted) {
			t.Errorf("past the end: %v, want ErrExhausted", err)
		}
	}
}

// A change before the watch is not signalled. Listings after the watch must show it,
// however far behind the client's server was.
func TestWatchShowsWhatCameBeforeIt(t *testing.T) {
	service := memory.New(false)
	lagging, session := open(t, service)
	_, other := open(t, service)
	lagging.Lag()
	if _, err := other.Commit(t.Context(), coord.Create("/q/a", nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Watch(t.Context(), "/q"); err != nil {
		t.Fatal(err)
	}
	l, err := session.List(t.Context(), "/q", coord.ListOptions{})
	if err != nil || len(l.Nodes) != 1 {
		t.Errorf("list: %v, %v", l.Nodes, err)
	}
}
