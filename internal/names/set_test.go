package names_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/zkq/zkq/internal/names"
)

// model is a sorted slice with the methods of a Set.
type model []string

func (m *model) add(name string) bool {
	i, found := slices.BinarySearch(*m, name)
	if !found {
		*m = slices.Insert(*m, i, name)
	}
	return !found
}

func (m *model) remove(name string) bool {
	i, found := slices.BinarySearch(*m, name)
	if found {
		*m = slices.Delete(*m, i, i+1)
	}
	return found
}

func (m model) page(after string, limit int) ([]string, bool) {
	i, found := slices.BinarySearch(m, after)
	if found {
		i++
	}
	rest := m[i:]
	if limit > 0 && limit < len(rest) {
		return rest[:limit], true
	}
	return rest, false
}

func (m model) equal(t *testing.T, s *names.Set, after string, limit int) {
	t.Helper()
	got, more := s.Page(after, limit)
	want, wantMore := m.page(after, limit)
	if !slices.Equal(got, want) || more != wantMore || s.Len() != len(m) {
		t.Fatalf("after %q at most %d: %d names, more %v, of %d; want %d, %v, of %d",
			after, limit, len(got), more, s.Len(), len(want), wantMore, len(m))
	}
}

// TestSetIsWhatASortedSliceWouldBe grows and shrinks sets in every way that a queue
// does, and in some other ways.
func TestSetIsWhatASortedSliceWouldBe(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 1))
		var s names.Set
		var m model
		next := 0
		for step := range 12_000 {
			grow := 0.7
			if step/3000%2 == 1 {
				grow = 0.2
			}
			var name string
			switch {
			case r.Float64() < grow && seed%3 == 0: // at the end
				next++
				name = fmt.Sprintf("%09d", next)
			case len(m) > 0 && seed%4 == 0: // from the front
				name = m[0]
			default:
				name = fmt.Sprintf("%04d", r.IntN(4000))
			}
			if r.Float64() < grow {
				if s.Add(name) != m.add(name) {
					t.Fatalf("seed %d step %d: add %s", seed, step, name)
				}
			} else if s.Remove(name) != m.remove(name) {
				t.Fatalf("seed %d step %d: remove %s", seed, step, name)
			}
			if _, found := slices.BinarySearch(m, name); s.Has(name) != found {
				t.Fatalf("seed %d step %d: has %s: %v", seed, step, name, s.Has(name))
			}
			if step%101 == 0 {
				m.equal(t, &s, fmt.Sprintf("%04d", r.IntN(4000)), r.IntN(40))
				m.equal(t, &s, "", 1+r.IntN(1000))
			}
			if step%3000 == 2999 {
				m.equal(t, &s, "", 0)
			}
		}
		for len(m) > 0 {
			i := r.IntN(len(m))
			if name := m[i]; !s.Remove(name) || !m.remove(name) || s.Remove(name) {
				t.Fatalf("seed %d: %s is removed once", seed, name)
			}
		}
		m.equal(t, &s, "", 0)
	}
}

func TestNewSortsAndLeavesOutWhatIsTwice(t *testing.T) {
	for n := range 2000 {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprint(i), fmt.Sprint(i/2))
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		want := slices.Compact(slices.Sorted(slices.Values(all)))
		s := names.New(all)
		if got, more := s.Page("", 0); !slices.Equal(got, want) || more || s.Len() != n {
			t.Fatalf("of %d names: %d, more %v, length %d", n, len(got), more, s.Len())
		}
	}
}

// TestPageIsTheCallersOwn: changes of the set do not show in a page, nor the reverse.
func TestPageIsTheCallersOwn(t *testing.T) {
	s := names.New([]string{"a", "b", "c"})
	page, _ := s.Page("", 0)
	s.Remove("a")
	s.Add("d")
	if !slices.Equal(page, []string{"a", "b", "c"}) {
		t.Errorf("the page became %q", page)
	}
	page[1] = "x"
	if got, _ := s.Page("", 0); !slices.Equal(got, []string{"b", "c", "d"}) {
		t.Errorf("the set became %q", got)
	}
}

func FuzzSet(f *testing.F) {
	f.Add([]byte("abcABC"))
	f.Fuzz(func(t *testing.T, steps []byte) {
		var s names.Set
		var m model
		for i, b := range steps {
			// Each step is a run of names, so that short input makes and breaks chunks.
			for j := range 200 {
				name := fmt.Sprintf("%02x%03d", b>>1, (j*7+i)%997)
				if b&1 == 0 && s.Add(name) != m.add(name) || b&1 == 1 && s.Remove(name) != m.remove(name) {
					t.Fatalf("step %d: %s", i, name)
				}
			}
			m.equal(t, &s, fmt.Sprintf("%02x", b), i)
		}
		m.equal(t, &s, "", 0)
	})
}

func BenchmarkSet(b *testing.B) {
	for _, size := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			all := make([]string, size)
			for i := range all {
				all[i] = fmt.Sprintf("entry-100-%010d", i)
			}
			s := names.New(slices.Clone(all))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				name := all[i*7919%size]
				s.Remove(name)
				s.Page("", 64)
				s.Add(name)
			}
		})
	}
}
