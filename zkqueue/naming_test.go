package zkqueue_test

import (
	"errors"
	"testing"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/zkqueue"
)

// TestTheCounterOfADirectoryIsTheServers compares the counter that the driver computes with
// the next name that the server gives, after creates of other kinds, deletes and refusals.
func TestTheCounterOfADirectoryIsTheServers(t *testing.T) {
	t.Parallel()
	cfg := zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)}
	s := session(t, open(t, cfg))
	next := func(want int64) {
		t.Helper()
		if n, err := zkqueue.Counter(s, within(t, patience), cfg.Chroot+"/q"); n != want || err != nil {
			t.Errorf("counter %d, %v; want %d", n, err, want)
		}
	}
	next(0)
	commit(t, s, coord.Create("/q/a", nil), coord.CreateSequential("/q/n-", nil))
	next(2)
	commit(t, s, coord.Delete("/q/a", 0), coord.Delete("/q/n-0000000001", 0))
	next(2)
	if _, err := s.Commit(within(t, patience), coord.Create("/q/b", nil), coord.Check("/q/a", 0)); !errors.Is(err, coord.ErrNotExist) {
		t.Fatal(err)
	}
	next(2)
	if r := commit(t, s, coord.CreateSequential("/q/n-", nil)); r[0].Path != "/q/n-0000000002" {
		t.Errorf("%s", r[0].Path)
	}
	zkqueue.SawNumber(s, cfg.Chroot+"/q", 2_100_000_000) // and is read again from then on
	if r := commit(t, s, coord.CreateSequential("/q/n-", nil)); r[0].Path != "/q/n-0000000003" {
		t.Errorf("%s", r[0].Path)
	}
}
