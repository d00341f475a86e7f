// Package names keeps the names of a large directory in order, one change at a time.
package names

import (
	"slices"
	"sort"
)

// Set is a set of strings in byte order. The zero value is empty and ready. It is not
// safe for use by several goroutines at once.
//
// A change in a set of a hundred thousand names costs little more than in one of a
// thousand. A page costs as much as it is long.
type Set struct {
	chunks [][]string // in order; each has 1 to maxChunk names, in order
	len    int
}

// maxChunk is the length of a full chunk. A change moves at most that many names. A change
// that adds or removes a chunk also shifts the list of chunks: some 400 to 800 in a set of 200,000.
const maxChunk = 512

// New returns the set of the names. It sorts the slice in place and does not keep it.
func New(names []string) *Set {
	slices.Sort(names)
	names = slices.Compact(names)
	s := &Set{len: len(names)}
	for part := range slices.Chunk(names, maxChunk*3/4) {
		s.chunks = append(s.chunks, append(make([]string, 0, maxChunk), part...))
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
	case len(s.chunks) == 0, c == len(s.chunks)-1 && i == maxChunk:
		// A set that grows at its end has full chunks.
		s.chunks = append(s.chunks, append(make([]string, 0, maxChunk), name))
		return true
	case len(s.chunks[c]) == maxChunk:
		right := append(make([]string, 0, maxChunk), s.chunks[c][maxChunk/2:]...)
		s.chunks = slices.Insert(s.chunks, c+1, right)
		clear(s.chunks[c][maxChunk/2:])
		s.chunks[c] = s.chunks[c][:maxChunk/2]
		if i > maxChunk/2 {
			c, i = c+1, i-maxChunk/2
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
	// Two neighbours that together fill at most half a chunk are merged.
	for _, left := range []int{c - 1, c} {
		if left < 0 || left+1 >= len(s.chunks) {
			continue
		}
		if len(s.chunks[left])+len(s.chunks[left+1]) <= maxChunk/2 {
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

// Page returns at most limit names that sort after the given one, and whether there are
// more. The given name need not be in the set. Limit 0 means all.
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

// find returns the chunk of name and its place there, or where it would be inserted. In an
// empty set there is no such chunk.
func (s *Set) find(name string) (chunk, place int, found bool) {
	if len(s.chunks) == 0 {
		return 0, 0, false
	}
	// The last chunk that does not begin after name.
	chunk = max(0, sort.Search(len(s.chunks), func(c int) bool { return s.chunks[c][0] > name })-1)
	place, found = slices.BinarySearch(s.chunks[chunk], name)
	return chunk, place, found
}
