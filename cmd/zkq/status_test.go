package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStatusSaysWhatBecameOfEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &status{total: 10, begun: time.Now()}
		for _, outcome := range []string{
			outcomeDone, outcomeDone, outcomeDone, outcomeFailed, outcomeFailed, outcomeDead,
			outcomePutBack, outcomeReleased, outcomeLost, outcomeUnknown,
		} {
			s.start()
			time.Sleep(100 * time.Millisecond)
			s.finish(outcome)
		}
		s.start()
		if got, want := s.text(), "consume 3 of 10 done, 1 running, 2 failed, 1 dead, 2 put back, 2 lost, 10.0/s, 1s left"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

func TestStatusRateIsThatOfTheLastSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &status{begun: time.Now()}
		work := func(seconds, perSecond int) {
			for range seconds * perSecond {
				s.start()
				time.Sleep(time.Second / time.Duration(perSecond))
				s.finish(outcomeDone)
			}
		}
		is := func(least, most float64) {
			t.Helper()
			if got := s.rate(); got < least || got > most {
				t.Errorf("after %v the rate is %v, want %v to %v", time.Since(s.begun), got, least, most)
			}
		}
		is(0, 0)
		work(5, 20)
		is(19, 21)
		work(20, 50)
		is(48, 52)
		work(12, 2)
		is(1.8, 2.3)
		time.Sleep(11 * time.Second)
		is(0, 0)
		time.Sleep(time.Hour)
		work(1, 10)
		is(0.8, 1.2)
	})
}

// Elsewhere than on a terminal it is a line at times and at the end, on stderr alone.
func TestStatusOnDemandIsALine(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "q", "a", "b")
	got := s.expect(exitDone, "ab", "", "--progress", "always", "consume", "--drain", "q", "--", "cat")
	if !strings.HasPrefix(got.stderr, "consume 2 of 2 done, 0 running, ") || strings.Count(got.stderr, "\n") != 1 || strings.Contains(got.stderr, "\r") {
		t.Errorf("stderr %q", got.stderr)
	}
	if got := s.expect(exitDone, "", "", "--progress", "never", "consume", "--drain", "q", "--", "cat"); got.stderr != "" {
		t.Errorf("stderr %q", got.stderr)
	}
	var w bytes.Buffer
	st := &status{w: &w, begun: time.Now()}
	st.draw()
	st.draw()
	if strings.Count(w.String(), "\n") != 1 {
		t.Errorf("what did not change was shown twice: %q", w.String())
	}
}
