package simulation

import (
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Two models that a history must fit. The model of one entry is checked for every entry. The model of a whole queue is
// checked for small histories. What the service did by itself is an operation at one instant: it ended a session, undid
// a claim, or an operator took an entry.

// entryOp is something that happened to one entry.
type entryOp struct {
	client    string
	kind      entryKind
	name      string
	k         int  // the number of the claim that it makes or ends
	unknown   bool // it may have happened
	fresh     bool // a claim that followed a fresh look
	call, ret time.Duration
}

type entryKind uint8

const (
	opPut entryKind = iota
	opClaim
	opUnlock // a release, or whatever else gave the lock back
	opRemove // a consume, or a removal by hand
)

// entryOps returns the history of each entry.
func (s *simulation) entryOps() map[string][]entryOp {
	ops := make(map[string][]entryOp)
	add := func(o entryOp) {
		if o.unknown {
			o.ret = math.MaxInt64
		}
		ops[o.name] = append(ops[o.name], o)
	}
	for _, p := range s.puts {
		for _, value := range p.values {
			if name := s.world.names[value]; name != "" {
				add(entryOp{client: p.client, kind: opPut, name: name, unknown: p.outcome == "unknown", call: p.call, ret: p.ret})
			}
		}
	}
	held := make(map[simClaim]*simHold)
	for _, h := range s.holds {
		held[simClaim{h.name, h.deliveries}] = h
		add(entryOp{client: h.client, kind: opClaim, name: h.name, k: h.deliveries, fresh: h.fresh, call: h.call, ret: h.from})
		kind := opRemove
		if h.act == "release" || h.act == "fail" {
			kind = opUnlock
		}
		if h.outcome == "ok" || h.outcome == "unknown" {
			add(entryOp{client: h.client, kind: kind, name: h.name, k: h.deliveries, unknown: h.outcome == "unknown", call: h.until, ret: h.ret})
		}
	}
	for _, e := range s.world.log {
		// The holder reports its own finish.
		if held[simClaim{e.name, e.k}] == nil || e.other && e.kind != opClaim {
			add(entryOp{client: "service", kind: e.kind, name: e.name, k: e.k, call: e.at, ret: e.at})
		}
	}
	return ops
}

// checkEntries requires that the history of each entry fits the model. If every outcome is known, only one order is
// possible, and inOrder decides as porcupine would. Otherwise porcupine searches for an order.
func (s *simulation) checkEntries(ops map[string][]entryOp) {
	for name, of := range ops {
		unknown := slices.ContainsFunc(of, func(o entryOp) bool { return o.unknown })
		fits := true
		if !unknown {
			fits = inOrder(of)
		}
		if unknown || s.plan.sampled() {
			s.counts["by porcupine"]++
			if known := porcupine.CheckOperations(entryModel, operations(of)); !unknown && known != fits {
				s.violation("the two checks of %s do not agree: %+v", name, of)
			} else {
				fits = known
			}
		}
		if !fits {
			s.violation("no order of the operations on %s is possible: %+v", name, of)
		}
	}
}

// inOrder reports whether a history with known outcomes is possible: put, claim 1, its end, claim 2, its end.
func inOrder(ops []entryOp) bool {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b entryOp) int {
		if a.k != b.k {
			return a.k - b.k
		}
		return int(a.kind) - int(b.kind)
	})
	var latest time.Duration
	st := entryState{}
	for _, o := range ops {
		latest = max(latest, o.call)
		next, ok := st.after(o)
		if !ok || latest > o.ret {
			return false
		}
		st = next
	}
	return true
}

func operations(ops []entryOp) []porcupine.Operation {
	clients := make(map[string]int)
	history := make([]porcupine.Operation, len(ops))
	for i, o := range ops {
		if _, ok := clients[o.client]; !ok {
			clients[o.client] = len(clients)
		}
		history[i] = porcupine.Operation{ClientId: clients[o.client], Input: o, Call: int64(o.call), Return: int64(o.ret)}
	}
	return history
}

// entryState is the state of an entry.
type entryState struct {
	phase entryPhase
	k     int           // claims so far
	since time.Duration // at the latest it was ready then; no time if that is unknown
}

type entryPhase uint8

const (
	absent entryPhase = iota
	ready
	held
	gone
)

// after returns the state after an op, if the op was possible.
func (st entryState) after(o entryOp) (entryState, bool) {
	switch {
	case o.kind == opPut && st.phase == absent:
		return entryState{phase: ready, since: o.ret}, true
	case o.kind == opClaim && st.phase == ready && o.k > st.k:
		return entryState{phase: held, k: o.k}, true
	case o.kind == opUnlock && st.phase == held && o.k == st.k:
		return entryState{phase: ready, k: st.k, since: o.ret}, true
	case o.kind == opRemove && st.phase == held && o.k == st.k:
		return entryState{phase: gone, k: st.k}, true
	}
	return st, false
}

var entryModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{entryState{}} },
	Step: func(state, input, _ any) (next []any) {
		o := input.(entryOp)
		if st, ok := state.(entryState).after(o); ok {
			next = append(next, st)
		}
		if o.unknown {
			next = append(next, state)
		}
		return next
	},
}).ToModel()

// The whole queue is checked only where porcupine finishes. It cannot try every combination of many unknown outcomes.
const (
	windowOps     = 400
	windowClients = 8
	windowUnknown = 4
	windowTime    = 20 * time.Second
)

// sampled reports whether this schedule gets the expensive checks too.
func (p *simPlan) sampled() bool { return p.seed%50 == 0 }

// checkQueue requires one order of all operations in which every claim that followed a fresh look took the first entry
// of those that had been ready since before the claim was called.
func (s *simulation) checkQueue(ops map[string][]entryOp) {
	var all []entryOp
	clients, unknown := make(map[string]bool), 0
	for _, of := range ops {
		for _, o := range of {
			if clients[o.client] = true; o.unknown {
				unknown++
			}
			all = append(all, o)
		}
	}
	if len(all) > windowOps || len(clients) > windowClients || unknown > windowUnknown {
		return
	}
	s.counts["window"]++
	switch porcupine.CheckOperationsTimeout(queueModel, operations(all), windowTime) {
	case porcupine.Illegal:
		s.violation("no order of the %d operations on the queue is possible", len(all))
		slices.SortFunc(all, func(a, b entryOp) int { return int(a.call - b.call) })
		for _, o := range all {
			println(o.call.String(), o.ret.String(), o.client, []string{"put", "claim", "unlock", "remove"}[o.kind], o.name, o.k, o.unknown, o.fresh)
		}
	case porcupine.Unknown:
		s.violation("porcupine did not get through %d operations", len(all))
	}
}

// queueState holds the entries by name.
type queueState []queueEntry

type queueEntry struct {
	name string
	entryState
}

func (q queueState) after(o entryOp) (queueState, bool) {
	i, found := slices.BinarySearchFunc(q, o.name, func(e queueEntry, name string) int { return strings.Compare(e.name, name) })
	var st entryState
	if found {
		st = q[i].entryState
	}
	next, ok := st.after(o)
	if !ok {
		return nil, false
	}
	if o.kind == opClaim && o.fresh {
		for _, e := range q[:i] {
			if e.phase == ready && e.since < o.call {
				return nil, false
			}
		}
	}
	q = slices.Clone(q)
	if !found {
		return slices.Insert(q, i, queueEntry{o.name, next}), true
	}
	q[i].entryState = next
	return q, true
}

var queueSeed = maphash.MakeSeed()

var queueModel = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{queueState(nil)} },
	Step: func(state, input, _ any) (next []any) {
		o := input.(entryOp)
		if q, ok := state.(queueState).after(o); ok {
			next = append(next, q)
		}
		if o.unknown {
			next = append(next, state)
		}
		return next
	},
	Equal: func(a, b any) bool { return slices.Equal(a.(queueState), b.(queueState)) },
	Hash: func(state any) uint64 {
		var h maphash.Hash
		h.SetSeed(queueSeed)
		for _, e := range state.(queueState) {
			maphash.WriteComparable(&h, e)
		}
		return h.Sum64()
	},
}).ToModel()
