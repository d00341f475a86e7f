// Package names keeps the names of a large directory in order, one change at a time.
package names

import (
	"slices"
	"sort"
)

// Set is a set of strings in byte order. The zero value is empty and ready. It is not
// safe for use by several goroutines at once.
//
// A change in a set of a hundred thousand costs little more than in one of a thousand,
// and a page no more than its own length.
type Set struct {
	chunks [][]string // none is empty, none is longer than most; all of them in order
	len    int
}

// most is the length of a full chunk: a change moves no more strings, and, where it makes
// or ends a chunk of a set of two hundred thousand, about as many chunks.
const most = 512

// New returns the set of the names, which it sorts where they stand and does not keep.
func New(names []string) *Set {
	slices.Sort(names)
	names = slices.Compact(names)
	s := &Set{len: len(names)}
	for part := range slices.Chunk(names, most*3/4) {
		s.chunks = append(s.chunks, append(make([]string, 0, most), part...))
	}
	return s
}

// Len returns how many names are in the set.
func (s *Set) Len() int { return s.len }

// Has reports whether name is in the set.
func (s *Set) Has(name string) bool {
	_, _, found := s.find(name)
	return found
}

// Add puts name into the set and reports whether it was not there.
func (s *Set) Add(name string) bool {
	c, i, found := s.find(name)
	if found {
		return false
	}
	s.len++
	switch {
	case len(s.chunks) == 0, c == len(s.chunks)-1 && i == most:
		// What grows at its end has full chunks.
		s.chunks = append(s.chunks, append(make([]string, 0, most), name))
		return true
	case len(s.chunks[c]) == most:
		right := append(make([]string, 0, most), s.chunks[c][most/2:]...)
		s.chunks = slices.Insert(s.chunks, c+1, right)
		clear(s.chunks[c][most/2:])
		s.chunks[c] = s.chunks[c][:most/2]
		if i > most/2 {
			c, i = c+1, i-most/2
		}
	}
	s.chunks[c] = slices.Insert(s.chunks[c], i, name)
	return true
}

// Remove takes name out of the set and reports whether it was there.
func (s *Set) Remove(name string) bool {
	c, i, found := s.find(name)
	if !found {
		return false
	}
	s.len--
	s.chunks[c] = slices.Delete(s.chunks[c], i, i+1)
	// A set that shrinks has no two chunks that would fill half of one.
	for _, left := range []int{c - 1, c} {
		if left < 0 || left+1 >= len(s.chunks) {
			continue
		}
		if len(s.chunks[left])+len(s.chunks[left+1]) <= most/2 {
			s.chunks[left] = append(s.chunks[left], s.chunks[left+1]...)
			s.chunks = slices.Delete(s.chunks, left+1, left+2)
			return true
		}
	}
	if len(s.chunks[c]) == 0 {
		s.chunks = slices.Delete(s.chunks, c, c+1)
	}
	return true
}

// Page returns the names after the one given, which need not be in the set, and no
// more than limit of them, and whether it left some out. Limit 0 means all.
func (s *Set) Page(after string, limit int) (page []string, more bool) {
	c, i := 0, 0
	left := s.len
	if after != "" {
		var found bool
		if c, i, found = s.find(after); found {
			i++
		}
		for _, chunk := range s.chunks[:c] {
			left -= len(chunk)
		}
		left -= i
	}
	n := left
	if limit > 0 {
		n = min(n, limit)
	}
	page = make([]string, 0, n)
	for ; len(page) < n; c, i = c+1, 0 {
		part := s.chunks[c][i:]
		page = append(page, part[:min(len(part), n-len(page))]...)
	}
	return page, left > n
}

// find returns the chunk and the place in it where name is, or where it belongs: there
// is no such chunk only in an empty set.
func (s *Set) find(name string) (chunk, place int, found bool) {
	if len(s.chunks) == 0 {
		return 0, 0, false
	}
	// The last chunk that does not begin behind it.
	chunk = max(0, sort.Search(len(s.chunks), func(c int) bool { return s.chunks[c][0] > name })-1)
	place, found = slices.BinarySearch(s.chunks[chunk], name)
	return chunk, place, found
}
