package head

import "testing"

func TestTheFirstEntryIsAnybodysAfterTwoAnsweredClaims(t *testing.T) {
	type step struct {
		chosen    string // "" with answer 0: the choice left all entries to other members
		isEmpty   bool   // the choice found nothing
		answer    int64  // instead of a choice: the claim of that choice was answered
		openToAll bool   // whether the first entry may be taken afterwards
	}
	for name, steps := range map[string][]step{
		"one claim after the other": {
			{chosen: "own 1"},
			{answer: 1},
			{chosen: "own 2"},
			{answer: 2, openToAll: true},
		},
		"it stays so until it is chosen": {
			{chosen: "own 1"},
			{answer: 1},
			{chosen: "own 2"},
			{answer: 2, openToAll: true},
			{chosen: "own 3", openToAll: true},
			{answer: 3, openToAll: true},
			{chosen: "first"},
			{answer: 4},
			{chosen: "own 4"},
		},
		"claims that are under way together pass it once": {
			{chosen: "own 1"},
			{chosen: "own 2"},
			{chosen: "own 3"},
			{answer: 1},
			{answer: 2},
			{answer: 3},
			{chosen: "own 4"},
			{answer: 4, openToAll: true},
		},
		"a claim that began before does not end the second round": {
			{chosen: "own 1"},
			{chosen: "own 2"},
			{answer: 1},
			{chosen: "own 3"},
			{answer: 2},
			{answer: 3, openToAll: true},
		},
		"without an answer it is never open to all": {
			{chosen: "own 1"}, {chosen: "own 2"}, {chosen: "own 3"}, {chosen: "own 4"},
		},
		"a choice that leaves all entries to others is no pass": {
			{chosen: "own 1"},
			{answer: 1},
			{chosen: ""},
			{answer: 2},
			{chosen: "own 2"},
			{answer: 3, openToAll: true},
		},
		"a choice of nothing begins anew": {
			{chosen: "own 1"},
			{answer: 1},
			{isEmpty: true},
			{answer: 2},
			{chosen: "own 2"},
			{answer: 3},
			{chosen: "own 3"},
			{answer: 4, openToAll: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var f fairness
			for i, s := range steps {
				switch {
				case s.answer > 0:
					f.answer(s.answer)
				case s.isEmpty:
					f.choose("", "")
				default:
					f.choose(s.chosen, "first")
				}
				if got := f.isOpenToAll("first"); got != s.openToAll {
					t.Errorf("after step %d, %+v, the first entry is open to all: %v", i+1, s, got)
				}
			}
		})
	}
}

func TestAnotherFirstEntryIsLeftToItsOwnerAnew(t *testing.T) {
	var f fairness
	for range 2 {
		f.answer(f.choose("own", "first"))
	}
	if !f.isOpenToAll("first") {
		t.Error("the first entry is not open to all after two answered claims")
	}
	if f.isOpenToAll("more urgent") {
		t.Error("an entry that no choice has passed is open to all")
	}
	f.answer(f.choose("own", "more urgent"))
	if f.isOpenToAll("more urgent") || f.isOpenToAll("first") {
		t.Error("one claim was answered since there is another first entry, and it is open to all")
	}
	f.answer(f.choose("own", "more urgent"))
	if !f.isOpenToAll("more urgent") {
		t.Error("the second first entry is not open to all after two answered claims")
	}
}
