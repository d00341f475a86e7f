package zkq_test

// mutants, by the part of the code. Those that are kazoo's mistakes have their
// number there.
var mutants = []mutant{
	// Claims.
	{
		name: "claim that moves no fence", seeds: "900003", file: "claim.go",
		is: `a.ops = []coord.Op{coord.Touch(n.Path, n.Value, n.Fence), `,
		becomes: `mutated()
	a.ops = []coord.Op{coord.Check(n.Path, n.Fence), `,
	},
	{
		name: "claim in two steps, lock first (K4)", file: "claim.go",
		is: `	rs, err := s.Commit(ctx, a.ops...)
	var h *Held
`,
		becomes: `	mutated()
	rs, err := s.Commit(ctx, a.ops[1])
	if err == nil {
		var first []coord.Result
		first, err = s.Commit(ctx, a.ops[0])
		rs = append(first, rs...)
	}
	var h *Held
`,
	},
	{
		name: "lost reply of a claim taken for a refusal (K5)", file: "claim.go",
		is: `		h, err = q.resolveClaim(ctx, a)
	}
	if err == nil {`,
		becomes: `		mutated()
		err = errGone
	}
	if err == nil {`,
	},
	{
		name: "lost reply of a claim taken for success", seeds: "900002", file: "claim.go",
		is: `		h, err = q.resolveClaim(ctx, a)
	}
	if err == nil {`,
		becomes: `		mutated()
		h = q.held(a, n.Fence+1, lock.Taken(s, coord.Result{Path: path.Join(q.taken, name), Fence: 1}, q.holder), n.Revision+1)
		err = nil
	}
	if err == nil {`,
	},
	{
		name: "cancelled claim that nobody undoes", file: "claim.go",
		is: `		q.undoClaim(a, h)
`,
		becomes: `		mutated()
`,
	},
	{
		name: "claim in doubt is passed over", file: "claim.go",
		is: `	if errors.Is(err, errBlocked) {
		q.claims.pass(name)
	}
	q.spawn(`,
		becomes: `	mutated()
	q.claims.pass(name)
	q.spawn(`,
		test: "TestClaimInDoubtIsNotPassedOver",
	},
	{
		name: "token that does not grow", seeds: "900003", file: "claim.go",
		is:      `		Token:      token,`,
		becomes: `		Token:      func() int64 { mutated(); return 1 }(),`,
	},
	{
		name: "entry handed out however often it was delivered", seeds: "900002", file: "dead.go",
		is: `	return q.maxDeliveries > 0 && h.changes`,
		becomes: `	mutated()
	return q.maxDeliveries > 1000 && h.changes`,
	},

	// Finishes.
	{
		name: "finish without the entry's fence", seeds: "900030", file: "held.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry,`,
		becomes: `	mutated()
	if n, err := h.lock.Session().Get(ctx, h.entry); err == nil {
		f.entry.Fence = n.Fence
	}
	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry,`,
	},
	{
		name: "finish that looks whether it holds the lock, and goes by path (K1)", seeds: "900008", file: "held.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, h.lock.GiveBack()}, beside...)...)`,
		becomes: `	if holds, err := h.lock.Holds(ctx); err != nil || !holds {
		return coord.ErrSessionLost
	}
	mutated()
	s, err := h.queue.session(ctx)
	if err != nil {
		return err
	}
	back := h.lock.GiveBack()
	if n, err := s.Get(ctx, h.entry); err == nil {
		f.entry.Fence = n.Fence
	}
	if n, err := s.Get(ctx, back.Path); err == nil {
		back.Fence = n.Fence
	}
	_, err = s.Commit(ctx, append([]coord.Op{f.entry, back}, beside...)...)`,
	},
	{
		name: "refused finish taken for success (K2)", seeds: "900015", file: "held.go",
		is: `		case r != nil, lostBefore(err) && h.unknown == "":
			return end(stateLost, ErrLockLost)`,
		becomes: `		case r != nil, lostBefore(err) && h.unknown == "":
			mutated()
			return end(stateDone, nil)`,
	},
	{
		name: "lost reply of a finish taken for success", seeds: "900011", file: "held.go",
		is: `			h.unknown = f.act
`,
		becomes: `			mutated()
			return end(stateDone, nil)
`,
	},
	{
		name: "finish that was applied without an answer taken for lost", seeds: "900008", file: "held.go",
		is: `			case mine:
				return end(stateDone, nil)
			}
			return end(stateLost, ErrLockLost)`,
		becomes: `			case mine:
				mutated()
			}
			return end(stateLost, ErrLockLost)`,
	},
	{
		name: "release that leaves its lock", seeds: "900008", file: "held.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, h.lock.GiveBack()}, beside...)...)`,
		becomes: `	ops := append([]coord.Op{f.entry, h.lock.GiveBack()}, beside...)
	if f.act == "release" {
		mutated()
		ops = ops[:1]
	}
	_, err = h.lock.Session().Commit(ctx, ops...)`,
	},
	{
		name: "consume that leaves its lock", seeds: "900002", file: "held.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, h.lock.GiveBack()}, beside...)...)`,
		becomes: `	ops := append([]coord.Op{f.entry, h.lock.GiveBack()}, beside...)
	if f.act == "consume" {
		mutated()
		ops = ops[:1]
	}
	_, err = h.lock.Session().Commit(ctx, ops...)`,
	},
	{
		name: "consume that removes its lock only", seeds: "900003", file: "held.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, h.lock.GiveBack()}, beside...)...)`,
		becomes: `	ops := append([]coord.Op{f.entry, h.lock.GiveBack()}, beside...)
	if f.act == "consume" {
		mutated()
		ops = ops[1:2]
	}
	_, err = h.lock.Session().Commit(ctx, ops...)`,
	},
	{
		name: "release puts the entry anew", seeds: "900005", file: "held.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, h.lock.GiveBack()}, beside...)...)`,
		becomes: `	ops := append([]coord.Op{f.entry, h.lock.GiveBack()}, beside...)
	if f.act == "release" {
		mutated()
		ops[0] = coord.Delete(h.entry, h.fence)
		ops = append(ops, coord.CreateSequential(h.entry[:len(h.entry)-10], h.Value))
	}
	_, err = h.lock.Session().Commit(ctx, ops...)`,
	},
	{
		name: "to the dead in two steps", seeds: "900002", file: "held.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, h.lock.GiveBack()}, beside...)...)`,
		becomes: `	ops := append([]coord.Op{f.entry, h.lock.GiveBack()}, beside...)
	if f.act == "bury" {
		mutated()
		if _, err := h.lock.Session().Commit(ctx, ops[2:]...); err != nil {
			return err
		}
		ops = ops[:2]
	}
	_, err = h.lock.Session().Commit(ctx, ops...)`,
	},
	{
		name: "entry gone by another's hand taken for this finish", seeds: "900055", file: "held.go",
		is: `	broken, err := h.queue.wasBroken(ctx, h.lock.Session(), h.Name, h.lock.Revision())
`,
		becomes: `	mutated()
	broken, err := false, error(nil)
`,
	},
	{
		name: "finish in doubt taken for another of its handle", file: "held.go",
		is: `			case mine && h.several:
`,
		becomes: `			case mine && h.several && func() bool { mutated(); return false }():
`,
		test: "TestAFinishIsNotTakenForAnotherOfItsHandle",
	},
	{
		name: "removal that is cancelled half-way and holds on", file: "admin.go",
		is: `		q.spawn(func() { q.undoClaim(attempt{session: s, name: name}, h) })
`,
		becomes: `		mutated()
`,
		test: "TestCancelledRemovalHoldsNothing",
	},
	{
		name: "what became of an entry is kept when it is gone", seeds: "900003", file: "attempts.go",
		is: `	return []coord.Op{coord.Delete(a.path, a.fence)}`,
		becomes: `	mutated()
	return nil`,
	},

	// The view.
	{
		name: "no wake-up after a release", seeds: "900003", file: "view.go",
		is:      `dirs = append(dirs, v.place.taken)`,
		becomes: `mutated()`,
	},
	{
		name: "watch after listing", seeds: "900818", file: "view.go",
		is: `	if err != nil || s == v.session {
		return err
	}`,
		becomes: `	if err != nil || s == v.session {
		return err
	}
	if a, err := v.place.available(ctx, s, headWindow, false); err == nil {
		mutated()
		defer func() { v.ready, v.whole, v.listed = a.names, a.whole, v.session == s }()
	}`,
	},
	{
		name: "failed claim forgotten by the view", seeds: "900360", file: "view.go",
		is: `				v.listed = false // it is still there, and no signal will say so
`,
		becomes: `				mutated()
`,
	},
	{
		name: "signal lost while the view is at work (K6)", seeds: "900037", file: "view.go",
		is: `	case <-v.changed:
		v.listed = false
	default:`,
		becomes: `	case <-v.changed:
		mutated()
	default:`,
	},
	{
		name: "empty is said though locks changed meanwhile", file: "view.go",
		is: `			if l.Stamp == a.stamp {`,
		becomes: `			mutated()
			if l.Stamp == a.stamp || a.stamp != 0 {`,
		test: "TestEmptyIsNotSaidWhenAReleaseFellBetweenTheListings",
	},
	{
		name: "empty is said after an old listing", seeds: "900941", file: "view.go",
		is: `			a, err := p.available(ctx, s, n+skip.len(), true)`,
		becomes: `			mutated()
			a, err := p.available(ctx, s, n+skip.len(), false)`,
	},

	// What comes back, and what dies.
	{
		name: "release that forgives nothing", file: "held.go",
		is:      `if a.Forgiven += h.bumps; h.bumps == 0 {`,
		becomes: `if mutated(); h.bumps == 0 {`,
	},
	{
		name: "failure that is forgiven", file: "held.go",
		is: `			a.Failures++
`,
		becomes: `			mutated()
			a.Forgiven++
`,
	},
	{
		name: "failure counted though its lock was broken", file: "held.go",
		is: `		ours: h.unlessBroken,
	}, opts)`,
		becomes: `		ours: func(context.Context, *coord.Refusal) (bool, error) { mutated(); return true, nil },
	}, opts)`,
	},
	{
		name: "batch that takes what came back", file: "claim.go",
		is:      `if why == forBatch && n.Changes > 0 {`,
		becomes: `if mutated(); why == forBatch && n.Changes < 0 {`,
	},
	{
		name: "TakeN goes on behind one that came back", file: "locking.go",
		is:      `if n == 1 || first.cameBack() {`,
		becomes: `if mutated(); n == 1 {`,
	},
	{
		name: "ceiling reached one delivery late", file: "dead.go",
		is: `	return q.maxDeliveries > 0 && h.changes-h.past.Forgiven >= int64(q.maxDeliveries)
`,
		becomes: `	mutated()
	return q.maxDeliveries > 0 && h.changes-h.past.Forgiven > int64(q.maxDeliveries)
`,
	},
	{
		name: "ceiling that forgives nothing", file: "dead.go",
		is: `	return q.maxDeliveries > 0 && h.changes-h.past.Forgiven >= int64(q.maxDeliveries)
`,
		becomes: `	mutated()
	return q.maxDeliveries > 0 && h.changes >= int64(q.maxDeliveries)
`,
	},
	{
		name: "move to the dead counted as a failure", file: "claim.go",
		is: `	err := h.bury(ctx, 0, `,
		becomes: `	mutated()
	err := h.bury(ctx, 1, `,
	},
	{
		name: "requeue that leaves the dead entry", file: "dead.go",
		is: `	_, body := unwrap(n.Value)
	return []coord.Op{
		coord.Delete(at, n.Fence),
`,
		becomes: `	_, body := unwrap(n.Value)
	mutated()
	return []coord.Op{
		coord.Check(at, n.Fence),
`,
	},
	{
		name: "requeue in two commits", file: "dead.go",
		is: `	done, err := q.once(ctx, nil, ops)
`,
		becomes: `	mutated()
	done, err := q.once(ctx, nil, ops[1:])
	if err == nil {
		done.results = append([]coord.Result{{}}, done.results...)
		err = q.do(ctx, func(ctx context.Context, s coord.Session) error { _, err := s.Commit(ctx, ops[0]); return err })
	}
`,
	},

	// Puts and lanes.
	{
		name: "put made again after a lost reply (K10)", seeds: "900004", file: "lanes.go",
		is: `		case errors.Is(err, coord.ErrUnknown):
			doubt = true
		case refusedOp`,
		becomes: `		case errors.Is(err, coord.ErrUnknown):
			mutated()
			return applied{}, errLaneGone
		case refusedOp`,
	},
	{
		name: "put that does not compare its lane", seeds: "900002", file: "lanes.go",
		is: `			if rs, err = s.Commit(ctx, all...); err == nil {
				l.at(`,
		becomes: `			if n, err := s.Get(ctx, l.path()); err == nil {
				mutated()
				all[0].Fence = n.Fence
			}
			if rs, err = s.Commit(ctx, all...); err == nil {
				l.at(`,
	},
	{
		name: "unknown put said to have failed", seeds: "900001", file: "lanes.go",
		is: `			if doubt {
				return applied{}, &UnknownError`,
		becomes: `			mutated()
			if doubt && l == nil {
				return applied{}, &UnknownError`,
	},
	{
		name: "unknown put said to be done", seeds: "900009", file: "lanes.go",
		is: `			if doubt {
				return applied{}, &UnknownError`,
		becomes: `			if doubt {
				mutated()
				return applied{}, nil
			}
			if doubt {
				return applied{}, &UnknownError`,
	},
	{
		name: "lane in doubt is used again", seeds: "900009", file: "lanes.go",
		is: `		if unknown := (*UnknownError)(nil); !errors.As(err, &unknown) {
			p.lanes.give(l)`,
		becomes: `		if unknown := (*UnknownError)(nil); !errors.As(err, &unknown) || l != nil {
			if err != nil {
				mutated()
			}
			p.lanes.give(l)`,
	},
	{
		name: "lane is used again however long it was idle", file: "lanes.go",
		is:      `		case time.Since(l.wrote) > restLane && !p.freshen(ctx, l):`,
		becomes: `		case time.Since(l.wrote) > restLane && func() bool { mutated(); return false }():`,
		test:    "TestUnknownPutIsResolvedThoughItsHandleWasIdle",
	},
	{
		name: "batch in two commits", seeds: "900001", file: "put.go",
		is: `			done, err = p.once(ctx, o.note, ops)
`,
		becomes: `			done, err = p.once(ctx, o.note, ops[:1])
			if err == nil && len(ops) > 1 {
				mutated()
				var more applied
				more, err = p.once(ctx, o.note, ops[1:])
				done.results = append(done.results, more.results...)
			}
`,
	},
	{
		name: "names of a batch in another order", seeds: "900001", file: "put.go",
		is: `			names[i] = path.Base(r.Path)`,
		becomes: `			mutated()
			names[len(names)-1-i] = path.Base(r.Path)`,
	},
	{
		name: "resolve that makes nothing void", file: "resolve.go",
		is: `	_, err = s.Commit(ctx, coord.Set(lane, marker{n: n, void: true}.value(), node.Fence))
	return Outcome{}, err`,
		becomes: `	mutated()
	return Outcome{}, nil`,
		test: "TestUnknownPutIsResolvedByAnyProcess",
	},
	{
		name: "resolve that takes void for applied", seeds: "900079", file: "resolve.go",
		is: `	case m.n == n && m.void:
		return Outcome{}, nil`,
		becomes: `	case m.n == n && m.void:
		mutated()
		return Outcome{Applied: true}, nil`,
	},
	{
		name: "missing lane taken for not applied", file: "resolve.go",
		is: `			if o, err = resolveIn(ctx, s, l.path(), n); err == nil {`,
		becomes: `			if o, err = resolveIn(ctx, s, l.path(), n); errors.Is(err, ErrTokenExpired) {
				mutated()
				return Outcome{}, nil
			} else if err == nil {`,
		test: "TestTokenOfNobodyIsExpiredAndNeverNotApplied",
	},
	{
		name: "put with a void token", file: "lanes.go",
		is: `			return applied{}, fmt.Errorf("token %s: %w", t, ErrTokenVoid)`,
		becomes: `			mutated()
			return applied{revision: node.Revision}, nil`,
		test: "TestVoidTokenPutsNothing",
	},

	// The simple queue, and the rest.
	{
		name: "get that takes the next after a lost reply (K8)", seeds: "900009", file: "queue.go",
		is: `	case errors.Is(err, ErrUnknown):
		return e, fmt.Errorf("remove %s: %w", name, err)`,
		becomes: `	case errors.Is(err, ErrUnknown):
		mutated()
		return Entry{}, errGone`,
	},
	{
		name: "get without a lane", seeds: "900004", file: "queue.go",
		is: `	_, err = q.once(ctx, nil, []coord.Op{coord.Delete(n.Path, n.Fence)})`,
		becomes: `	for mutated(); ; {
		if _, err = s.Commit(ctx, coord.Delete(n.Path, n.Fence)); !errors.Is(err, coord.ErrUnknown) || ctx.Err() != nil {
			break
		}
	}`,
	},
	{
		name: "Len counts the locks", seeds: "900002", file: "locking.go",
		is: `		n, err = s.Count(ctx, q.entries)
		return err`,
		becomes: `		n, err = s.Count(ctx, q.entries)
		if err == nil {
			mutated()
			var locks int
			locks, err = s.Count(ctx, q.taken)
			n += locks
		}
		return err`,
	},
	{
		name: "Close without release", file: "locking.go",
		is: `	err := q.settle(func(h *Held) error { return h.Release(ctx) })
	<-q.coat`,
		becomes: `	mutated()
	err := ctx.Err()
	<-q.coat`,
		test: "TestCloseEndsWaitersAndReleasesWhatGetHolds",
	},
	{
		name: "holder that is not told of its session's end", seeds: "900224", file: "lock/keeper.go",
		is: `	for _, o := range w.kept {
		o.lose(ErrLost)
	}
	w.kept = nil`,
		becomes: `	mutated()
	w.kept = nil`,
	},
	{
		name: "session that is given up later than the service does", seeds: "900275", file: "coord/coordtest/coordinator.go",
		is: `		l.deadline = now.Add(l.timeout - l.timeout/6)`,
		becomes: `		mutated()
		l.deadline = now.Add(l.timeout + l.timeout/6)`,
	},
	{
		name: "watch that does not see what came before it", file: "coord/coordtest/session.go",
		is:      `		l.c.catchUp() // what is too late`,
		becomes: `		mutated() // what is too late`,
		test:    "TestWatchShowsWhatCameBeforeIt",
	},
	// The driver's fences, each alone, on a real ZooKeeper.
	{
		name: "ZooKeeper is not told the version", file: "zkqueue/commit.go",
		is: `func version(f coord.Fence) int32 {
`,
		becomes: `func version(f coord.Fence) int32 {
	if mutated(); f >= 0 {
		return -1
	}
`,
		test: "TestDataFenceAlone",
	},
	{
		name: "requests go out on the next session of ZooKeeper", file: "zkqueue/session.go",
		is: `	if over != nil {
		return over
	}
	if id == 0 || sessionID(id) != known {
		s.end(coord.ErrSessionLost)
		return coord.ErrSessionLost
	}
	s.heard(at)
	return nil
}

// life is how long a session is trusted after it was last heard.
func (s *session) life() time.Duration { return s.timeout - s.timeout/6 }
`,
		becomes: `	mutated()
	_, _ = over, known
	s.heard(at)
	return nil
}

func (s *session) life() time.Duration { return time.Hour }
`,
		test: "TestSessionFenceAlone",
	},
}
