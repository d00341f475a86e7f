package head

import (
	"testing"
	"testing/synctest"
	"time"
)

// A handle that sleeps lists nothing. If it woke for the time at which it tries a claimed entry
// again, that time would stay in the past, and the handle would look without a pause.
func TestASleeperLooksAgainForDutiesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{Holder: "00000000000000000000000000000001"})
		h.Suppressed.Add("entry-100-0000000001", WasClaimed)
		h.Resting.Add("entry-100-0000000002", time.Second)
		if at, ok := h.nextLook(); !ok || time.Until(at) != keepClaimed {
			t.Errorf("awake, it looks again at %v, %t", at, ok)
		}
		time.Sleep(2 * time.Second)
		h.duty.isAsleep = true
		if at, ok := h.nextLook(); ok {
			t.Errorf("asleep, it looks again at %v", at)
		}
		h.duty.lookAt = time.Now().Add(time.Second)
		if at, ok := h.nextLook(); !ok || time.Until(at) != time.Second {
			t.Errorf("while a duty is vacant, it looks again at %v, %t", at, ok)
		}
	})
}
