package head

import "testing"

func TestTheFirstEntryIsAnybodysAfterTwoAnsweredClaims(t *testing.T) {
	type step struct {
		chosen   string // "" with answer 0: the choice found nothing
		answer   int64  // instead of a choice: the claim of that choice was answered
		anybodys bool   // whether the first entry may be taken afterwards
	}
	for name, steps := range map[string][]step{
		"one claim after the other": {
			{chosen: "own 1"},
			{answer: 1},
			{chosen: "own 2"},
			{answer: 2, anybodys: true},
		},
		"it stays so until it is chosen": {
			{chosen: "own 1"},
			{answer: 1},
			{chosen: "own 2"},
			{answer: 2, anybodys: true},
			{chosen: "own 3", anybodys: true},
			{answer: 3, anybodys: true},
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
			{answer: 4, anybodys: true},
		},
		"a claim that began before does not end the second round": {
			{chosen: "own 1"},
			{chosen: "own 2"},
			{answer: 1},
			{chosen: "own 3"},
			{answer: 2},
			{answer: 3, anybodys: true},
		},
		"without an answer it is never anybody's": {
			{chosen: "own 1"}, {chosen: "own 2"}, {chosen: "own 3"}, {chosen: "own 4"},
		},
		"a choice of nothing begins anew": {
			{chosen: "own 1"},
			{answer: 1},
			{chosen: ""},
			{answer: 2},
			{chosen: "own 2"},
			{answer: 3},
			{chosen: "own 3"},
			{answer: 4, anybodys: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var f fairness
			for i, s := range steps {
				if s.answer > 0 {
					f.answer(s.answer)
				} else {
					f.choose(s.chosen, "first")
				}
				if got := f.isAnybodys("first"); got != s.anybodys {
					t.Errorf("after step %d, %+v, the first entry is anybody's: %v", i+1, s, got)
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
	if !f.isAnybodys("first") {
		t.Error("the first entry is not anybody's after two answered claims")
	}
	if f.isAnybodys("more urgent") {
		t.Error("an entry that no choice has passed is anybody's")
	}
	f.answer(f.choose("own", "more urgent"))
	if f.isAnybodys("more urgent") || f.isAnybodys("first") {
		t.Error("one claim was answered since there is another first entry, and it is anybody's")
	}
	f.answer(f.choose("own", "more urgent"))
	if !f.isAnybodys("more urgent") {
		t.Error("the second first entry is not anybody's after two answered claims")
	}
}
