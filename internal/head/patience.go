package head

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// patience is the rule that keeps many processes from claiming one entry. A handle without an
// entry of its own leaves an entry of another member alone for a while. The members come to it
// one after the other, in the order of their ranks: the owner at once, the next after one grace,
// the two behind it after two graces, the four behind these after three. A grace is a few round
// trips of a claim, so the owner's claim is seen before the next member's turn.
//
// The time is bounded, so that an entry whose owner is slow, busy or dead is taken within a
// second of being ready (promise R13 of docs/guarantees.md).
type patience struct {
	roundTrip atomic.Int64         // of a claim, smoothed; 0: none was answered yet
	since     map[string]time.Time // when the entry of another member was first left alone
}

const (
	graceTrips   = 4                      // round trips in a grace
	firstGrace   = 20 * time.Millisecond  // before the first claim is answered
	minGrace     = time.Millisecond       // a signal may come later to one process than to another
	maxGrace     = 100 * time.Millisecond // of a slow service
	maxPatience  = 400 * time.Millisecond // for any rank
	maxRoundTrip = time.Second            // a longer one tells of a lost answer, and not of the service
)

// noteRoundTrip notes how long a choice and its claim took. It may be called by any goroutine.
func (p *patience) noteRoundTrip(d time.Duration) {
	d = min(d, maxRoundTrip)
	if last := time.Duration(p.roundTrip.Load()); last > 0 {
		d = last + (d-last)/4
	}
	p.roundTrip.Store(int64(max(d, 1)))
}

// lasts returns how long an entry is left alone by a member that so many members rank before.
func (p *patience) lasts(before int) time.Duration {
	grace := firstGrace
	if trip := time.Duration(p.roundTrip.Load()); trip > 0 {
		grace = min(max(graceTrips*trip, minGrace), maxGrace)
	}
	return min(grace*time.Duration(bits.Len(uint(before))), maxPatience)
}

// opensAt returns when this handle may take an entry of another member. ready is when the entry
// became ready at the latest, if it is left alone for the first time.
func (p *patience) opensAt(name string, before int, ready time.Time) time.Time {
	since, ok := p.since[name]
	if !ok {
		if p.since == nil {
			p.since = make(map[string]time.Time)
		}
		since = ready
		p.since[name] = since
	}
	return since.Add(p.lasts(before))
}

// reconcile forgets the entries that a listing does not show as free.
func (p *patience) reconcile(l *Listing) {
	for name := range p.since {
		if isFree, _ := l.find(name); !isFree {
			delete(p.since, name)
		}
	}
}
