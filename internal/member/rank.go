package member

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
	before := 0
	hash := fnv1a(entry)
	mine := weight(me, hash)
	for _, m := range members {
		if w := weight(m, hash); w > mine || w == mine && m < me {
			before++
		}
	}
	return before
}

// weight returns a member's weight for an entry, given the hash of the entry's name. The member
// with the highest weight owns the entry.
func weight(member string, entry uint64) uint64 {
	// The finalizer of splitmix64: FNV alone hardly mixes its last bytes.
	x := fnv1a(member) ^ entry
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
