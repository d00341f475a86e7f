package simulation

import (
	"errors"
	"time"

	"github.com/zkq/zkq"
)

// notePut records what is about to be put.
func (l *simPipe) notePut(f *simFeed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.ttl > 0 {
		f.expires = time.Now().Add(f.ttl)
	}
	for _, v := range f.values {
		l.puts[v] = f
	}
}

// counted counts a put and its kind.
func (l *simPipe) counted(f *simFeed, what string) {
	l.s.count(what)
	if f.key != "" {
		l.s.count("feed of a key")
	}
}

// refused requires that the reason for which a put was refused held at some time during the call.
func (l *simPipe) refused(f *simFeed, call time.Duration, err error) {
	p, now := f.pool, l.s.now()
	exists := (*zkq.ExistsError)(nil)
	switch {
	case errors.As(err, &exists):
		l.s.count("piped exists")
		for _, n := range p.lives {
			if n.name == exists.Name && n.key == keyName(f.key) && n.from <= now && (!n.gone || n.to >= call) {
				return
			}
		}
		l.s.violation("%q was refused from %v because %s has the key %q, which was free during the call", f.values, call, exists.Name, f.key)
	case errors.Is(err, zkq.ErrFull):
		l.s.count("piped full")
		least, have, heard := 0, 0, call
		if !p.exact {
			heard -= simConfigAge
		}
		for i, z := range p.sizes {
			until := now
			if i+1 < len(p.sizes) {
				until = p.sizes[i+1].at
			}
			if z.at <= now && until >= call {
				have = max(have, z.have)
			}
			if z.at <= now && until >= heard && z.max > 0 && (least == 0 || z.max < least) {
				least = z.max
			}
		}
		if least > 0 && have+len(f.values) > least {
			return
		}
		l.s.violation("%q was refused from %v because %s was full, which it was not", f.values, call, p.root)
	}
}

// empty requires that no call returned ErrEmpty while an entry was ready, or due, during the whole call.
func (l *simPipe) empty(p *pipeQueue, call time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.s.count("piped empty")
	for _, n := range p.nodes {
		if _, locked := p.locks[n.name]; n.ready < call && (!locked || !p.locks[n.name].due.IsZero()) && (n.expires.IsZero() || time.Now().Before(n.expires)) {
			l.s.violation("empty was said from %v of %s, and %s (%q) was ready since %v", call, p.root, n.name, n.value, n.ready)
		}
	}
}

// handedOut requires that an entry which is handed out is due and has not expired.
func (l *simPipe) handedOut(p *pipeQueue, h *zkq.Held) *simPiped {
	l.mu.Lock()
	defer l.mu.Unlock()
	hold := &simPiped{pool: p, name: h.Name, value: valueBeforeUpdates(string(h.Value)), k: h.Deliveries}
	k := h.Deliveries
	if p.nodes[h.Name] == nil { // an operator removed it with its history, so updates count as deliveries
		k = p.claims[h.Name]
	}
	if text := p.texts[simClaim{h.Name, k}]; text != string(h.Value) {
		l.s.violation("%s held %q, and was handed out as %q", h.Name, text, h.Value)
	}
	l.holds = append(l.holds, hold)
	l.s.count("piped")
	f := l.puts[hold.value]
	switch {
	case f == nil:
		l.s.violation("%q was handed out and was not put", hold.value)
	case time.Now().Before(f.notBefore):
		l.s.violation("%q was handed out before it was due", hold.value)
	case !f.expires.IsZero() && time.Now().After(f.expires):
		l.s.violation("%q was handed out after it had expired", hold.value)
	}
	return hold
}

// noteDelay records until when a holder delays its entry.
func (l *simPipe) noteDelay(hold *simPiped, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	hold.notBefore = until
}

// checkDelay requires that an entry is delayed for as long as its holder asked.
func (l *simPipe) checkDelay(p *pipeQueue, name string, due time.Time) {
	for _, hold := range l.holds {
		if hold.pool == p && hold.name == name && hold.k == p.claims[name] && !due.Before(hold.notBefore) && hold.act == "aside" {
			return
		}
	}
	l.s.violation("%s was put aside until %v, which its holder did not say", name, due)
}

// check judges the whole history. Puts did what they report, and each entry that was taken left once, by a finish of
// its holder.
func (l *simPipe) check() {
	seen := make(map[string]*simNode)
	for _, p := range []*pipeQueue{&l.first, &l.then} {
		for _, n := range p.lives {
			if was := seen[n.value]; was != nil && was.due.IsZero() {
				l.s.violation("%q is there twice: %s and %s", n.value, was.name, n.name)
			}
			seen[n.value] = n
		}
	}
	names := make(map[string]map[string]bool) // value: what stood for it was called so
	for _, n := range l.first.lives {
		if names[n.value] == nil {
			names[n.value] = make(map[string]bool)
		}
		names[n.value][n.name] = true
	}
	for v, f := range l.puts {
		switch {
		case f.pool != &l.first:
		case f.outcome == "ok" && seen[v] == nil:
			l.s.violation("%q was put, and never was there", v)
		case (f.outcome == "failed" || f.outcome == "void") && seen[v] != nil:
			l.s.violation("the put of %q was not applied (%s), and it was there", v, f.outcome)
		}
		for i := range f.names {
			if name := f.names[i]; f.values[i] == v && name != "" && !names[v][name] {
				l.s.violation("%q was put as %s, and was called %v", v, name, names[v])
			}
		}
	}
	held := make(map[*pipeQueue]map[simClaim]bool)
	held[&l.first], held[&l.then] = make(map[simClaim]bool), make(map[simClaim]bool)
	ends := map[string]string{"consume": "consumed", "forward": "forwarded", "bury": "dead"}
	for _, h := range l.holds {
		this := simClaim{h.name, h.k}
		if held[h.pool][this] {
			l.s.violation("%s has two deliveries number %d", h.name, h.k)
		}
		held[h.pool][this] = true
		end := h.pool.ends[this]
		if end == "removed" && h.outcome != "ok" {
			continue
		}
		switch {
		case h.outcome == "ok" && end != ends[h.act]:
			l.s.violation("%s of %s (delivery %d) was ok, and it was %q", h.act, h.name, h.k, end)
		case h.outcome != "ok" && h.outcome != "unknown" && end != "":
			l.s.violation("%s %s of %s (delivery %d), and it was %s", h.act, h.outcome, h.name, h.k, end)
		case h.outcome == "unknown" && end != "" && end != ends[h.act]:
			l.s.violation("%s of %s (delivery %d) is unknown, and it was %s", h.act, h.name, h.k, end)
		}
	}
	for _, p := range []*pipeQueue{&l.first, &l.then} {
		for this, end := range p.ends {
			if f := l.puts[p.valueOf(this.name)]; !held[p][this] && end != "removed" && (end != "consumed" || f.ttl == 0) {
				l.s.violation("%s (delivery %d) was %s, and no caller was handed it", this.name, this.k, end)
			}
		}
	}
}

func (p *pipeQueue) valueOf(name string) string {
	for _, n := range p.lives {
		if n.name == name {
			return n.value
		}
	}
	return ""
}
