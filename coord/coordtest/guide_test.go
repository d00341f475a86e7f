package coordtest_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// A holder that is cut off learns of its loss before another client can take its lock.
func TestAnotherWorkerTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := coordtest.NewStore()
		first, second := store.Open(coordtest.Options{}), store.Open(coordtest.Options{})
		defer first.Close()
		defer second.Close()
		holder, waiter := open(t, first), open(t, second)
		put(t, holder, coord.CreateEphemeral("/jobs/taken/1", nil))

		first.Cut()
		time.Sleep(holder.Timeout() - time.Second)
		select {
		case <-holder.Done():
		default:
			t.Error("the holder does not know yet")
		}
		if _, err := waiter.Commit(t.Context(), coord.CreateEphemeral("/jobs/taken/1", nil)); !errors.Is(err, coord.ErrExist) {
			t.Errorf("taken too early: %v", err)
		}
		time.Sleep(time.Second)
		put(t, waiter, coord.CreateEphemeral("/jobs/taken/1", nil))

		first.Heal()
		if _, err := holder.Commit(t.Context(), coord.Delete("/jobs/taken/1", 1)); !errors.Is(err, coord.ErrSessionLost) {
			t.Errorf("stale release: %v", err)
		}
	})
}
