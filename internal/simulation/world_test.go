package simulation

import (
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/testqueue"
	"github.com/zkq/zkq/priority"
)

// simWorld is what the service applied, in its order. Each transition is checked as it comes.
type simWorld struct {
	s     *simulation
	plain bool

	mu        sync.Mutex
	names     map[string]string // value: the entry that was created with it
	present   map[string]bool   // entries
	locks     map[string]string // entry: session
	removed   map[string]removal
	claimed   []string         // names in the order of first claims
	claims    map[string]int   // entry: claims so far
	tokens    map[simToken]int // the number of the claim with it
	broken    map[string]bool  // entries that were taken from a holder by hand
	dead      map[string]bool  // names of entries
	known     map[string]int   // entry that came back: deliveries that count as no failure
	counted   map[string][]int // entry: of each claim, the deliveries before it that count
	log       []simEvent
	sizes     []simSize
	free      freeIntervals
	deadState deadState
	usedUp    bool // the last number was given

	revision int64
	applies  int            // commits so far
	made     map[string]int // name: which of them created it
	gone     map[string]int // and which deleted it
}

// simToken identifies a claim by its token.
type simToken struct {
	name  string
	token int64
}

// simEvent is a step in the life of an entry.
type simEvent struct {
	at    time.Duration
	name  string
	kind  entryKind
	k     int  // claims of the entry until then
	other bool // not by its holder: its session ended, or by hand
}

// simSize is how many entries there are from an instant on.
type simSize struct {
	at                 time.Duration
	entries, available int
}

type removal struct {
	claim   int // the number of the claim that it ended
	session string
	byHand  bool
	dead    bool // it was moved to the dead
}

const simEntries, simTaken = "/jobs/entries/", "/jobs/taken/"

func newSimWorld(s *simulation) simWorld {
	return simWorld{
		s: s, plain: s.plan.plain, names: make(map[string]string), present: make(map[string]bool), locks: make(map[string]string),
		removed: make(map[string]removal), claims: make(map[string]int), tokens: make(map[simToken]int), dead: make(map[string]bool), known: make(map[string]int), counted: make(map[string][]int), broken: make(map[string]bool), made: make(map[string]int), gone: make(map[string]int), sizes: []simSize{{}},
		free:      freeIntervals{since: make(map[string]time.Duration)},
		deadState: newDeadState(s),
	}
}

// applied follows the state of the service.
func (w *simWorld) applied(a coordtest.Applied) {
	if a.Expired {
		w.s.count("expired")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if a.Revision == w.revision {
		w.s.count("commits together")
	}
	w.revision = a.Revision
	w.follow(a)
	switch {
	case w.plain:
		w.appliedPlain(a)
		w.created(a)
	case w.deadState.applied(a, w.claims):
		w.requeued(a)
	default:
		w.appliedLocking(a)
		w.created(a)
	}
	now := w.s.now()
	w.free.applied(now, a, func(name string) bool { return w.present[name] && w.locks[name] == "" })
	if last := w.sizes[len(w.sizes)-1]; last.entries != len(w.present) || last.available != len(w.present)-len(w.locks) {
		w.sizes = append(w.sizes, simSize{now, len(w.present), len(w.present) - len(w.locks)})
	}
}

// follow records which entry existed when.
func (w *simWorld) follow(a coordtest.Applied) {
	w.applies++
	for i, op := range a.Ops {
		switch op.Kind {
		case coord.KindSequential:
			w.made[path.Base(a.Results[i].Path)] = w.applies
		case coord.KindDelete:
			if dir, name := path.Split(op.Path); dir == simEntries || dir == "/jobs/" {
				w.gone[name] = w.applies
			}
		}
	}
}

// outlived reports whether an entry was removed before another was created.
func (w *simWorld) outlived(a, b string) bool { return w.gone[a] != 0 && w.gone[a] < w.made[b] }

// created requires that each value is put once, and that all values of a put are created or none.
func (w *simWorld) created(a coordtest.Applied) {
	prefix := simEntries
	if w.plain {
		prefix = "/jobs/"
	}
	batch, n := "", 0
	for i, op := range a.Ops {
		if op.Kind != coord.KindSequential {
			continue
		}
		name, value := strings.TrimPrefix(a.Results[i].Path, prefix), string(op.Value)
		if w.names[value] != "" {
			w.s.violation("%q was put once and is there twice", value)
		}
		w.mint(name)
		w.names[value], w.present[name] = name, true
		batch, _, _ = strings.Cut(value, ":")
		n++
	}
	if n == 0 {
		return
	}
	for _, op := range a.Ops {
		if op.Kind == coord.KindSequential {
			if of, rest, _ := strings.Cut(string(op.Value), ":"); of != batch || !strings.HasSuffix(rest, " of "+string(rune('0'+n))) {
				w.s.violation("%q was put in a commit with %d others", op.Value, n-1)
			}
		}
	}
}

// mint requires that no name is given twice, and no number after the last on ZooKeeper.
func (w *simWorld) mint(name string) {
	if _, removed := w.removed[name]; removed || w.present[name] {
		w.s.violation("%s was given twice", name)
	}
	if n, ok := priority.Parse(name); ok && n.Sequence >= coord.LastNumber-1 {
		w.usedUp = true
	}
}

// numbersUsedUp reports that no more entries can be put.
func (w *simWorld) numbersUsedUp() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.usedUp
}

// requeued follows a commit that makes a dead entry ready again.
func (w *simWorld) requeued(a coordtest.Applied) {
	for i, op := range a.Ops {
		if op.Kind == coord.KindSequential {
			name := strings.TrimPrefix(a.Results[i].Path, simEntries)
			w.mint(name)
			w.present[name] = true
			w.log = append(w.log, simEvent{at: w.s.now(), name: name, kind: opPut})
		}
	}
}

func (w *simWorld) appliedPlain(a coordtest.Applied) {
	for _, op := range a.Ops {
		name, ok := strings.CutPrefix(op.Path, "/jobs/")
		if !ok || op.Kind != coord.KindDelete {
			continue
		}
		if !w.present[name] {
			w.s.violation("%s was removed twice", name)
		}
		delete(w.present, name)
		w.removed[name] = removal{session: a.Session}
	}
}

func (w *simWorld) appliedLocking(a coordtest.Applied) {
	touched := make(map[string]bool)
	unlocked := make(map[string]bool)
	dying := make(map[string]bool)
	byHand := false
	for _, op := range a.Ops {
		if name, ok := strings.CutPrefix(op.Path, "/jobs/dead/"); ok && op.Kind == coord.KindCreate {
			_, entry, _ := strings.Cut(name, "-")
			if dying[entry] = true; w.dead[entry] {
				w.s.violation("%s died twice", entry)
			}
			w.dead[entry] = true
		}
		if name, ok := strings.CutPrefix(op.Path, "/jobs/attempts/"); ok {
			switch op.Kind {
			case coord.KindCreate, coord.KindSet:
				var a struct{ Forgiven, Updates int }
				if err := json.Unmarshal(op.Value, &a); err != nil {
					w.s.violation("the history of %s: %v", name, err)
				}
				w.known[name] = a.Forgiven - a.Updates
			case coord.KindDelete:
				delete(w.known, name)
			}
		}
		byHand = byHand || op.Kind == coord.KindCreate && strings.HasPrefix(op.Path, "/jobs/broken/")
		if name, ok := strings.CutPrefix(op.Path, simEntries); ok && op.Kind == coord.KindTouch {
			touched[name] = true
		}
		if name, ok := strings.CutPrefix(op.Path, simTaken); ok && op.Kind == coord.KindDelete {
			unlocked[name] = true
		}
	}
	note := func(name string, kind entryKind) {
		w.log = append(w.log, simEvent{w.s.now(), name, kind, w.claims[name], byHand || a.Expired})
	}
	for i, op := range a.Ops {
		if name, ok := strings.CutPrefix(op.Path, simEntries); ok {
			switch op.Kind {
			case coord.KindTouch:
				if w.claims[name]++; w.claims[name] == 1 {
					w.claimed = append(w.claimed, name)
				}
				w.tokens[simToken{name, a.Results[i].Revision}] = w.claims[name]
				w.counted[name] = append(w.counted[name], w.claims[name]-1-w.known[name])
				note(name, opClaim)
			case coord.KindSet:
				if w.locks[name] != a.Session {
					w.s.violation("%s was written by %s while %q held it", name, a.Session, w.locks[name])
				}
			case coord.KindDelete:
				w.broken[name] = w.broken[name] || byHand
				if w.locks[name] != a.Session && !byHand || !unlocked[name] {
					w.s.violation("%s was removed by %s while %q held it", name, a.Session, w.locks[name])
				}
				delete(w.present, name)
				w.removed[name] = removal{w.claims[name], a.Session, byHand, dying[name]}
				delete(dying, name)
				note(name, opRemove)
			}
		}
		if name, ok := strings.CutPrefix(op.Path, simTaken); ok {
			switch op.Kind {
			case coord.KindEphemeral:
				if !touched[name] {
					w.s.violation("%s was locked without moving its fence", name)
				}
				w.locks[name] = a.Session
			case coord.KindDelete:
				w.broken[name] = w.broken[name] || byHand
				if w.locks[name] != a.Session && !byHand {
					w.s.violation("%s removed the lock of %s on %s", a.Session, w.locks[name], name)
				}
				delete(w.locks, name)
				if w.present[name] {
					note(name, opUnlock)
				}
			}
		}
	}
	for name := range dying {
		w.s.violation("%s is among the dead and was not removed with it", name)
	}
	for name := range w.known {
		if !w.present[name] {
			w.s.violation("the history of %s is kept, and the entry is gone", name)
		}
	}
	for name := range w.locks {
		if !w.present[name] {
			w.s.violation("a lock without an entry: %s", name)
		}
	}
}

// delivery returns the number of the claim by which an entry was handed out. The value that is handed out must be the
// one at that claim. Held.Deliveries must be that number, unless the lock was broken before the taker read how often
// the entry had been delivered.
func (w *simWorld) delivery(h *zkq.Held) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.tokens[simToken{h.Name, h.Token}]
	if text := w.deadState.texts[simClaim{h.Name, k}]; k == 0 || text != string(h.Value) {
		w.s.violation("%s held %q, and was handed out as %q, delivery %d", h.Name, text, h.Value, k)
	}
	if h.Deliveries != k && !w.broken[h.Name] {
		w.s.violation("%s was handed out as delivery %d, and it is %d", h.Name, h.Deliveries, k)
	}
	return k
}

// wasPut reports whether a value is there, or was.
func (w *simWorld) wasPut(value string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names[value] != ""
}

func (w *simWorld) empty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.present) == 0 && len(w.locks) == 0
}

// left returns the entries and the locks that are there.
func (w *simWorld) left() (entries, locks []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.present)), slices.Sorted(maps.Keys(w.locks))
}

// during yields the sizes at all instants of an interval.
func (w *simWorld) during(from, to time.Duration) []simSize {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := len(w.sizes) - 1
	for first > 0 && w.sizes[first].at >= from {
		first--
	}
	sizes := w.sizes[first:]
	for len(sizes) > 1 && sizes[len(sizes)-1].at > to {
		sizes = sizes[:len(sizes)-1]
	}
	return slices.Clone(sizes)
}

// entriesBetween returns the least and the largest number of entries in an interval.
func (w *simWorld) entriesBetween(from, to time.Duration) (least, most int) {
	sizes := w.during(from, to)
	least = sizes[0].entries
	for _, z := range sizes {
		least, most = min(least, z.entries), max(most, z.entries)
	}
	return least, most
}

// availableBetween returns the least number of entries in an interval that were not held.
func (w *simWorld) availableBetween(from, to time.Duration) int {
	sizes := w.during(from, to)
	least := sizes[0].available
	for _, z := range sizes {
		least = min(least, z.available)
	}
	return least
}

// open opens a client of the simulated service. A request outside these queues is a violation.
func (s *simulation) open(client string, queues ...string) coord.Coordinator {
	report := func(what string) { s.violation("a node outside the queues: %s", what) }
	return testqueue.Confine(s.sim.Open(client), report, queues...)
}
