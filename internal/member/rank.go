package member

import "slices"

// Owner returns the member that an entry is for, or "" if there is none: the one whose
// hash with the entry's name is the highest (rendezvous hashing). Processes that know the
// same members name the same owner, and a member that comes or goes moves no entry
// between two others. Processes of different versions must agree: the hash must never
// change.
func Owner(members []string, entry string) string {
	owner, highest := "", uint64(0)
	hash := fnv1a(entry)
	for _, m := range members {
		if w := weight(m, hash); owner == "" || w > highest || w == highest && m < owner {
			owner, highest = m, w
		}
	}
	return owner
}

// Before returns how many members rank before me for an entry: 0 for its owner, 1 for
// the member that would own it next.
func Before(members []string, me, entry string) int {
	r := Ranks{Me: me}
	r.SetMembers(members)
	return r.Before(entry)
}

// Ranks are the ranks of one member for many entries. A rank is computed once and remembered
// until the members change.
type Ranks struct {
	Me string

	members []string
	hashes  []uint64 // of the members
	before  map[string]int
}

// mostRanks is how many ranks are remembered. A queue's head is shorter.
const mostRanks = 1 << 14

// SetMembers notes who the members are. All ranks are forgotten if they have changed.
func (r *Ranks) SetMembers(members []string) {
	if slices.Equal(members, r.members) {
		return
	}
	r.members, r.hashes, r.before = members, make([]uint64, len(members)), nil
	for i, m := range members {
		r.hashes[i] = fnv1a(m)
	}
}

// Len returns how many members there are.
func (r *Ranks) Len() int { return len(r.members) }

// IsMember reports whether Me is one of the members.
func (r *Ranks) IsMember() bool { return slices.Contains(r.members, r.Me) }

// Before returns how many members rank before Me for an entry; see [Before].
func (r *Ranks) Before(entry string) int {
	if before, ok := r.before[entry]; ok {
		return before
	}
	before := 0
	hash := fnv1a(entry)
	mine := weigh(fnv1a(r.Me), hash)
	for i, m := range r.members {
		if w := weigh(r.hashes[i], hash); w > mine || w == mine && m < r.Me {
			before++
		}
	}
	if r.before == nil || len(r.before) >= mostRanks {
		r.before = make(map[string]int)
	}
	r.before[entry] = before
	return before
}

// weight returns a member's weight for an entry, given the hash of the entry's name. The member
// with the highest weight owns the entry.
func weight(member string, entry uint64) uint64 { return weigh(fnv1a(member), entry) }

// weigh is weight for a member whose hash is known.
func weigh(member, entry uint64) uint64 {
	// The finalizer of splitmix64: FNV alone hardly mixes its last bytes.
	x := member ^ entry
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// fnv1a is the 64-bit FNV-1a hash.
func fnv1a(s string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return h
}
