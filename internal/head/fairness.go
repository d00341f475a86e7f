package head

import "sync/atomic"

// fairness is the rule that bounds how long a handle leaves the first entry of a queue to
// the member that owns it (promise R7 of docs/guarantees.md). The owner may be slow, or
// suspended. So the entry is open to all members once it is still first after two claims of
// this handle, one after the other: claims that are under way at the same time pass it only
// once.
//
// Choices are numbered in the order in which they are made. One that left the first entry
// to its owner is a pass. The first pass opens a round. The first pass that is chosen when
// the round's claim has been answered opens the second round. When that one's claim has been
// answered too, the entry is open to all.
type fairness struct {
	choices int64  // made so far
	entry   string // the first entry, if the last choices left it to its owner; else ""
	first   int64  // the choice that left it first
	second  int64  // the choice that left it again, after the first was answered; 0: none yet

	answered atomic.Int64 // the last choice whose claim was answered, with success or not
}

// choose numbers a choice. first is the first entry of the queue, chosen the one that the
// choice wants most; "" if it found none. A choice that leaves all entries to other members
// passes none of them.
func (f *fairness) choose(chosen, first string) (number int64) {
	f.choices++
	switch {
	case chosen == first:
		f.entry = ""
	case chosen == "":
	case f.entry != first:
		f.entry, f.first, f.second = first, f.choices, 0
	case f.second == 0 && f.answered.Load() >= f.first:
		f.second = f.choices
	}
	return f.choices
}

// answer notes that the claim of a choice was answered. It may be called at any time, by
// any goroutine.
func (f *fairness) answer(number int64) { f.answered.Store(number) }

// isOpenToAll reports whether this handle may take the first entry though another member owns
// it.
func (f *fairness) isOpenToAll(first string) bool {
	return f.entry == first && f.second != 0 && f.answered.Load() >= f.second
}
