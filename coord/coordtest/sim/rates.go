package sim

import (
	"math/rand/v2"
	"time"
)

// Rates are the probabilities of faults, from 0 to 1. The zero value has no faults: only
// the order of steps is drawn.
type Rates struct {
	// Of each commit that arrives: it is lost on its way; it is applied and its answer
	// lost; its answer is lost and it is applied later; it is refused for now
	// ([coord.ErrBusy]).
	DropRequest, DropReply, Late, Busy float64

	// Of each request: it waits a while on its way, or its answer does.
	Delay, SlowReply float64

	// Of each step: a client loses its connection; a session ends at the service; the
	// service stops for a while; a client's process stands still for a while. To such
	// a process nothing is delivered, it sends nothing new, and its clock has jumped
	// when it goes on.
	Cut, Expire, Stop, Pause float64

	// Of each commit that [Simulator].Aim picks: its client is cut off as it arrives.
	Aimed float64

	// The longest cut, delay, stop and pause; 0: a session timeout and a half.
	Longest time.Duration

	// Of each signal: it comes up to 300 ms after the change, and so does what listings
	// with [coord.ListOptions].Seen show.
	Lag float64
}

// Swarm draws rates from a seed. A fault that is rare in one run is frequent or absent
// in another, so that many seeds look for more than one set of rates could.
func Swarm(seed uint64) Rates {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	draw := func(most float64) float64 {
		switch rng.IntN(3) {
		case 0:
			return 0
		case 1:
			return most * rng.Float64() / 10
		}
		return most * rng.Float64()
	}
	return Rates{
		DropRequest: draw(.1), DropReply: draw(.15), Late: draw(.1), Busy: draw(.1),
		Delay: draw(.3), SlowReply: draw(.4),
		Cut: draw(.03), Expire: draw(.01), Stop: draw(.002),
		Aimed:   draw(.2),
		Longest: []time.Duration{0, time.Second, 30 * time.Second}[rng.IntN(3)],
		Pause:   draw(.02),
		Lag:     draw(.4),
	}
}
