package simulation

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// forwardedValue returns the value that a forward puts into the second queue. No two forwards put the same value.
func (l *simPipe) forwardedValue(value string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tries++
	return fmt.Sprint(value, ">", l.tries)
}

// valueBeforeForward returns the value that the entry had in the first queue.
func valueBeforeForward(value string) string {
	value, _, _ = strings.Cut(value, ">")
	return value
}

// valueBeforeUpdates returns the value as it was put.
func valueBeforeUpdates(value string) string { return strings.TrimRight(value, "~") }

// pipeQueue is a queue of the pipeline, as the service has it.
type pipeQueue struct {
	l      *simPipe
	root   string
	nodes  map[string]*simNode // what stands for a value: entries, and delayed puts
	locks  map[string]simLock  // of entries
	index  map[string]bool     // of entries that are put aside: names with their dues
	keys   map[string]bool     // unique ones
	claims map[string]int
	ends   map[simClaim]string // claims that removed the entry: consumed, forwarded, dead, or removed by an operator

	texts   map[simClaim]string // of what was claimed
	removed map[string]int      // client: nodes that it removed
	lives   []*simNode          // in the order in which they came
	max     int                 // 0: any
	exact   bool
	sizes   []pipeSize
}

// simNode is the node of a value: an entry or a delayed put.
type simNode struct {
	name, value, key string
	text             string    // the value with what its holders wrote into it
	due              time.Time // of a delayed put
	expires          time.Time // zero: never
	from, to         time.Duration
	ready            time.Duration // since when a worker might have taken it; never for one that is held or rests
	gone             bool
}

// simLock is the lock of an entry.
type simLock struct {
	session string
	due     time.Time // of one that is put aside
}

// pipeSize is how many nodes there are from an instant on, and how many there may be.
type pipeSize struct {
	at        time.Duration
	have, max int
}

const never = time.Duration(1<<63 - 1)

func newPipeQueue(l *simPipe, root string) pipeQueue {
	return pipeQueue{
		l: l, root: root, nodes: make(map[string]*simNode), locks: make(map[string]simLock), index: make(map[string]bool), keys: make(map[string]bool),
		claims: make(map[string]int), ends: make(map[simClaim]string), texts: make(map[simClaim]string), removed: make(map[string]int), sizes: []pipeSize{{}},
	}
}

func (p *pipeQueue) queue() string { return strings.Trim(p.root, "/") }

// change is what a commit does to a queue.
type change struct {
	born, gone []*simNode
	touched    map[string]bool // names that were claimed, or whose locks changed
	unlocked   map[string]simLock
	dead       map[string]bool
	keys       map[string]bool // that came or went
	broken     bool            // an operator's trace: it took the entry from its holder
}

// applied follows the service. It reports whether the commit belongs to the pipeline.
func (l *simPipe) applied(a coordtest.Applied) bool {
	if !l.on {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	first, mine := l.first.apply(a)
	then, his := l.then.apply(a)
	if !mine && !his {
		return false
	}
	for _, n := range first.born {
		l.checkCreated(n)
	}
	for _, n := range then.born {
		l.checkCreated(n)
	}
	l.first.judge(a, first, then)
	l.then.judge(a, then, change{})
	for _, c := range []change{first, then} {
		for _, n := range c.gone {
			l.lives[valueBeforeForward(n.value)]--
		}
	}
	for _, n := range append(first.born, then.born...) {
		if v := valueBeforeForward(n.value); l.lives[v] > 1 {
			l.s.violation("%q is in %d nodes", v, l.lives[v])
		}
	}
	// A forwarded value must appear in the second queue in the commit that removes it from the first.
	for _, n := range then.born {
		from, again := valueBeforeForward(n.value), func(o *simNode) bool { return o.value == n.value }
		if !slices.ContainsFunc(first.gone, func(o *simNode) bool { return o.value == from }) && !slices.ContainsFunc(then.gone, again) {
			l.s.violation("%q came to %s when nothing left %s", n.value, l.then.root, l.first.root)
		}
	}
	return true
}

// checkCreated requires that a value comes to its queue once, and not before it is due.
func (l *simPipe) checkCreated(n *simNode) {
	l.lives[valueBeforeForward(n.value)]++
	f := l.puts[n.value]
	switch {
	case f == nil:
		l.s.violation("%q is there and was not put", n.value)
	case !n.due.IsZero() && n.due.Before(f.notBefore):
		l.s.violation("%q is due at %v, and was put for %v", n.value, n.due, f.notBefore)
	case n.due.IsZero() && time.Now().Before(f.notBefore):
		l.s.violation("%q was made ready before it was due", n.value)
	case f.key != "" && n.key != keyName(f.key), f.key == "" && n.key != "":
		l.s.violation("%q was put with the key %q, and has %q", n.value, f.key, n.key)
	}
}

// apply applies the commit and returns what it changed.
func (p *pipeQueue) apply(a coordtest.Applied) (c change, mine bool) {
	now := p.l.s.now()
	c = change{touched: make(map[string]bool), unlocked: make(map[string]simLock), dead: make(map[string]bool), keys: make(map[string]bool)}
	for i, op := range a.Ops {
		rest, ok := strings.CutPrefix(op.Path, p.root)
		if !ok {
			continue
		}
		mine = true
		dir, name, _ := strings.Cut(rest, "/")
		if op.Kind == coord.KindSequential {
			name = a.Results[i].Path[strings.LastIndexByte(a.Results[i].Path, '/')+1:]
		}
		created := op.Kind == coord.KindSequential || op.Kind == coord.KindCreate
		due, later := laterDue(name)
		switch {
		case dir == "entries" && created, dir == "delayed" && created && later:
			n := readSimNode(name, string(op.Value), now)
			c.keys[n.key] = true
			if n.due = due; later {
				n.ready = max(now, due.Sub(p.l.s.start))
			}
			p.nodes[name], p.lives, c.born = n, append(p.lives, n), append(c.born, n)
		case (dir == "entries" || dir == "delayed" && later) && op.Kind == coord.KindDelete:
			n := p.nodes[name]
			n.gone, n.to = true, now
			c.keys[n.key] = true
			delete(p.nodes, name)
			p.removed[a.Client]++
			c.gone = append(c.gone, n)
		case dir == "entries" && op.Kind == coord.KindTouch:
			p.claimed(name, c)
		case dir == "entries" && op.Kind == coord.KindSet:
			p.updated(name, string(op.Value), a.Session)
		case dir == "broken":
			c.broken = c.broken || created
		case dir == "delayed":
			p.index[name] = created
			c.touched[name[strings.IndexByte(name, '-')+1:]] = true
			if !created {
				delete(p.index, name)
			}
		case dir == "taken":
			p.lock(name, op, a.Session, c)
		case dir == "unique" && op.Kind == coord.KindDelete:
			delete(p.keys, name)
			c.keys[name] = true
		case dir == "unique":
			p.keys[name], c.keys[name] = true, true
		case dir == "dead" && created:
			c.dead[name[strings.IndexByte(name, '-')+1:]] = true
		case dir == "config":
			var q struct {
				MaxEntries  int `json:"max_entries"`
				Approximate bool
			}
			if err := json.Unmarshal(op.Value, &q); err != nil {
				p.l.s.violation("the configuration %q: %v", op.Value, err)
			}
			p.max, p.exact = q.MaxEntries, q.MaxEntries > 0 && !q.Approximate
		}
	}
	if last := p.sizes[len(p.sizes)-1]; last.have != len(p.nodes) || last.max != p.max {
		p.sizes = append(p.sizes, pipeSize{now, len(p.nodes), p.max})
	}
	return c, mine
}

func (p *pipeQueue) claimed(name string, c change) {
	p.claims[name]++
	c.touched[name] = true
	n := p.nodes[name]
	if lk, locked := p.locks[name]; locked {
		p.l.s.violation("%s was claimed under the lock %+v", name, lk)
	}
	if n.ready > p.l.s.now() {
		p.l.s.violation("%s was claimed before it was ready", name)
	}
	n.ready = never
	p.texts[simClaim{name, p.claims[name]}] = n.text
}

// updated requires that a holder's update changes nothing but the value and the history.
func (p *pipeQueue) updated(name, value, session string) {
	n, now := p.nodes[name], readSimNode(name, value, 0)
	if p.locks[name].session != session {
		p.l.s.violation("%s was written by %s while %+v held it", name, session, p.locks[name])
	}
	if n.value != now.value || n.key != now.key || !n.expires.Equal(now.expires) || now.text != n.text+"~" {
		p.l.s.violation("%q became %q by an update", n.text, value)
	}
	n.text = now.text
}

func (p *pipeQueue) lock(name string, op coord.Op, session string, c change) {
	c.touched[name] = true
	n := p.nodes[name]
	switch op.Kind {
	case coord.KindEphemeral:
		p.locks[name] = simLock{session: session}
	case coord.KindReplace:
		var a struct {
			DueMS int64 `json:"due_ms"`
		}
		if json.Unmarshal(op.Value, &a) != nil || p.locks[name].session != session {
			p.l.s.violation("%s was put aside as %q by %s: %+v", name, op.Value, session, p.locks[name])
		}
		due := time.UnixMilli(a.DueMS)
		p.locks[name] = simLock{due: due}
		if n != nil {
			n.ready = due.Sub(p.l.s.start)
		}
	case coord.KindDelete:
		c.unlocked[name] = p.locks[name]
		delete(p.locks, name)
		if now := p.l.s.now(); n != nil {
			if n.ready != never && n.ready > now {
				p.l.s.violation("%s was made ready before it was due", name)
			}
			n.ready = now
		}
	}
}

// judge requires that a node left the queue in an allowed way, and that nodes which belong together come and go
// together.
func (p *pipeQueue) judge(a coordtest.Applied, c, next change) {
	s := p.l.s
	for _, n := range c.gone {
		same := func(o *simNode) bool { return o.value == n.value }
		passed := slices.ContainsFunc(next.born, func(o *simNode) bool { return o != n && valueBeforeForward(o.value) == n.value })
		old := !n.expires.IsZero() && !time.Now().Before(n.expires)
		lk, unlocked := c.unlocked[n.name]
		moved := slices.ContainsFunc(c.born, same)
		switch {
		case !n.due.IsZero() && moved:
			if time.Now().Before(n.due) {
				s.violation("%q was made an entry before it was due", n.value)
			}
			s.count("piped due")
		case unlocked && lk.session == a.Session && operator(a.Client), c.broken && operator(a.Client) && unlocked && lk.session != "":
			p.ends[simClaim{n.name, p.claims[n.name]}] = "removed"
		case operator(a.Client) && (!unlocked || lk.session == ""): // no client held it
		case unlocked && lk.session == a.Session:
			end := "consumed"
			if passed {
				end = "forwarded"
			} else if c.dead[n.name] {
				end = "dead"
			} else if old {
				s.count("piped expired")
			}
			p.ends[simClaim{n.name, p.claims[n.name]}] = end
		case old && !passed && (!unlocked || lk.session == ""):
			s.count("piped expired unclaimed")
		case !n.due.IsZero():
			s.violation("%q was delayed and is gone", n.value)
		default:
			s.violation("%s (%q) was removed by %s while %+v held it (%v)", n.name, n.value, a.Session, lk, unlocked)
		}
	}
	for name := range c.touched {
		lk, locked := p.locks[name]
		aside := locked && !lk.due.IsZero()
		indexed := 0
		for i := range p.index {
			if _, rest, _ := strings.Cut(i, "-"); rest == name {
				indexed++
			}
		}
		there := aside && p.index[fmt.Sprintf("%013d-%s", lk.due.UnixMilli(), name)]
		switch {
		case aside != there, indexed > 1, indexed == 1 && !there:
			s.violation("%s is delayed: %v, and has %d nodes in the index (as a delayed entry: %v)", name, aside, indexed, there)
		case locked && p.nodes[name] == nil:
			s.violation("a lock without an entry: %s", name)
		}
		if aside {
			s.count("piped aside")
			p.l.checkDelay(p, name, lk.due)
		}
	}
	p.judgeKeys(c)
	if len(c.born) > len(c.gone) && p.exact && len(p.nodes) > p.max {
		s.violation("%s takes %d entries, and holds %d", p.root, p.max, len(p.nodes))
	}
}

// simConfigAge is how long a handle may use an approximate bound after it read it.
const simConfigAge = 10 * time.Second

// judgeKeys requires that a key exists exactly while one entry, or delayed put, has it.
func (p *pipeQueue) judgeKeys(c change) {
	delete(c.keys, "")
	for key := range c.keys {
		var standing []string
		for _, n := range p.nodes {
			if n.key == key {
				standing = append(standing, n.value)
			}
		}
		if len(standing) > 1 || p.keys[key] != (len(standing) == 1) {
			p.l.s.violation("the key %.8s is there: %v, and %q stand for it", key, p.keys[key], standing)
		}
	}
}

// laterDue returns when the delayed put of that name is due.
func laterDue(name string) (due time.Time, ok bool) {
	ms, rest, _ := strings.Cut(name, "-")
	n, err := strconv.ParseInt(ms, 10, 64)
	if err != nil || !strings.HasPrefix(rest, "put-") {
		return time.Time{}, false
	}
	return time.UnixMilli(n), true
}

func readSimNode(name, value string, now time.Duration) *simNode {
	n := &simNode{name: name, value: value, from: now, ready: now}
	if i := strings.LastIndexByte(value, '}'); i >= 0 {
		var h struct {
			ExpiresMS int64 `json:"expires_ms"`
			Unique    string
		}
		json.Unmarshal([]byte(value[strings.IndexByte(value, '{'):i+1]), &h)
		if n.value, n.key = value[i+1:], h.Unique; h.ExpiresMS > 0 {
			n.expires = time.UnixMilli(h.ExpiresMS)
		}
	}
	n.text = n.value
	n.value = valueBeforeUpdates(n.text)
	return n
}

// keyName returns the name of a key's node.
func keyName(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// unfinished returns what is still to be done, or "".
func (l *simPipe) unfinished() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left > 0 {
		return fmt.Sprint(l.left, " feeders are not done")
	}
	for _, p := range []*pipeQueue{&l.first, &l.then} {
		if len(p.nodes)+len(p.locks)+len(p.index)+len(p.keys) > 0 {
			return fmt.Sprint(p.root, " holds ", slices.Sorted(maps.Keys(p.nodes)), " locks ", slices.Sorted(maps.Keys(p.locks)),
				" put aside ", slices.Sorted(maps.Keys(p.index)), " keys ", slices.Sorted(maps.Keys(p.keys)))
		}
	}
	return ""
}
