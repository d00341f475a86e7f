package group

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/zkq/zkq/coord"
)

func set(paths ...string) *Commit {
	c := &Commit{Caller: strings.Join(paths, "+")}
	for _, p := range paths {
		c.Ops = append(c.Ops, coord.Set(p, nil, 1))
	}
	return c
}

func claim(name string) *Commit {
	return &Commit{Caller: name, Ops: []coord.Op{
		coord.Touch("/e/"+name, nil, 0), coord.CreateEphemeral("/t/"+name, nil),
	}}
}

func fill(l Limits, cs ...*Commit) *Queue {
	q := NewQueue(l)
	for _, c := range cs {
		q.Add(c)
	}
	return q
}

// namesOf returns the names of the commits of a batch.
func namesOf(b *Batch) string {
	if b == nil {
		return "none"
	}
	var names []string
	for _, c := range b.Commits {
		names = append(names, c.Caller.(string))
	}
	return strings.Join(names, " ")
}

func wantBatches(t *testing.T, next func() *Batch, want ...string) {
	t.Helper()
	for i, w := range append(want, "none") {
		if got := namesOf(next()); got != w {
			t.Fatalf("batch %d is %q, want %q", i, got, w)
		}
	}
}

// refuse returns the outcomes of a batch from a service that reports only the first refusal.
func refuse(q *Queue, b *Batch, refused ...string) (answered []string) {
	outcomes := make([]Outcome, len(b.Commits))
	for i := range b.Commits {
		outcomes[i].Err = ErrAgain
	}
	for i, c := range b.Commits {
		if slices.Contains(refused, c.Caller.(string)) {
			outcomes[i].Err = coord.ErrVersion
			answered = []string{c.Caller.(string) + " refused"}
			break
		}
	}
	if answered == nil {
		for i, c := range b.Commits {
			outcomes[i].Err = nil
			answered = append(answered, c.Caller.(string))
		}
	}
	q.Requeue(b, outcomes)
	return answered
}

func TestWhatWaitsTravelsTogetherInOrderOfArrival(t *testing.T) {
	q := fill(Limits{}, set("/a"), set("/b"), set("/c"))
	wantBatches(t, q.Next, "/a /b /c")
}

func TestClaimsTravelApart(t *testing.T) {
	q := fill(Limits{}, claim("1"), set("/a"), claim("2"), set("/b"))
	wantBatches(t, q.Next, "1 2", "/a /b")
}

func TestTheStreamThatWaitedLongestGoesFirst(t *testing.T) {
	q := fill(Limits{}, set("/a"), claim("1"))
	if q.Next(); namesOf(q.Take(Changes)) != "none" {
		t.Error("the first batch left something of its stream")
	}
	q.Add(set("/b"))
	wantBatches(t, q.Next, "1", "/b")
}

func TestNoPathIsTwiceInABatch(t *testing.T) {
	q := fill(Limits{}, set("/a"), set("/b", "/a"), set("/b"), set("/c", "/a"))
	wantBatches(t, q.Next, "/a /b", "/b+/a", "/c+/a")
}

func TestACommitThatIsLeftClaimsNoPath(t *testing.T) {
	q := fill(Limits{}, set("/a"), set("/x", "/a"), set("/x"))
	wantBatches(t, q.Next, "/a /x", "/x+/a")
}

func TestSequentialNodesShareTheirPrefix(t *testing.T) {
	put := func(name string) *Commit {
		return &Commit{Caller: name, Ops: []coord.Op{coord.Set("/lane"+name, nil, 1), coord.CreateSequential("/e/entry-", nil)}}
	}
	q := fill(Limits{}, put("1"), put("2"))
	wantBatches(t, q.Next, "1 2")
}

func TestABatchStaysWithinItsLimits(t *testing.T) {
	long := func(name string, bytes int) *Commit {
		return &Commit{Caller: name, Ops: []coord.Op{coord.Set("/"+name, make([]byte, bytes), 1)}}
	}
	for _, c := range []struct {
		name   string
		limits Limits
		q      []*Commit
		want   []string
	}{
		{"commits", Limits{Commits: 2}, []*Commit{set("/a"), set("/b"), set("/c")}, []string{"/a /b", "/c"}},
		{"ops", Limits{Ops: 3}, []*Commit{set("/a", "/b"), set("/c", "/d"), set("/e")}, []string{"/a+/b", "/c+/d /e"}},
		{"bytes", Limits{Bytes: 1000}, []*Commit{long("a", 500), long("b", 500), long("c", 10)}, []string{"a", "b c"}},
		{"one too large", Limits{Bytes: 1000}, []*Commit{long("a", 1), long("b", 5000), long("c", 1)}, []string{"a c", "b"}},
		{"the first too large", Limits{Bytes: 1000}, []*Commit{long("b", 5000), long("a", 1), long("c", 1)}, []string{"b", "a c"}},
		{"one of many ops", Limits{Each: 2}, []*Commit{set("/a"), set("/b", "/c", "/d"), set("/e", "/f")}, []string{"/a /e+/f", "/b+/c+/d"}},
	} {
		t.Run(c.name, func(t *testing.T) { wantBatches(t, fill(c.limits, c.q...).Next, c.want...) })
	}
}

func TestWhatIsTakenOutIsNotSent(t *testing.T) {
	a, b, c := set("/a"), set("/b"), set("/c")
	q := fill(Limits{}, a, b, c)
	if !q.Remove(b) || q.Remove(b) || q.Len() != 2 {
		t.Errorf("%d wait after one of three was taken out once", q.Len())
	}
	batch := q.Next()
	if namesOf(batch) != "/a /c" || q.Remove(a) {
		t.Errorf("batch %q, and what is in it was taken out of the queue", namesOf(batch))
	}
	refuse(q, batch, "/a")
	if !q.Remove(c) || q.Len() != 0 || q.Next() != nil {
		t.Error("what was to go again could not be taken out")
	}
}

func TestARefusalCostsTheOthersOneRequest(t *testing.T) {
	q := fill(Limits{}, set("/a"), set("/b"), set("/c"), set("/d"))
	refuse(q, q.Next(), "/b")
	q.Add(set("/e"))
	wantBatches(t, q.Next, "/a /c /d", "/e")
}

func TestAfterASecondRefusalABatchIsHalved(t *testing.T) {
	bad := []string{"/b", "/e"}
	q := fill(Limits{}, set("/a"), set("/b"), set("/c"), set("/d"), set("/e"), set("/f"))
	refuse(q, q.Next(), bad...)
	refuse(q, q.Next(), bad...)
	wantBatches(t, q.Next, "/a /c", "/d /f")
}

// For random arrivals, batches and refusals: each commit gets one outcome, the right one;
// no batch names a path twice or is too large; the refusals cost few requests.
func TestEachCommitIsAnsweredOnceWhateverIsRefused(t *testing.T) {
	limits := Limits{Commits: 16, Ops: 24, Each: 3, Bytes: 5000}
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 1))
		q, n, requests := NewQueue(limits), 0, 0
		var refused []string
		got := map[string]int{}
		for n < 200 || q.Len() > 0 {
			for n < 200 && rng.IntN(5) > 0 {
				c := claim(fmt.Sprint(n))
				if rng.IntN(2) == 0 {
					c = set(fmt.Sprint("/own", n))
					for range rng.IntN(4) {
						if p := fmt.Sprint("/", rng.IntN(30)); !slices.ContainsFunc(c.Ops, func(o coord.Op) bool { return o.Path == p }) {
							c.Ops = append(c.Ops, coord.Set(p, make([]byte, rng.IntN(800)), 0))
						}
					}
				}
				if rng.IntN(10) == 0 {
					refused = append(refused, c.Caller.(string))
				}
				q.Add(c)
				n++
			}
			b := q.Next()
			if b == nil {
				continue
			}
			requests++
			seen, ops, bytes := map[string]bool{}, 0, 0
			for _, c := range b.Commits {
				if c.Stream() != b.Commits[0].Stream() {
					t.Fatalf("seed %d: the streams meet in %s", seed, namesOf(b))
				}
				ops, bytes = ops+len(c.Ops), bytes+c.bytes
				for _, op := range c.Ops {
					if seen[op.Path] {
						t.Fatalf("seed %d: %s is twice in %s", seed, op.Path, namesOf(b))
					}
					seen[op.Path] = true
				}
			}
			if len(b.Commits) > 1 && (len(b.Commits) > limits.Commits || ops > limits.Ops || bytes > limits.Bytes) {
				t.Fatalf("seed %d: %d commits, %d ops, %d bytes", seed, len(b.Commits), ops, bytes)
			}
			for _, a := range refuse(q, b, refused...) {
				got[a]++
			}
		}
		for who, times := range got {
			if name, no := strings.CutSuffix(who, " refused"); times != 1 || no != slices.Contains(refused, name) {
				t.Fatalf("seed %d: %s is answered %d times", seed, who, times)
			}
		}
		if len(got) != n || requests > n {
			t.Fatalf("seed %d: %d of %d answered by %d requests", seed, len(got), n, requests)
		}
	}
}

func TestTheSameCallsGiveTheSameBatches(t *testing.T) {
	story := func() (s string) {
		rng := rand.New(rand.NewPCG(1, 1))
		q := NewQueue(Limits{Commits: 5})
		for i := range 300 {
			q.Add(set(fmt.Sprint("/", rng.IntN(20)), fmt.Sprint("/own", i)))
			if rng.IntN(4) == 0 {
				b := q.Next()
				s += namesOf(b) + "\n"
				refuse(q, b, b.Commits[rng.IntN(len(b.Commits))].Caller.(string))
			}
		}
		return s
	}
	if a, b := story(), story(); a != b {
		t.Errorf("one time\n%s\nanother time\n%s", a, b)
	}
}
