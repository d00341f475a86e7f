package embedded_test

import (
	"errors"
	"flag"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
)

var births = flag.Int("births", 60, "how many stores TestStoreSurvivesAnEndDuringItsFirstStart makes, and ends half way")

// The first process of a store is killed, or asked to leave, at a random moment of the
// first start. The next process finds a store that works, with what was acknowledged.
func TestStoreSurvivesAnEndDuringItsFirstStart(t *testing.T) {
	n := *births
	if testing.Short() {
		n = min(n, 10)
	}
	began := time.Now()
	start(t, "create", newDir(t), "/x").all()
	usual := time.Since(began) // on this machine, now
	acknowledged, half := 0, 0
	for i := range n {
		dir := newDir(t)
		first := start(t, "create", dir, "/x")
		time.Sleep(time.Duration(rand.Float64() * 1.2 * float64(usual)))
		var said []string
		if i%3 == 0 {
			first.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			said = first.ended()
		} else {
			first.cmd.Process.Kill()
			said = first.ended()
		}
		wrote := false
		for _, line := range said {
			wrote = wrote || line == "created /x"
		}
		c, s := session(t, dir)
		if _, err := s.Get(t.Context(), "/x"); err != nil && (wrote || !errors.Is(err, coord.ErrNotExist)) {
			t.Errorf("acknowledged: %v; read: %v", wrote, err)
		}
		if wrote {
			acknowledged++
		} else {
			half++
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("a first start takes %v; of %d stores %d ended before and %d after the first node was acknowledged", usual, n, half, acknowledged)
}

// A process that is asked to leave while it starts a store leaves at once, whatever its
// connect timeout.
func TestFirstSignalEndsAStart(t *testing.T) {
	for range 5 {
		dir := newDir(t)
		p := start(t, "create", dir, "/x")
		time.Sleep(time.Duration(rand.Int64N(int64(60 * time.Millisecond))))
		p.cmd.Process.Signal(syscall.SIGTERM)
		began := time.Now()
		p.ended()
		if took := time.Since(began); took > patience/2 {
			t.Errorf("ended %v after the signal", took)
		}
	}
}

// Eight open files are too few for the store. The error says so, in time, and the
// store is whole afterwards.
func TestTooFewOpenFilesAreNamed(t *testing.T) {
	dir := newDir(t)
	for range 2 {
		p := start(t, "files", dir, "8")
		if why := p.expect("error"); !contains(why, "too many open files", "ulimit -n") {
			t.Errorf("said %q", why)
		}
	}
	c, _ := session(t, dir)
	c.Close()
}
