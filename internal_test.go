package zkq

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/zkq/zkq/coord"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Remembered returns how many entries the handle remembers as held or removed, though a listing may still show them.
func Remembered(q *LockingQueue) int { return q.claimer.head.Suppressed.Len() }

// TestNextStepOfAFinish states the table of finishes and updates once more, in the order of
// the questions that a reader asks: what was answered, and what is in doubt.
func TestNextStepOfAFinish(t *testing.T) {
	for _, c := range []struct {
		what    string
		outcome outcome
		want    [doubtCount]step // nothing in doubt, this finish, another finish
	}{
		{"applied", outcomeApplied, [doubtCount]step{stepSucceed, stepSucceed, stepSucceed}},
		{"the entry has moved on: by an attempt in doubt, or the lock is lost", outcomeRefused, [doubtCount]step{stepLose, stepAskThis, stepAskAnother}},
		{"what goes with the entry has changed: read it again", outcomeExtraRefused, [doubtCount]step{stepAskExtra, stepAskExtra, stepAskExtra}},
		{"the entry is not held", outcomeNotHeld, [doubtCount]step{stepLose, stepLose, stepLose}},
		{"the session is over: an attempt in doubt may still be applied", outcomeSessionOver, [doubtCount]step{stepLose, stepRetry, stepRetry}},
		{"no answer", outcomeUnanswered, [doubtCount]step{stepRetry, stepRetry, stepRetry}},
		{"busy", outcomeBusy, [doubtCount]step{stepRetry, stepRetry, stepRetry}},
		{"too large, now and later", outcomeTooLarge, [doubtCount]step{stepKeep, stepKeep, stepKeep}},
		{"any other error says nothing of an attempt in doubt", outcomeFailed, [doubtCount]step{stepKeep, stepRetry, stepRetry}},
	} {
		if got := nextStep[c.outcome]; got != c.want {
			t.Errorf("%s: the steps are %v, want %v", c.what, got, c.want)
		}
	}
	for outcome, steps := range nextStep {
		for doubt, step := range steps {
			if step == 0 {
				t.Errorf("there is no step for outcome %d and doubt %d", outcome, doubt)
			}
		}
	}
}

func TestOutcomeOfAnAttempt(t *testing.T) {
	refusal := func(index int) error {
		return fmt.Errorf("commit: %w", &coord.Refusal{Index: index, Err: coord.ErrVersion})
	}
	for _, c := range []struct {
		err  error
		want outcome
	}{
		{nil, outcomeApplied},
		{refusal(0), outcomeRefused},
		{refusal(1), outcomeRefused},
		{refusal(2), outcomeExtraRefused},
		{errUnavailable, outcomeNotHeld},
		{coord.ErrSessionLost, outcomeSessionOver},
		{fmt.Errorf("%w: %w", coord.ErrUnknown, coord.ErrSessionLost), outcomeUnanswered},
		{fmt.Errorf("%w: %w", coord.ErrUnknown, coord.ErrBusy), outcomeUnanswered},
		{coord.ErrBusy, outcomeBusy},
		{&coord.LimitError{What: "value", Unit: "bytes", Size: 2, Limit: 1}, outcomeTooLarge},
		{context.Canceled, outcomeFailed},
		{errors.New("another"), outcomeFailed},
	} {
		if got := outcomeOf(c.err); got != c.want {
			t.Errorf("%v is outcome %d, want %d", c.err, got, c.want)
		}
	}
}

func TestDoubtIsSeenByTheFinishThatIsMadeNow(t *testing.T) {
	var u unansweredFinishes
	if u.exists() || u.seenBy("consume") != doubtNone {
		t.Error("there is a doubt though nothing was sent")
	}
	u.note(finish{act: "consume", entry: coord.Delete("/e", 1)})
	u.note(finish{act: "consume", entry: coord.Delete("/e", 1)})
	if u.seenBy("consume") != doubtThis || u.seenBy("release") != doubtAnother || u.severalKinds || u.givesBack {
		t.Errorf("after two attempts to consume: %+v", u)
	}
	u.note(finish{act: "release", entry: coord.Check("/e", 1)})
	if u.seenBy("release") != doubtThis || u.seenBy("consume") != doubtAnother || !u.severalKinds || !u.givesBack {
		t.Errorf("after a release too: %+v", u)
	}
}

func TestErrorsOfAnExchangeAreTakenApart(t *testing.T) {
	a, b := &Held{}, &Held{}
	taking := errors.New("taking")
	for _, tt := range []struct {
		err  error
		a, b error
		rest error
	}{
		{nil, nil, nil, nil},
		{taking, nil, nil, taking},
		{&FinishError{Held: a, Err: ErrLockLost}, ErrLockLost, nil, nil},
		{errors.Join(&FinishError{Held: a, Err: ErrLockLost}, nil, &FinishError{Held: b, Err: ErrUnknown}), ErrLockLost, ErrUnknown, nil},
		{errors.Join(errors.Join(&FinishError{Held: b, Err: ErrUnknown}), taking), nil, ErrUnknown, taking},
		{fmt.Errorf("exchange: %w", errors.Join(&FinishError{Held: a, Err: ErrLockLost}, fmt.Errorf("%w: %w", taking, coord.ErrUnknown))), ErrLockLost, nil, taking},
	} {
		results := map[*Held]error{}
		rest := splitFinishErrors(tt.err, results)
		if results[a] != tt.a || results[b] != tt.b || !errors.Is(rest, tt.rest) || (rest == nil) != (tt.rest == nil) {
			t.Errorf("%v: a %v, b %v, and %v", tt.err, results[a], results[b], rest)
		}
	}
}
