package testfleet

import (
	"slices"
	"strings"
	"testing"
)

// A judge that never finds fault proves nothing.
func TestReplayNoticesEachBreach(t *testing.T) {
	entry, lock := "/q/entries/1", "/q/taken/1"
	put := Commit{1, "p", []Change{{Path: entry, Value: "a"}}}
	claim := func(revision int64, session string) Commit {
		return Commit{revision, session, []Change{{Path: entry, Value: "a"}, {Path: lock, Owner: session}, {Path: lock, Value: "holder"}}}
	}
	giveBack := func(revision int64, session string) Commit {
		return Commit{revision, session, []Change{{Path: lock, Deleted: true}}}
	}
	finish := func(revision int64, session string) Commit {
		return Commit{revision, session, []Change{{Path: entry, Deleted: true}, {Path: lock, Deleted: true}}}
	}
	for _, c := range []struct {
		name    string
		commits []Commit
		wrong   string
	}{
		{"a life", []Commit{put, claim(2, "a"), giveBack(3, "a"), claim(4, "b"), finish(5, "b")}, ""},
		{"other nodes", []Commit{{1, "", []Change{{Path: "/q/broken/1-2"}, {Path: "/zkq/format"}}}}, ""},
		{"the service does not tell whose", []Commit{put, {2, "", claim(2, "a").Changes}, finish(3, "")}, ""},
		{"put twice under a name", []Commit{put, claim(2, "a"), finish(3, "a"), put}, "used again"},
		{"put twice", []Commit{put, {2, "p", []Change{{Path: "/q/entries/2", Value: "a"}}}}, "put twice"},
		{"two holders", []Commit{put, claim(2, "a"), claim(3, "b")}, "while a held it"},
		{"a lock for nothing", []Commit{{1, "a", []Change{{Path: lock, Owner: "a"}}}}, "without an entry"},
		{"a claim without its fence", []Commit{put, {2, "a", []Change{{Path: lock, Owner: "a"}}}}, "did not move"},
		{"a claim that writes", []Commit{put, {2, "a", []Change{{Path: entry, Value: "b"}, {Path: lock, Owner: "a"}}}}, "not the same"},
		{"a lock that stays", []Commit{put, {2, "a", []Change{{Path: entry, Value: "a"}, {Path: lock}}}}, "no session owns"},
		{"removed unheld", []Commit{put, {2, "a", []Change{{Path: entry, Deleted: true}}}}, "nobody held"},
		{"removed by another", []Commit{put, claim(2, "a"), finish(3, "b")}, "while a held it"},
		{"its lock is left", []Commit{put, claim(2, "a"), {3, "a", []Change{{Path: entry, Deleted: true}}}}, "lock was left"},
		{"taken away", []Commit{put, claim(2, "a"), giveBack(3, "b")}, "taken from a"},
		{"changed", []Commit{put, {2, "a", []Change{{Path: entry, Value: "b"}}}}, "not claimed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewReplay()
			for _, commit := range c.commits {
				r.Apply(commit)
			}
			if got := strings.Join(r.Wrong, "; "); c.wrong == "" && got != "" || !strings.Contains(got, c.wrong) {
				t.Errorf("%q, want %q", got, c.wrong)
			}
		})
	}
}

func TestReplayHoldsClientsToTheirWord(t *testing.T) {
	names := []string{"/q"}
	was := []Commit{
		{1, "p", []Change{{Path: "/q/entries/1", Value: "a"}}},
		{2, "p", []Change{{Path: "/q/entries/2", Value: "b"}}},
		{5, "s", []Change{{Path: "/q/entries/1", Value: "a"}, {Path: "/q/taken/1", Owner: "s"}}},
		{6, "s", []Change{{Path: "/q/entries/1", Deleted: true}, {Path: "/q/taken/1", Deleted: true}}},
	}
	said := []journalRecord{
		{Act: actPutting, Value: "a"},
		{Act: actPut, Value: "a", Name: "1", Outcome: outcomeOK},
		{Act: actPutting, Value: "b"}, // and no more was heard
		{Act: actPutting, Value: "c"},
		{Act: actTook, Name: "1", Value: "a", Token: 5},
		{Act: actFinishing, Name: "1", Token: 5},
		{Act: actFinished, Name: "1", Token: 5, Outcome: outcomeOK},
	}
	for _, c := range []struct {
		name  string
		said  []journalRecord
		wrong string
	}{
		{"the truth", nil, ""},
		{"put elsewhere", []journalRecord{{Act: actPut, Value: "a", Name: "3", Outcome: outcomeOK}}, "was put as /q/entries/3, said the queue"},
		{"put under a name that was not read", []journalRecord{{Act: actPut, Value: "a", Outcome: outcomeOK}}, ""},
		{"put, and was not, under a name that was not read", []journalRecord{{Act: actPut, Value: "c", Outcome: outcomeOK}}, "c was put as"},
		{"put, and was not", []journalRecord{{Act: actPut, Value: "c", Name: "3", Outcome: outcomeOK}}, "c was put as"},
		{"refused, and was put", []journalRecord{{Act: actPut, Value: "b", Outcome: outcomeRefused}}, "b was refused"},
		{"removed by an older claim", []journalRecord{{Act: actTook, Name: "1", Value: "a", Token: 4}, {Act: actFinished, Name: "1", Token: 4, Outcome: outcomeOK}}, "with token 0x4"},
		{"told that it did nothing", []journalRecord{{Act: actFinished, Name: "1", Token: 5, Outcome: outcomeLost}}, "removed nothing"},
		{"handed out, never there", []journalRecord{{Act: actTook, Name: "9", Value: "z", Token: 4}}, "never there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, l := NewReplay(), NewLedger()
			for _, commit := range was {
				r.Apply(commit)
			}
			for _, s := range slices.Concat(said, c.said) {
				l.add("client", s)
			}
			v := r.Check(l, names)
			if got := strings.Join(v.Wrong, "; "); c.wrong == "" && got != "" || !strings.Contains(got, c.wrong) {
				t.Errorf("%q, want %q", got, c.wrong)
			}
			if c.said == nil && (v.Applied != 1 || v.Not != 1) {
				t.Errorf("of two unknown puts %d were applied and %d not; want one each", v.Applied, v.Not)
			}
		})
	}
	t.Run("nobody's", func(t *testing.T) {
		r := NewReplay()
		for _, commit := range was {
			r.Apply(commit)
		}
		v := r.Check(NewLedger(), names)
		if got := strings.Join(v.Wrong, "; "); !strings.Contains(got, "put by nobody") || !strings.Contains(got, "handed out to nobody") {
			t.Errorf("%q", got)
		}
	})
}
