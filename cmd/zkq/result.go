package main

import (
	"errors"
	"fmt"
	"strings"
)

// The outcomes of an attempt, as the job log shows them.
const (
	outcomeDone     = "done"
	outcomeFailed   = "failed"
	outcomeDead     = "dead"
	outcomePutBack  = "put_back"
	outcomeReleased = "released"
	outcomeLost     = "lost"
	outcomeUnknown  = "unknown"
)

// tally counts the entries by outcome.
type tally struct{ done, failed, dead, putBack, released, lost, unknown int }

func (t *tally) add(outcome string) {
	switch outcome {
	case outcomeDone:
		t.done++
	case outcomePutBack:
		t.putBack++
	case outcomeReleased:
		t.released++
	case outcomeLost:
		t.lost++
	case outcomeUnknown:
		t.unknown++
	case outcomeFailed:
		t.failed++
	case outcomeDead:
		t.dead++
	}
}

// String lists the counts, the worst outcome first. It omits zeros, except for done.
func (t tally) String() string {
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{t.lost, "lost their lock"}, {t.unknown, "may or may not be removed"}, {t.failed, "failed"}, {t.dead, "dead"}, {t.putBack, "put back"}, {t.released, "released"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(append(parts, fmt.Sprintf("%d done", t.done)), ", ")
}

// result returns the error of the whole run, and with it the exit code; nil if all
// entries are done. The first of these decides the code:
//
//   - the second signal
//   - an error that stopped the consumer, with its own code: but unreachable becomes
//     unknown if an outcome is unknown, and a lost lock replaces all but unreachable
//   - a lost lock
//   - an unknown outcome
//   - an entry that is not done
func (c *consumer) result() error {
	t := c.tally
	f := &failure{err: errors.New(t.String()), settled: true}
	switch {
	case c.signal != nil:
		f.code = c.signal.code()
		f.err = fmt.Errorf("%w: %w", c.signal, f.err)
	case c.fatal != nil:
		g := failureOf(c.fatal)
		f.code, f.hint = g.code, g.hint
		f.err = fmt.Errorf("%w (%w)", g.err, f.err)
		if f.code == exitUnreachable && t.unknown > 0 {
			f.code = exitUnknown // unreachable promises that nothing was changed
		}
		if t.lost > 0 && f.code != exitUnreachable {
			f.code = exitLockLost
		}
	case t.lost > 0:
		f.code = exitLockLost
	case t.unknown > 0:
		f.code = exitUnknown
	case t.failed+t.dead+t.putBack+t.released > 0:
		f.code = exitSome
	default:
		return nil
	}
	return c.describe(f)
}
