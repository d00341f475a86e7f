package head

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAListingEndsTheSuppressionsThatItKnowsOf(t *testing.T) {
	free := Listing{Names: []string{"e"}, IsComplete: true}
	gone := Listing{IsComplete: true}
	locked := Listing{IsComplete: true, locks: map[string]bool{"e": true}}
	short := Listing{Names: []string{"a"}, last: "a"}
	for name, c := range map[string]struct {
		why     Reason
		listing Listing
		isAfter bool // the listing was made after the suppression
		isFresh bool
		wait    time.Duration
		ends    bool
	}{
		"removed and still shown":               {WasRemoved, free, true, true, time.Hour, false},
		"removed, and its lock is shown":        {WasRemoved, locked, true, true, 0, false},
		"removed and gone":                      {WasRemoved, gone, true, false, 0, true},
		"removed, behind what was listed":       {WasRemoved, short, true, false, 0, false},
		"claimed before the listing":            {WasClaimed, free, true, false, 0, true},
		"claimed since, and shown as free":      {WasClaimed, free, false, false, 0, false},
		"claimed since, and shown as locked":    {WasClaimed, locked, false, false, 0, true},
		"claimed since, for long":               {WasClaimed, free, false, false, keepClaimed, true},
		"lost, and an old listing shows it":     {WasLost, free, true, false, 0, false},
		"lost, and a fresh listing shows it":    {WasLost, free, true, true, 0, true},
		"lost, and an old listing shows it not": {WasLost, locked, true, false, 0, true},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{}).Suppressed
				before := s.lastNumber()
				s.Add("e", c.why)
				if c.isAfter {
					before = s.lastNumber()
				}
				time.Sleep(c.wait)
				s.reconcile(&c.listing, before, c.isFresh)
				if ends := !s.hasLocked("e"); ends != c.ends {
					t.Errorf("the suppression ends: %v, want %v", ends, c.ends)
				}
			})
		})
	}
}

func TestOldSuppressionsAreForgottenWithoutAListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{}).Suppressed
		for i := range 10 * pruneFrom {
			s.Add(strings.Repeat("e", i%7+1)+time.Duration(i).String(), WasRemoved)
			time.Sleep(maxAge / pruneFrom)
		}
		if n := s.Len(); n > 3*pruneFrom {
			t.Errorf("%d entries are suppressed", n)
		}
	})
}

func TestEntriesRestAsLongAsTheyWereTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewResting()
		r.Add("long", time.Minute)
		r.Add("short", time.Second)
		if at, ok := r.next(); !ok || time.Until(at) != time.Second || r.Len() != 2 {
			t.Errorf("the next rest ends at %v (%v), and %d rest", at, ok, r.Len())
		}
		time.Sleep(time.Second)
		if r.Has("short") || !r.Has("long") || r.Len() != 1 {
			t.Errorf("after a second these rest: %v", slices.Sorted(maps.Keys(r.until)))
		}
		if !r.prune() || r.prune() {
			t.Error("an entry whose rest is over is not told once")
		}
		<-r.changed
		r.Remove("long")
		if len(r.changed) != 1 || r.Len() != 0 {
			t.Error("the end of a rest wakes no take")
		}
	})
}
