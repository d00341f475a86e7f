package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/coord/coordtest/sim"
	"github.com/zkq/zkq/retained"
)

// simLog is the part of a plan about a log, and the history of that log. Processes append, and two readers for each
// label compete.
type simLog struct {
	on        bool
	appenders int
	appends   int // of each
	keep      int // entries, the rest is trimmed; 0: all
	labels    []retained.Start

	s *simulation

	mu      sync.Mutex
	next    int64            // what the service numbers next
	values  map[int64]string // of all numbers given
	removed map[int64]bool
	moves   map[string]int64  // cursors
	began   map[string]int64  // where they did
	names   map[string]string // cursor: its label
	left    int               // appenders that are not done
	puts    []*simAppend
	reads   []*simRead
}

// simAppend is an append as its caller saw it.
type simAppend struct {
	values  []string
	first   int64
	outcome string // ok, unknown, failed
}

// simRead is a batch that a reader committed, as the reader saw it.
type simRead struct {
	label   string
	numbers []int64
	values  []string
	outcome string
}

const simLogDir = "/events/retained/"

// newSimLog uses a random source of its own, so that the rest of the plan does not depend on it.
func newSimLog(seed uint64) *simLog {
	rng := rand.New(rand.NewPCG(seed, 12))
	l := &simLog{
		on: rng.IntN(4) == 0, appenders: 1 + rng.IntN(3), appends: 1 + rng.IntN(10), labels: []retained.Start{retained.Oldest},
		values: make(map[int64]string), removed: make(map[int64]bool), moves: make(map[string]int64), began: make(map[string]int64), names: make(map[string]string),
	}
	if rng.IntN(3) == 0 {
		l.keep = 1 + rng.IntN(6)
	}
	if rng.IntN(2) == 0 {
		l.labels = append(l.labels, retained.Newest)
	}
	return l
}

// applied follows the service. Numbers must be in the order of commits and without gaps. A label must only move
// forward, and never beyond the last number.
func (l *simLog) applied(a coordtest.Applied) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, head := l.next, int64(-1)
	for _, op := range a.Ops {
		name, ok := strings.CutPrefix(op.Path, simLogDir)
		if !ok {
			continue
		}
		kind, rest, _ := strings.Cut(name, "/")
		var at struct {
			Next   int64
			Labels map[string]int64
		}
		if kind != "entries" && op.Kind != coord.KindDelete {
			if err := json.Unmarshal(op.Value, &at); err != nil {
				l.s.violation("%s holds %q: %v", op.Path, op.Value, err)
			}
		}
		switch number, _ := strconv.ParseInt(rest[:min(len(rest), 19)], 10, 64); {
		case kind == "head":
			head = at.Next
		case kind == "labels":
			for name, id := range at.Labels {
				l.names[fmt.Sprintf("%019d", id)] = name
			}
		case kind == "entries" && op.Kind == coord.KindCreate:
			if number != l.next {
				l.s.violation("%q got the number %d when %d was next", op.Value, number, l.next)
			}
			l.values[number] = string(op.Value)
			l.next++
		case kind == "entries":
			if l.removed[number] {
				l.s.violation("number %d was removed twice", number)
			}
			l.removed[number] = true
		case kind == "cursors" && op.Kind == coord.KindCreate:
			l.moves[rest], l.began[rest] = at.Next, at.Next
		case kind == "cursors" && op.Kind == coord.KindSet:
			if at.Next < l.moves[rest] || at.Next > l.next {
				l.s.violation("label %s moved from %d to %d of %d", rest, l.moves[rest], at.Next, l.next)
			}
			l.moves[rest] = at.Next
		}
	}
	if head >= 0 && head != l.next || head < 0 && l.next != before {
		l.s.violation("after numbers up to %d the head says %d", l.next, head)
	}
}

// run is the log's workload, beside that of the queue.
func (l *simLog) run(ctx, faulty context.Context, wg *sync.WaitGroup) {
	start := func(i int, name string, f func(ctx context.Context, log *retained.Log, rng *rand.Rand)) {
		l.s.spawn(wg, func() {
			c := l.s.open(name, "events")
			defer c.Close()
			log := retained.NewLog(c, "events", retained.Config{Keep: l.keep, Producer: fmt.Sprintf("%016x", 0xe0000+i)})
			defer log.Close()
			f(sim.WithActor(ctx, name), log, rand.New(rand.NewPCG(l.s.plan.seed, 200+uint64(i))))
		})
		time.Sleep(time.Millisecond)
	}
	l.left = l.appenders
	for i := range l.appenders {
		start(i, fmt.Sprint("appender", i), func(ctx context.Context, log *retained.Log, rng *rand.Rand) { l.append(ctx, log, i, rng) })
	}
	for i := range 2 * len(l.labels) {
		start(10+i, fmt.Sprint("reader", i), func(ctx context.Context, log *retained.Log, rng *rand.Rand) {
			name := fmt.Sprint("label", i/2)
			l.read(ctx, faulty, log.Label(name, l.labels[i/2]), name, i, rng)
		})
	}
}

func (l *simLog) append(ctx context.Context, log *retained.Log, i int, rng *rand.Rand) {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.left--
	}()
	for n := 0; n < l.appends && ctx.Err() == nil; {
		simTurn(30 + i)
		a := &simAppend{}
		var values [][]byte
		for k := range 1 + rng.IntN(3) {
			a.values = append(a.values, fmt.Sprint(i, ":", n, ":", k))
			values = append(values, []byte(a.values[k]))
		}
		trying, cancel := ctx, context.CancelFunc(func() {})
		if rng.IntN(3) == 0 {
			trying, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(3000))*time.Millisecond)
		}
		var err error
		a.first, err = log.Append(trying, values...)
		cancel()
		switch {
		case err == nil:
			a.outcome = "ok"
		case errors.Is(err, zkq.ErrUnknown):
			a.outcome = "unknown"
		default:
			a.outcome = "failed"
		}
		l.s.count("append " + a.outcome)
		if a.outcome != "failed" {
			n++
		}
		l.mu.Lock()
		l.puts = append(l.puts, a)
		l.mu.Unlock()
		simSleep(ctx, time.Duration(rng.IntN(1500))*time.Millisecond)
	}
}

func (l *simLog) read(ctx, faulty context.Context, label *retained.Label, name string, i int, rng *rand.Rand) {
	for ctx.Err() == nil {
		simTurn(40 + i)
		batch, err := label.Read(ctx, 1+rng.IntN(4))
		if err != nil {
			simSleep(ctx, time.Duration(1+rng.IntN(300))*time.Millisecond)
			continue
		}
		r := &simRead{label: name}
		for _, e := range batch.Entries {
			r.numbers, r.values = append(r.numbers, e.Number), append(r.values, string(e.Value))
		}
		simSleep(ctx, time.Duration(rng.IntN(200))*time.Millisecond)
		for again := true; again; {
			trying, cancel := ctx, context.CancelFunc(func() {})
			if faulty.Err() == nil && rng.IntN(3) == 0 {
				trying, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(2000))*time.Millisecond)
			}
			err = batch.Commit(trying)
			cancel()
			again = errors.Is(err, zkq.ErrUnknown) && rng.IntN(2) == 0 && ctx.Err() == nil
		}
		switch {
		case err == nil:
			r.outcome = "ok"
		case errors.Is(err, retained.ErrMoved):
			r.outcome = "moved"
		case errors.Is(err, zkq.ErrUnknown):
			r.outcome = "unknown"
		default:
			r.outcome = "failed"
		}
		l.s.count("label " + r.outcome)
		l.mu.Lock()
		l.reads = append(l.reads, r)
		l.mu.Unlock()
	}
}

// unread returns what is still to be done, or "".
func (l *simLog) unread() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left > 0 {
		return fmt.Sprint(l.left, " appenders are not done")
	}
	for id, next := range l.moves {
		if next < l.next {
			return fmt.Sprint("a label is at ", next, " of ", l.next)
		}
		if l.names[id] == "" {
			return "a cursor has no label"
		}
	}
	if l.on && len(l.moves) != len(l.labels) {
		return fmt.Sprint(len(l.moves), " labels were made of ", len(l.labels))
	}
	return ""
}

// check requires that appended entries have the numbers that callers were told, and that each label was handed each
// entry in one committed batch, unless the entry was removed first.
func (l *simLog) check() {
	byValue := make(map[string]int64)
	for number, value := range l.values {
		if _, twice := byValue[value]; twice {
			l.s.violation("%q was appended twice", value)
		}
		byValue[value] = number
	}
	for _, a := range l.puts {
		for i, value := range a.values {
			number, there := byValue[value]
			switch {
			case a.outcome == "ok" && (!there || number != a.first+int64(i)):
				l.s.violation("%q was appended as %d, and is %d (%v)", value, a.first+int64(i), number, there)
			case a.outcome == "failed" && there && !l.again(value, a):
				l.s.violation("the append of %q failed, and it is %d", value, number)
			}
		}
	}
	sure, perhaps := make(map[string]bool), make(map[string]bool)
	for _, r := range l.reads {
		for i, number := range r.numbers {
			key := fmt.Sprint(r.label, " ", number)
			if l.values[number] != r.values[i] {
				l.s.violation("%s read %q as %d, which is %q", r.label, r.values[i], number, l.values[number])
			}
			switch r.outcome {
			case "ok":
				if sure[key] {
					l.s.violation("%s is past %d twice", r.label, number)
				}
				sure[key] = true
			case "unknown":
				perhaps[key] = true
			}
		}
	}
	for id, next := range l.moves {
		for number := l.began[id]; number < next; number++ {
			if key := fmt.Sprint(l.names[id], " ", number); !sure[key] && !perhaps[key] && !l.removed[number] {
				l.s.violation("%s came from %d to %d, and %d (%q) was handed to no reader", l.names[id], l.began[id], next, number, l.values[number])
			}
		}
	}
}

// again reports whether another append of the same caller had the same value.
func (l *simLog) again(value string, a *simAppend) bool {
	for _, o := range l.puts {
		for _, v := range o.values {
			if o != a && v == value && o.outcome != "failed" {
				return true
			}
		}
	}
	return false
}
