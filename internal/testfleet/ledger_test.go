package testfleet

import (
	"slices"
	"testing"
	"time"
)

// A checker that never fails proves nothing.
func TestLedgerNoticesEachBreach(t *testing.T) {
	good := []journalRecord{
		{Act: actPutting, Value: "a"},
		{Act: actPut, Value: "a", Name: "1", Outcome: outcomeOK},
		{Act: actTook, Name: "1", Value: "a", Token: 5},
		{Act: actFinishing, Name: "1", Token: 5},
		{Act: actFinished, Name: "1", Token: 5, Outcome: outcomeOK},
	}
	for _, c := range []struct {
		name                    string
		records                 []journalRecord
		lost, duplicated, wrong int
	}{
		{"nothing wrong", nil, 0, 0, 0},
		{"lost", []journalRecord{{Act: actPutting, Value: "b"}, {Act: actPut, Value: "b", Name: "2", Outcome: outcomeOK}}, 1, 0, 0},
		{"put under a name that was not read", []journalRecord{{Act: actPut, Value: "a", Outcome: outcomeOK}}, 0, 0, 0},
		{"an unknown put is not there", []journalRecord{{Act: actPutting, Value: "b"}}, 0, 0, 0},
		{"put twice", []journalRecord{{Act: actTook, Name: "2", Value: "a", Token: 7}, {Act: actFinished, Name: "2", Token: 7, Outcome: outcomeOK}}, 0, 1, 0},
		{"finished twice", []journalRecord{{Act: actTook, Name: "1", Value: "a", Token: 4}, {Act: actFinished, Name: "1", Token: 4, Outcome: outcomeOK}}, 0, 1, 1},
		{"finished by an old holder", []journalRecord{{Act: actTook, Name: "1", Value: "a", Token: 6}}, 0, 0, 1},
		{"a second finish without an answer", []journalRecord{{Act: actTook, Name: "1", Value: "a", Token: 4}, {Act: actFinishing, Name: "1", Token: 4}}, 0, 0, 0},
		{"removed by a finish that said it removed nothing", []journalRecord{
			{Act: actPutting, Value: "b"},
			{Act: actPut, Value: "b", Name: "2", Outcome: outcomeOK},
			{Act: actTook, Name: "2", Value: "b", Token: 8},
			{Act: actFinished, Name: "2", Token: 8, Outcome: outcomeLost},
		}, 0, 0, 1},
		{"a refused put is there", []journalRecord{
			{Act: actPutting, Value: "b"},
			{Act: actPut, Value: "b", Outcome: outcomeRefused},
			{Act: actTook, Name: "2", Value: "b", Token: 8},
			{Act: actFinished, Name: "2", Token: 8, Outcome: outcomeOK},
		}, 0, 0, 1},
		{"handed out, never put", []journalRecord{{Act: actTook, Name: "2", Value: "c", Token: 8}, {Act: actFinished, Name: "2", Token: 8, Outcome: outcomeOK}}, 0, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := NewLedger()
			for _, r := range slices.Concat(good, c.records) {
				l.add("client", r)
			}
			if b := l.Balance(); len(b.Lost) != c.lost || len(b.Duplicated) != c.duplicated || len(b.Wrong) != c.wrong {
				t.Errorf("lost %v, duplicated %v, wrong %v; want %d, %d, %d of them", b.Lost, b.Duplicated, b.Wrong, c.lost, c.duplicated, c.wrong)
			}
		})
	}
}

func TestLedgerGapReachesFromTheFaultToTheEnd(t *testing.T) {
	l, start := NewLedger(), time.Unix(100, 0)
	for _, s := range []int{-1, 3, 4} {
		l.add("a", journalRecord{Act: actFinished, Name: "1", Outcome: outcomeOK, Time: start.Add(time.Duration(s) * time.Second).UnixNano()})
	}
	if g := l.LongestGap("a", start, start.Add(6*time.Second)); g != 3*time.Second {
		t.Errorf("gap %v, want 3 s", g)
	}
	if g := l.LongestGap("a", start, start.Add(10*time.Second)); g != 6*time.Second {
		t.Errorf("gap %v, want 6 s", g)
	}
	if g := l.LongestGap("nobody", start, start.Add(10*time.Second)); g != 10*time.Second {
		t.Errorf("gap %v, want 10 s", g)
	}
}
