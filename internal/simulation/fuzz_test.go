package simulation

import (
	"testing"
	"time"

	"github.com/zkq/zkq/coord/coordtest/sim"
)

// FuzzSchedule searches for schedules by coverage, where TestSimulation draws them. The bytes say how often each fault
// happens and which of the drawn faults are left out. The checks are the same.
func FuzzSchedule(f *testing.F) {
	none, all := []byte(nil), []byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}
	for seed := range uint64(12) {
		one := make([]byte, 12)
		one[seed] = 255
		f.Add(seed, uint64(0), one, none)
		f.Add(seed, uint64(1), all, none)
		f.Add(seed, uint64(2), none, none)
		f.Add(seed, uint64(3), all, []byte{0x55, 0xaa, 0xff, 0, 0x0f})
	}
	f.Fuzz(func(t *testing.T, seed, twist uint64, often, spared []byte) {
		plan := newSimPlan(seed)
		plan.twist = twist
		plan.rates = ratesOf(often)
		for i := range 8 * min(len(spared), 1000) {
			if spared[i/8]>>(i%8)&1 == 1 {
				plan.spared[i] = true
			}
		}
		if r := simulate(t, plan); len(r.violations) > 0 {
			t.Fatalf("seed %d, twist %d, often %v, spared %x: %s", seed, twist, often, spared, r.report(true))
		}
	})
}

// ratesOf reads one byte for each rate. A missing byte is 0.
func ratesOf(b []byte) sim.Rates {
	next := func(most float64) float64 {
		if len(b) == 0 {
			return 0
		}
		r := most * float64(b[0]) / 255
		b = b[1:]
		return r
	}
	return sim.Rates{
		DropRequest: next(.15), DropReply: next(.2), Late: next(.15), Busy: next(.15),
		Delay: next(.4), SlowReply: next(.5),
		Cut: next(.04), Expire: next(.015), Stop: next(.003), Pause: next(.03),
		Aimed:   next(.3),
		Longest: time.Duration(next(30)*1000) * time.Millisecond,
		Lag:     next(.4),
	}
}
