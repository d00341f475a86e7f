package testfleet

import (
	"slices"
	"testing"
	"time"
)

// A checker that never fails proves nothing.
func TestLedgerNoticesEachBreach(t *testing.T) {
	good := []record{
		{Act: putting, Value: "a"},
		{Act: put, Value: "a", Name: "1", Outcome: ok},
		{Act: took, Name: "1", Value: "a", Token: 5},
		{Act: finishing, Name: "1", Token: 5},
		{Act: finished, Name: "1", Token: 5, Outcome: ok},
	}
	for _, c := range []struct {
		name                    string
		records                 []record
		lost, duplicated, wrong int
	}{
		{"nothing wrong", nil, 0, 0, 0},
		{"lost", []record{{Act: putting, Value: "b"}, {Act: put, Value: "b", Name: "2", Outcome: ok}}, 1, 0, 0},
		{"put under a name that was not read", []record{{Act: put, Value: "a", Outcome: ok}}, 0, 0, 0},
		{"an unknown put is not there", []record{{Act: putting, Value: "b"}}, 0, 0, 0},
		{"put twice", []record{{Act: took, Name: "2", Value: "a", Token: 7}, {Act: finished, Name: "2", Token: 7, Outcome: ok}}, 0, 1, 0},
		{"finished twice", []record{{Act: took, Name: "1", Value: "a", Token: 4}, {Act: finished, Name: "1", Token: 4, Outcome: ok}}, 0, 1, 1},
		{"finished by an old holder", []record{{Act: took, Name: "1", Value: "a", Token: 6}}, 0, 0, 1},
		{"a second finish without an answer", []record{{Act: took, Name: "1", Value: "a", Token: 4}, {Act: finishing, Name: "1", Token: 4}}, 0, 0, 0},
		{"removed by a finish that said it removed nothing", []record{
			{Act: putting, Value: "b"},
			{Act: put, Value: "b", Name: "2", Outcome: ok},
			{Act: took, Name: "2", Value: "b", Token: 8},
			{Act: finished, Name: "2", Token: 8, Outcome: lost},
		}, 0, 0, 1},
		{"a refused put is there", []record{
			{Act: putting, Value: "b"},
			{Act: put, Value: "b", Outcome: refused},
			{Act: took, Name: "2", Value: "b", Token: 8},
			{Act: finished, Name: "2", Token: 8, Outcome: ok},
		}, 0, 0, 1},
		{"handed out, never put", []record{{Act: took, Name: "2", Value: "c", Token: 8}, {Act: finished, Name: "2", Token: 8, Outcome: ok}}, 0, 0, 1},
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
		l.add("a", record{Act: finished, Name: "1", Outcome: ok, Time: start.Add(time.Duration(s) * time.Second).UnixNano()})
	}
	if g := l.Gap("a", start, start.Add(6*time.Second)); g != 3*time.Second {
		t.Errorf("gap %v, want 3 s", g)
	}
	if g := l.Gap("a", start, start.Add(10*time.Second)); g != 6*time.Second {
		t.Errorf("gap %v, want 6 s", g)
	}
	if g := l.Gap("nobody", start, start.Add(10*time.Second)); g != 10*time.Second {
		t.Errorf("gap %v, want 10 s", g)
	}
}
