package simulation

import "slices"

// check judges the whole history.
func (s *simulation) check() {
	s.checkPuts()
	s.plan.log.check()
	s.plan.pipe.check()
	if s.plan.plain {
		s.checkGets()
		return
	}
	s.checkHolds()
	s.checkDeadEntries()
	s.checkOrder()
	s.checkWakeUps()
	ops := s.entryOps()
	s.checkEntries(ops)
	if s.plan.sampled() {
		s.checkQueue(ops)
	}
	if s.plan.rates.Expire == 0 && s.plan.rates.Pause == 0 {
		s.checkExclusion()
	}
}

// checkPuts requires that what was put is there or was removed, and that nothing else is there.
func (s *simulation) checkPuts() {
	s.counts["entries"] += len(s.world.removed)
	byName := make(map[string]string)
	for _, p := range s.puts {
		for i, value := range p.values {
			name := s.world.names[value]
			switch p.outcome {
			case "ok":
				if p.names == nil {
					p.names = make([]string, len(p.values)) // resolved
				}
				if p.names[i] == "" { // it was taken before its name was read
					p.names[i] = name
				}
				if name != p.names[i] {
					s.violation("%q was put as %s and is %q", value, p.names[i], name)
				}
				if other, ok := byName[name]; ok {
					s.violation("%q and %q got the name %s", value, other, name)
				}
				byName[name] = value
				if _, removed := s.world.removed[name]; !s.world.present[name] && !removed {
					s.violation("%s (%s) was put and is neither there nor was it removed", name, value)
				}
			case "failed", "void":
				if name != "" {
					s.violation("the put of %q was not applied (%s), and it is %s", value, p.outcome, name)
				}
			}
		}
		if p.names != nil && !slices.IsSorted(p.names) {
			s.violation("a batch has another order than its values: %v", p.names)
		}
	}
}

// checkGets requires that a simple queue handed out each entry once, and that an entry is lost only with a get of
// unknown outcome.
func (s *simulation) checkGets() {
	sure, doubtful := make(map[string]int), make(map[string]int)
	for _, g := range s.gets {
		switch g.outcome {
		case "unknown":
			doubtful[g.name]++
		case "ok":
			sure[g.name]++
			if _, removed := s.world.removed[g.name]; !removed {
				s.violation("%s was handed out and is still there", g.name)
			}
		}
	}
	for name := range s.world.removed {
		switch {
		case sure[name] > 1:
			s.violation("%s was handed out %d times without a doubt", name, sure[name])
		case sure[name]+doubtful[name] == 0:
			s.violation("%s was removed, and no caller was handed it", name)
		}
	}
}

// checkHolds requires that tokens grow, that one consume, by the holder, removes an entry, and that a successful
// release or failure gave the entry back.
func (s *simulation) checkHolds() {
	oks := make(map[string]int)
	lastToken := make(map[string]map[int]int64)
	unlocked := make(map[simClaim]bool) // claims whose holder gave the entry back
	for _, e := range s.world.log {
		if e.kind == opUnlock && !e.other {
			unlocked[simClaim{e.name, e.k}] = true
		}
	}
	for _, h := range s.holds {
		r, gone := s.world.removed[h.name]
		mine := gone && r.claim == h.deliveries && !r.byHand
		switch h.act + " " + h.outcome {
		case "consume ok":
			if oks[h.name]++; oks[h.name] > 1 {
				s.violation("%s was consumed twice", h.name)
			}
			if !mine {
				s.violation("consume of %s (delivery %d) was ok and did not remove it (%v, %v)", h.name, h.deliveries, r, gone)
			}
		case "bury ok":
			if !mine || !r.dead {
				s.violation("bury of %s (delivery %d) was ok and did not move it to the dead (%v, %v)", h.name, h.deliveries, r, gone)
			}
		case "release ok", "fail ok":
			if mine || !unlocked[simClaim{h.name, h.deliveries}] {
				s.violation("%s of %s (delivery %d) was ok and did not give it back", h.act, h.name, h.deliveries)
			}
		case "consume unknown", "bury unknown":
		default:
			if mine {
				s.violation("%s %s of %s (delivery %d) removed it", h.act, h.outcome, h.name, h.deliveries)
			}
		}
		switch {
		case mine && r.dead != (h.act == "bury"):
			s.violation("%s of %s left it dead: %v", h.act, h.name, r.dead)
		case s.plan.deliveries > 0 && s.world.counted[h.name][h.deliveries-1] >= s.plan.deliveries:
			s.violation("%s was handed out once more after %v deliveries that count, of %d", h.name, s.world.counted[h.name], s.plan.deliveries)
		}
		if lastToken[h.name] == nil {
			lastToken[h.name] = make(map[int]int64)
		}
		if old := lastToken[h.name][h.deliveries]; old != 0 {
			s.violation("%s has two deliveries number %d", h.name, h.deliveries)
		}
		lastToken[h.name][h.deliveries] = h.token
	}
	for name, tokens := range lastToken {
		var last int64
		for d := 1; d <= s.world.claims[name]; d++ {
			if token, ok := tokens[d]; ok {
				if token <= last {
					s.violation("%s: delivery %d has token %d after %d", name, d, token, last)
				}
				last = token
			}
		}
	}
}

// checkExclusion requires that no two holders believe at the same time that they hold the entry.
func (s *simulation) checkExclusion() {
	byName := make(map[string][]*simHold)
	for _, h := range s.holds {
		byName[h.name] = append(byName[h.name], h)
	}
	for name, holds := range byName {
		if s.world.broken[name] {
			continue
		}
		slices.SortFunc(holds, func(a, b *simHold) int { return a.deliveries - b.deliveries })
		for i := 1; i < len(holds); i++ {
			if before := holds[i-1]; holds[i].from < before.until {
				s.violation("%s: delivery %d from %v, while delivery %d worked until %v", name,
					holds[i].deliveries, holds[i].from, before.deliveries, before.until)
			}
		}
	}
}
