package simulation

// mutants, by the part of the code. Those that are kazoo's mistakes have their
// number there.
var mutants = []mutant{
	// Bytes that another client of the service made up.
	{
		name: "a key of 64 bytes is a key", file: "internal/layout/key.go",
		is: `		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
`,
		becomes: `		if mutated(); c == 0 {
`,
		test: "TestOnlyLowercaseHexDigitsNameAKey",
	},
	{
		name: "a header counts whoever made the key", file: "unique.go",
		is:      `bool { return born == key.Born || born == key.Revision }`,
		becomes: `bool { mutated(); return true }`,
		test:    "TestForgedKeyChangesNothingElse",
	},
	{
		name: "a requeued entry keeps a header of another case", file: "internal/layout/envelope.go",
		is:      `		if strings.EqualFold(name, "expires_ms") || strings.EqualFold(name, "unique") {`,
		becomes: `		if mutated(); name == "expires_ms" || strings.Clone(name) == "unique" {`,
		test:    "TestRequeuedValueHasNoHeaderOfAnyCaseLeft",
	},
	{
		name: "any history counts", file: "internal/layout/history.go",
		is:      `		max(int64(h.Failures), int64(h.Stuck), h.Forgiven, h.Updates) > mostCounted {`,
		becomes: `		func() bool { mutated(); return false }() {`,
		test:    "TestAnImpossibleCountIsNoHistory",
	},

	// A service that is full.
	{
		name: "the end of the time alone is the error", file: "internal/retry/retry.go",
		is: `	return false, WithDeadline(ctx, err)
`,
		becomes: `	mutated()
	return false, ctx.Err()
`,
		test: "TestWaitWhileBusyWaitsForNothingElse",
	},
	{
		name: "a full service is not logged", file: "internal/retry/retry.go",
		is:      `	if now.Sub(b.firstBusy) >= ReportAfter {`,
		becomes: `	if mutated(); now.Before(b.firstBusy) {`,
		test:    "TestTheObserverHearsOfAWaitOfASecond",
	},
	{
		name: "each call that waits is logged", file: "internal/handle/busy.go",
		is:      `	if b.mark(act, true) {`,
		becomes: `	if mutated(); b.mark(act, true) || true {`,
		test:    "TestAPutThatWaitsForAFullServiceIsLoggedOnceAndItsEndToo",
	},
	{
		name: "a worker's Logger hears nothing of a full service", file: "worker.go",
		is: `	defer w.Queue.busy.Also(w.log())()
`,
		becomes: `	mutated()
`,
		test: "TestAWorkerLogsThatTheServiceIsFull",
	},

	// The embedded store.
	{
		name: "an embedded store is made under its own name", file: "etcdqueue/embedded/create.go",
		is: `	if _, err := os.Stat(d.data()); err == nil && isUnused(d.data()) {
`,
		becomes: `	if _, err := os.Stat(d.data()); err == nil && func() bool { mutated(); return false }() {
`,
		test: "TestHalfMadeStoreIsMadeAnew",
	},
	{
		name: "a log with a request counts as unused", file: "etcdqueue/embedded/create.go",
		is: `	return proto.Size(&r) == 0
`,
		becomes: `	mutated()
	return true
`,
		test: "TestStoreInDoubtIsNotMadeAnew",
	},
	{
		name: "puts may take the space of takes", file: "etcdqueue/embedded/admission.go",
		is: `	w.grows = w.grows || grows && !removes
`,
		becomes: `	mutated()
	_ = removes
`,
		test: "TestFileSizeLimitRefusesPutsAndNothingElse",
	},
	{
		name: "a start does not end with its context", file: "etcdqueue/embedded/server.go",
		is: `		case <-ctx.Done():
			return ctx.Err()
`,
		becomes: `		case <-func() <-chan struct{} { mutated(); return nil }():
`,
		test: "TestStartThatComesToNothingEndsWithItsContext",
	},
	{
		name: "the store of another user is used", file: "etcdqueue/embedded/directory.go",
		is: `	if owner := d.foreignOwner(); owner != "" {
		return d, &OwnerError{Path: d.path, Owner: owner}
	}
	if err := d.checkPrivate()`,
		becomes: `	mutated()
	if err := d.checkPrivate()`,
		test: "TestStoreOfAnotherUserIsRefused",
	},

	// Places, keys, callbacks and names.
	{
		name: "a stuck entry comes back for ever", file: "handling.go",
		is:      ` || a.stuck && a.Held.stuck+1 >= mostStuck {`,
		becomes: ` || a.stuck && func() bool { mutated(); return false }() {`,
		test:    "TestEntryThatGetsItsHandlerStuckIsDeadAndTheOthersGoOn",
	},
	{
		name: "stuck deliveries are forgotten with their worker", file: "finish.go",
		is:      `				a.Stuck++`,
		becomes: `				mutated()`,
		test:    "TestStuckDeliveriesCountOverTheWorkersThatHadThem",
	},
	{
		name: "a run goes on without a place", file: "run.go",
		is:      `	case stuck >= most && r.ending == nil:`,
		becomes: `	case func() bool { mutated(); return stuck > most }() && r.ending == nil:`,
		test:    "TestRunEndsWhenAllItsSlotsHaveBeenStuckForAMinute",
	},
	{
		name: "the first refusal is believed", file: "run.go",
		is: `	return session == 0 || now.Sub(r.first) > session`,
		becomes: `	mutated()
	return true`,
		test: "TestAWorkerOutlivesATransientRefusal",
	},
	{
		name: "a negative back-off is a short one", file: "worker.go",
		is: `	if rest = w.Backoff(failures); rest < 0 {`,
		becomes: `	if rest = w.Backoff(failures); rest < 0 {
		mutated()
		return time.Minute
	}
	if rest < 0 {`,
		test: "TestNegativeBackoffIsTheLongest",
	},
	{
		name: "a key that is handed on is removed and created", file: "history.go",
		is:      `		if h.key != "" && op.Path == h.key {`,
		becomes: `		if mutated(); h.key == "" && op.Path == h.key {`,
		test:    "TestAForwardHandsItsUniqueKeyOn",
	},
	{
		name: "a Held that was finished is warned of", file: "held.go",
		is:      `	if d.state.Load() == stateHolding && !d.tried.Load() {`,
		becomes: `	if mutated(); d != nil {`,
		test:    "TestADroppedHeldIsReportedOnce",
	},
	{
		name: "a directory among the workers is a member", file: "internal/member/member.go",
		is:      `layout.IsHolder(name) { // other nodes`,
		becomes: `func() bool { mutated(); return true }() { // others`,
		test:    "TestADirectoryAmongTheWorkersOwnsNoDueEntries",
	},
	{
		name: "a value is not decoded before it is put", file: "typed.go",
		is:      `		err = t.codec().Unmarshal(b, new(T))`,
		becomes: `		mutated()`,
		test:    "TestAValueThatNoWorkerCouldDecodeIsRefusedAtPut",
	},
	{
		name: "a get without time does not look", file: "locking.go",
		is:      `	if ctx == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {`,
		becomes: `	if mutated(); true {`,
		test:    "TestGetThatHasNoTimeLooksOnce",
	},

	// Claims.
	{
		name: "claim that moves no fence", seeds: "900003", file: "claim.go",
		is: `a.ops = []coord.Op{coord.Touch(n.Path, n.Value, n.Fence), `,
		becomes: `mutated()
	a.ops = []coord.Op{coord.Check(n.Path, n.Fence), `,
	},
	{
		name: "claim in two steps, lock first (K4)", file: "exchange.go",
		is: `		results, err := x.session.Commit(ctx, ops...)
		switch refused`,
		becomes: `		mutated()
		var results []coord.Result
		if len(x.finishing) > 0 || len(x.claims) > 1 {
			results, err = x.session.Commit(ctx, ops...)
		} else if results, err = x.session.Commit(ctx, ops[1]); err == nil {
			var first []coord.Result
			first, err = x.session.Commit(ctx, ops[0])
			results = append(first, results...)
		}
		switch refused`,
	},
	{
		name: "lost reply of a claim taken for a refusal (K5)", file: "claim.go",
		is: `		h, err = c.resolveClaim(ctx, a)
	}
	if err == nil {`,
		becomes: `		mutated()
		err = errUnavailable
	}
	if err == nil {`,
	},
	{
		name: "lost reply of a claim taken for success", seeds: "900002", file: "claim.go",
		is: `		h, err = c.resolveClaim(ctx, a)
	}
	if err == nil {`,
		becomes: `		mutated()
		h = c.newHeld(a, a.node.Fence+1, lock.Taken(s, coord.Result{Path: path.Join(c.Taken, name), Fence: 1}, c.holder), a.node.Revision+1)
		err = nil
	}
	if err == nil {`,
	},
	{
		name: "cancelled claim that nobody undoes", file: "claim.go",
		is: `		c.undoClaim(a, h)
`,
		becomes: `		mutated()
`,
	},
	{
		name: "claim in doubt is passed over", file: "internal/head/claims.go",
		is:      `	c.entries[name].inDoubt = true`,
		becomes: `	mutated()`,
		test:    "TestClaimInDoubtIsNotPassedOver",
	},
	{
		name: "entry given back under a claim in doubt waits until that is tried again", file: "internal/head/claims.go",
		is: `	t.requestRetry()
	if t.isBlocked {`,
		becomes: `	mutated()
	if t.isBlocked {`,
		test: "TestEntryGivenBackUnderAClaimInDoubtIsNotPassedOver",
	},
	{
		name: "what later holders were forgiven counts", file: "claim.go",
		is: `		if err == nil && h.past.revision > h.Token {`,
		becomes: `		mutated()
		if err == nil && h.past.revision > h.Token+1<<40 {`,
		test: "TestALaterHoldersReleaseDoesNotLowerTheCountOfDeliveries",
	},
	{
		name: "token that does not grow", seeds: "900003", file: "claim.go",
		is:      `		Token:      token,`,
		becomes: `		Token:      func() int64 { mutated(); return 1 }(),`,
	},
	{
		name: "entry handed out however often it was delivered", seeds: "900002", file: "claim.go",
		is: `	return c.maxDeliveries > 0 && h.changes`,
		becomes: `	mutated()
	return c.maxDeliveries > 1000 && h.changes`,
	},

	// Finishes.
	{
		name: "finish without the entry's fence", seeds: "900030", file: "finish.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry,`,
		becomes: `	mutated()
	if n, err := h.lock.Session().Get(ctx, h.entry); err == nil {
		f.entry.Fence = n.Fence
	}
	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry,`,
	},
	{
		name: "finish that looks whether it holds the lock, and goes by path (K1)", seeds: "900008", file: "finish.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, beside...)...)`,
		becomes: `	if holds, err := h.lock.Holds(ctx); err != nil || !holds {
		return coord.ErrSessionLost
	}
	mutated()
	s, err := h.claimer.Session(ctx)
	if err != nil {
		return err
	}
	back := f.lock
	if n, err := s.Get(ctx, h.entry); err == nil {
		f.entry.Fence = n.Fence
	}
	if n, err := s.Get(ctx, back.Path); err == nil {
		back.Fence = n.Fence
	}
	_, err = s.Commit(ctx, append([]coord.Op{f.entry, back}, beside...)...)`,
	},
	{
		name: "refused finish taken for success (K2)", seeds: "900015", file: "finish.go",
		is: `		case stepLose:
			return h.endFinish(f, stateLost, ErrLockLost)`,
		becomes: `		case stepLose:
			mutated()
			return h.endFinish(f, stateDone, nil)`,
	},
	{
		name: "lost reply of a finish taken for success", seeds: "900011", file: "finish.go",
		is: `			h.unanswered.note(f)
`,
		becomes: `			mutated()
			return h.endFinish(f, stateDone, nil)
`,
	},
	{
		name: "finish that was applied without an answer taken for lost", seeds: "900008", file: "finish.go",
		is: `	case mine:
		return h.endFinish(f, stateDone, nil)
	}`,
		becomes: `	case mine:
		mutated()
	}`,
	},
	{
		name: "release that leaves its lock", seeds: "900008", file: "finish.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, beside...)...)`,
		becomes: `	ops := append([]coord.Op{f.entry, f.lock}, beside...)
	if f.act == "release" {
		mutated()
		ops = ops[:1]
	}
	_, err = h.lock.Session().Commit(ctx, ops...)`,
	},
	{
		name: "consume that leaves its lock", seeds: "900002", file: "finish.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, beside...)...)`,
		becomes: `	ops := append([]coord.Op{f.entry, f.lock}, beside...)
	if f.act == "consume" {
		mutated()
		ops = ops[:1]
	}
	_, err = h.lock.Session().Commit(ctx, ops...)`,
	},
	{
		name: "consume that removes its lock only", seeds: "900003", file: "finish.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, beside...)...)`,
		becomes: `	ops := append([]coord.Op{f.entry, f.lock}, beside...)
	if f.act == "consume" {
		mutated()
		ops = ops[1:2]
	}
	_, err = h.lock.Session().Commit(ctx, ops...)`,
	},
	{
		name: "release puts the entry anew", seeds: "900005", file: "finish.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, beside...)...)`,
		becomes: `	ops := append([]coord.Op{f.entry, f.lock}, beside...)
	if f.act == "release" {
		mutated()
		ops[0] = coord.Delete(h.entry, h.fence)
		ops = append(ops, coord.CreateSequential(h.entry[:len(h.entry)-10], h.Value))
	}
	_, err = h.lock.Session().Commit(ctx, ops...)`,
	},
	{
		name: "to the dead in two steps", seeds: "900002", file: "finish.go",
		is: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, beside...)...)`,
		becomes: `	ops := append([]coord.Op{f.entry, f.lock}, beside...)
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
		name: "entry gone by another's hand taken for this finish", seeds: "900055", file: "finish.go",
		is: `	broken, err := h.claimer.traces.wasBroken(ctx, h.lock.Session(), h.Name, h.lock.Revision())
`,
		becomes: `	mutated()
	broken, err := false, error(nil)
`,
	},
	{
		name: "finish in doubt taken for another of its handle", file: "finish.go",
		is: `	case mine && h.unanswered.severalKinds:
`,
		becomes: `	case mine && h.unanswered.severalKinds && func() bool { mutated(); return false }():
`,
		test: "TestAFinishIsNotTakenForAnotherOfItsHandle",
	},
	{
		name: "removal that is cancelled half-way and holds on", file: "claim.go",
		is: `		c.Spawn(func() { c.undoClaim(claimAttempt{session: s, name: name}, h) })
`,
		becomes: `		mutated()
`,
		test: "TestCancelledRemovalHoldsNothing",
	},
	{
		name: "what became of an entry is kept when it is gone", seeds: "900003", file: "history.go",
		is: `		ops = append(ops, coord.Delete(h.path, h.fence))`,
		becomes: `	mutated()
	return nil`,
	},

	// The view.
	{
		name: "no wake-up after a release", seeds: "900003", file: "internal/head/head.go",
		is:      `dirs = append(dirs, h.Taken)`,
		becomes: `mutated()`,
	},
	{
		name: "watch after listing", file: "internal/head/head.go", test: "TestAnEntryPutAsTheWatchBeginsIsTaken",
		is: `	if s == h.session && isMember == h.watchMembers {
		return nil
	}`,
		becomes: `	if s == h.session && isMember == h.watchMembers {
		return nil
	}
	if l, err := h.List(ctx, s, DefaultWindow, coord.ListOptions{Fresh: true}); err == nil {
		mutated()
		defer func() { h.ready, h.isComplete, h.isListed = l.Names, l.IsComplete, h.session == s }()
	}`,
	},
	{
		name: "failed claim forgotten by the view", file: "claim.go", test: "TestATakeThatGaveUpLeavesTheEntryToTheNext",
		is: `	case !errors.Is(err, coord.ErrUnknown):
		mayBeFree = true`,
		becomes: `	case !errors.Is(err, coord.ErrUnknown):
		mutated()`,
	},
	{
		name: "lost claim wakes nobody who passed over the entry", file: "claim.go", test: "TestALostClaimWakesTheTakesThatSkippedItsEntry",
		is: `	case retry.IsRefused(err):
		mayBeFree = true`,
		becomes: `	case retry.IsRefused(err):
		mutated()`,
	},
	{
		name: "signal lost while the view is at work (K6)", seeds: "900037", file: "internal/head/head.go",
		is: `	case <-h.changed:
		h.isListed = false
	default:`,
		becomes: `	case <-h.changed:
		mutated()
	default:`,
	},
	{
		name: "empty is said though locks changed meanwhile", file: "find.go",
		is: `			if locks.Stamp == l.Stamp {`,
		becomes: `			mutated()
			if locks.Stamp == l.Stamp || l.Stamp != 0 {`,
		test: "TestErrEmptyIsNotReturnedWhenAReleaseFellBetweenTheListings",
	},
	{
		name: "empty is said after an old listing", seeds: "900941", file: "find.go",
		is: `			l, err := fd.lister.List(ctx, s, max(n, ahead)+resting.Len()+fd.restricted.Len(), coord.ListOptions{Fresh: true})`,
		becomes: `			mutated()
			l, err := fd.lister.List(ctx, s, max(n, ahead)+resting.Len()+fd.restricted.Len(), coord.ListOptions{})`,
	},

	// Choosing, and finishing with it.
	{
		name: "refused claim that takes the finish with it", file: "exchange.go",
		is: `		case refused >= 0:
			x.takeOutRefused(ctx, parts, refused, err)
			continue`,
		becomes: `		case refused >= 0:
			if refused >= parts[len(x.finishing)] && len(x.finishing) > 0 {
				mutated()
				for _, h := range x.finishing {
					h.end(stateDone, true)
					<-h.sem
				}
				x.finishing = nil
			}
			x.takeOutRefused(ctx, parts, refused, err)
			continue`,
		test: "TestExchangeTakesAnotherEntryWhereOneWasClaimedFirst",
	},
	{
		name: "unanswered exchange taken for applied", file: "exchange.go",
		is: `	for _, h := range inDoubt {
		x.failed = errors.Join(x.failed, x.finishAlone(ctx, h))
	}`,
		becomes: `	for _, h := range inDoubt {
		mutated()
		h.end(stateDone, true)
	}`,
		test: "TestExchangeWhoseAnswerWasLostIsAppliedOnce",
	},
	{
		name: "lost entry that costs the others their finish", file: "exchange.go",
		is: `			x.separateOne(i)
			return
		}`,
		becomes: `			mutated()
			h := x.finishing[i]
			h.lock.Settling(false)
			<-h.sem
			x.finishing = append(x.finishing[:i:i], x.finishing[i+1:]...)
			return
		}`,
		test: "TestExchangeOfALostEntryCostsTheOthersNothing",
	},
	{
		name: "no window", file: "internal/head/choose.go",
		is:      `window := max(h.Window, 2*(n+h.heldCount())) / 2 // because each first entry may be passed twice`,
		becomes: `window := func() int { mutated(); return 1 << 20 }()`,
		test:    "TestEntriesOfAProcessThatStandsStillAreTakenWithinTheBound",
	},
	{
		name: "others' entries from the end where their owners begin", file: "internal/head/choose.go",
		is:      `slices.Reverse(others)`,
		becomes: `mutated()`,
		test:    "TestAHandleWithNothingLeftWantsTheOthersEntriesFromTheirEnd",
	},
	{
		name: "exchange that waits behind a take", file: "internal/head/head.go",
		is: `	if wait {
		waiting = nil
	}`,
		becomes: `	mutated()
	waiting = nil`,
		test: "TestExchangeDoesNotWaitBehindATake",
	},
	{
		name: "urgent entry behind what was chosen before", file: "internal/head/choose.go",
		is:      `name[:priorityEnd] == first[:priorityEnd]`,
		becomes: `func() bool { mutated(); return true }()`,
		test:    "TestAMoreUrgentEntryIsTakenNextByEveryProcess",
	},

	// What comes back, and what dies.
	{
		name: "release that forgives nothing", file: "finish.go",
		is:      `if a.Forgiven += h.bumps; h.bumps == 0 {`,
		becomes: `if mutated(); h.bumps == 0 {`,
	},
	{
		name: "failure that is forgiven", file: "finish.go",
		is: `			a.Failures++
`,
		becomes: `			mutated()
			a.Forgiven++
`,
	},
	{
		name: "failure counted though its lock was broken", file: "finish.go",
		is: `		wasApplied: h.unlessBroken,
	}, opts)`,
		becomes: `		wasApplied: func(context.Context, *coord.Refusal) (bool, error) { mutated(); return true, nil },
	}, opts)`,
	},
	{
		name: "strict take that goes on behind an entry that came back", file: "exchange.go",
		is:      `		x.keepClaims(i) // the refused`,
		becomes: `		mutated() // the refused`,
		test:    "TestStrictTakesAnEntryReleasedSinceItWasRead",
	},
	{
		name: "release in doubt that was applied, whatever an operator did", file: "finish.go",
		is: `			return []coord.Op{a.write()}, nil
		},
		wasApplied: h.unlessBroken,
	}
}`,
		becomes: `			return []coord.Op{a.write()}, nil
		},
		wasApplied: func(context.Context, *coord.Refusal) (bool, error) { mutated(); return true, nil },
	}
}`,
		test: "TestAFinishInDoubtIsNotReportedAsAppliedWhenAnOperatorTookTheEntry",
	},
	{
		name: "other finish that was applied, whatever an operator did", file: "finish.go",
		is: `	if _, problem := h.unlessBroken(ctx, refusal); problem != nil {`,
		becomes: `	var problem error
	if mutated(); problem != nil {`,
		test: "TestAFinishInDoubtIsNotReportedAsAppliedWhenAnOperatorTookTheEntry",
	},
	{
		name: "finish of a broken lock stays in doubt for ever", file: "finish.go",
		is:      `	if errors.Is(problem, errBroken) {`,
		becomes: `	if mutated(); false {`,
		test:    "TestAFinishInDoubtIsNotReportedAsAppliedWhenAnOperatorTookTheEntry",
	},
	{
		name: "batch that takes what came back", file: "internal/head/choose.go",
		is: `		if len(c.Names) == n || cameBack && len(c.Names) > 0 {
			break`,
		becomes: `		mutated()
		if len(c.Names) == n {
			break`,
		test: "TestAnEntryThatCameBackIsTakenAlone",
	},
	{
		name: "TakeN goes on behind one that came back", file: "internal/head/choose.go",
		is: `		if cameBack {
			break`,
		becomes: `		if cameBack {
			mutated()
			continue`,
		test: "TestAnEntryThatCameBackIsTakenAlone",
	},
	{
		name: "ceiling reached one delivery late", file: "claim.go",
		is: `	return c.maxDeliveries > 0 && h.changes-h.past.Forgiven >= int64(c.maxDeliveries)
`,
		becomes: `	mutated()
	return c.maxDeliveries > 0 && h.changes-h.past.Forgiven > int64(c.maxDeliveries)
`,
	},
	{
		name: "ceiling that forgives nothing", file: "claim.go",
		is: `	return c.maxDeliveries > 0 && h.changes-h.past.Forgiven >= int64(c.maxDeliveries)
`,
		becomes: `	mutated()
	return c.maxDeliveries > 0 && h.changes >= int64(c.maxDeliveries)
`,
	},
	{
		name: "move to the dead counted as a failure", file: "claim.go",
		is: `	err := h.bury(ctx, 0, `,
		becomes: `	mutated()
	err := h.bury(ctx, 1, `,
	},
	{
		name: "requeue that leaves the dead entry", file: "admin.go",
		is: `	_, body := layout.Unwrap(n.Value)
	ops := []coord.Op{
		coord.Delete(at, n.Fence),
`,
		becomes: `	_, body := layout.Unwrap(n.Value)
	mutated()
	ops := []coord.Op{
		coord.Check(at, n.Fence),
`,
	},
	{
		name: "requeue in two commits", file: "admin.go",
		is: `	done, err := q.lanes.once(ctx, nil, ops)
`,
		becomes: `	mutated()
	done, err := q.lanes.once(ctx, nil, ops[1:])
	if err == nil {
		done.Results = append([]coord.Result{{}}, done.Results...)
		err = q.handle.Do(ctx, func(ctx context.Context, s coord.Session) error { _, err := s.Commit(ctx, ops[0]); return err })
	}
`,
	},

	// What operators do, and what stands in an entry.
	{
		name: "update counted as a delivery", file: "update.go",
		is: `a.Updates, a.Forgiven = a.Updates+1, a.Forgiven+1`,
		becomes: `mutated()
	a.Updates = a.Updates + 1`,
	},
	{
		name: "update that drops the entry's headers", file: "update.go",
		is: `	sealed := layout.Reseal(n.Value, value)
`,
		becomes: `	mutated()
	sealed := value
`,
	},
	{
		name: "update that is not written", file: "update.go",
		is:      `coord.Set(h.entry, sealed, h.fence), coord.Check`,
		becomes: `coord.Set(h.entry, func() []byte { mutated(); return n.Value }(), h.fence), coord.Check`,
	},
	{
		name: "update that is applied late taken for a loss", file: "update.go",
		is:      `err != nil || again || h.updating == 0`,
		becomes: `err != nil || again || func() bool { mutated(); return true }()`,
		test:    "TestAnUpdateThatIsAppliedLateIsNotTakenForALoss",
	},
	{
		name: "wait for an empty queue that overlooks what is delayed", file: "inspect.go",
		is: `			if left, until, err = in.laterLeft(ctx, s, expires); err != nil || left {
				return left, until, err
			}
`,
		becomes: `			mutated()
`,
	},
	{
		name: "wait for an empty queue that forgets when the last entry expires", file: "base.go",
		is:      `waitUntil(ctx, s, changed, nil, until, &told)`,
		becomes: `waitUntil(ctx, s, changed, nil, func(time.Time) time.Time { mutated(); return time.Time{} }(until), &told)`,
		test:    "TestWaitEmptyNoticesTheFirstTimeToLive",
	},
	{
		name: "purge that counts what others removed", file: "base.go",
		is: `				case errors.Is(err, ErrNoEntry), errors.Is(err, ErrHeld), errors.Is(err, errUnreadable):
					err = nil
`,
		becomes: `				case errors.Is(err, ErrNoEntry), errors.Is(err, ErrHeld), errors.Is(err, errUnreadable):
					mutated()
					removed++
					err = nil
`,
		test: "TestPurgeCountsOnlyWhatItRemoved",
	},
	{
		name: "removed entry that a restore brings back is never taken", file: "internal/head/head.go",
		is: `	h.Suppressed.clear()
`,
		becomes: `	mutated()
`,
		test: "TestProcessesGoOnAfterARestore",
	},

	// Puts and lanes.
	{
		name: "put made again after a lost reply (K10)", seeds: "900004", file: "internal/lane/commit.go",
		is: `		case errors.Is(err, coord.ErrUnknown):
			inDoubt = true
		case retry.RefusedOp`,
		becomes: `		case errors.Is(err, coord.ErrUnknown):
			mutated()
			return Applied{}, errUnusable
		case retry.RefusedOp`,
	},
	{
		name: "put that does not compare its lane", seeds: "900002", file: "internal/lane/commit.go",
		is: `			if rs, err = session.Commit(ctx, all...); err == nil {
				l.advance(`,
		becomes: `			if n, err := session.Get(ctx, l.path()); err == nil {
				mutated()
				all[0].Fence = n.Fence
			}
			if rs, err = session.Commit(ctx, all...); err == nil {
				l.advance(`,
	},
	{
		name: "unknown put said to have failed", seeds: "900001", file: "internal/lane/commit.go",
		is: `			if inDoubt {
				return Applied{}, &UnknownError`,
		becomes: `			mutated()
			if inDoubt && l == nil {
				return Applied{}, &UnknownError`,
	},
	{
		name: "unknown put said to be done", seeds: "900009", file: "internal/lane/commit.go",
		is: `			if inDoubt {
				return Applied{}, &UnknownError`,
		becomes: `			if inDoubt {
				mutated()
				return Applied{}, nil
			}
			if inDoubt {
				return Applied{}, &UnknownError`,
	},
	{
		name: "lane in doubt is used again", seeds: "900009", file: "internal/lane/commit.go",
		is: `		if unknown := (*UnknownError)(nil); !errors.As(err, &unknown) {
			s.putBack(l)`,
		becomes: `		if unknown := (*UnknownError)(nil); !errors.As(err, &unknown) || l != nil {
			if err != nil {
				mutated()
			}
			s.putBack(l)`,
	},
	{
		name: "lane is used again however long it was idle", file: "internal/lane/commit.go",
		is:      `		case time.Since(l.wrote) > maxIdle && !s.refresh(ctx, l):`,
		becomes: `		case time.Since(l.wrote) > maxIdle && func() bool { mutated(); return false }():`,
		test:    "TestUnknownPutIsResolvedThoughItsHandleWasIdle",
	},
	{
		name: "batch in two commits", seeds: "900001", file: "put.go",
		is: `			done, err = pt.lanes.once(ctx, o.noteOf(bs), ops)
`,
		becomes: `			done, err = pt.lanes.once(ctx, o.note, ops[:1])
			if err == nil && len(ops) > 1 {
				mutated()
				var more lane.Applied
				more, err = pt.lanes.once(ctx, o.note, ops[1:])
				done.Results = append(done.Results, more.Results...)
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
		name: "resolve that makes nothing void", file: "internal/lane/resolve.go",
		is: `	_, err = session.Commit(ctx, coord.Set(lane, layout.Marker{N: n, Void: true}.Value(), node.Fence))
	return Outcome{}, err`,
		becomes: `	mutated()
	return Outcome{}, nil`,
		test: "TestUnknownPutIsResolvedByAnyProcess",
	},
	{
		name: "resolve that takes void for applied", seeds: "900079", file: "internal/lane/resolve.go",
		is: `	case m.N == n && m.Void:
		return Outcome{}, nil`,
		becomes: `	case m.N == n && m.Void:
		mutated()
		return Outcome{Applied: true}, nil`,
	},
	{
		name: "missing lane taken for not applied", file: "internal/lane/resolve.go",
		is: `			if o, err = resolveIn(ctx, session, Path(name), n); err == nil {`,
		becomes: `			if o, err = resolveIn(ctx, session, Path(name), n); errors.Is(err, ErrExpired) {
				mutated()
				return Outcome{}, nil
			} else if err == nil {`,
		test: "TestAForgottenTokenIsExpiredAndNeverNotApplied",
	},
	{
		name: "put with a void token", file: "internal/lane/commit.go",
		is: `			return Applied{}, fmt.Errorf("token %s: %w", token, ErrVoid)`,
		becomes: `			mutated()
			return Applied{Revision: node.Revision}, nil`,
		test: "TestVoidTokenPutsNothing",
	},

	// The simple queue, and the rest.
	{
		name: "get that takes the next after a lost reply (K8)", seeds: "900009", file: "queue.go",
		is: `	case errors.Is(err, ErrUnknown):
		return e, fmt.Errorf("remove %s: %w", name, err)`,
		becomes: `	case errors.Is(err, ErrUnknown):
		mutated()
		return Entry{}, errUnavailable`,
	},
	{
		name: "get without a lane", seeds: "900004", file: "queue.go",
		is: `	_, err := q.lanes.once(ctx, nil, []coord.Op{coord.Delete(n.Path, n.Fence)})`,
		becomes: `	s, err := q.handle.Session(ctx)
	for mutated(); err == nil; {
		if _, err = s.Commit(ctx, coord.Delete(n.Path, n.Fence)); !errors.Is(err, coord.ErrUnknown) || ctx.Err() != nil {
			break
		}
		err = nil
	}`,
	},
	{
		name: "Len counts the locks", seeds: "900002", file: "locking.go",
		is: `		n, err = s.Count(ctx, q.handle.Entries)
		return err`,
		becomes: `		n, err = s.Count(ctx, q.handle.Entries)
		if err == nil {
			mutated()
			var locks int
			locks, err = s.Count(ctx, q.handle.Taken)
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
		is: `	for _, watched := range w.locks {
		watched.lose(ErrLost)
	}
	w.locks = nil`,
		becomes: `	mutated()
	w.locks = nil`,
	},
	{
		name: "session that is given up later than the service does", seeds: "900275", file: "coord/coordtest/internal/memory/client.go",
		is: `		current.deadline = now.Add(liveness.Trust(current.timeout))`,
		becomes: `		mutated()
		current.deadline = now.Add(liveness.Trust(current.timeout) + current.timeout/3)`,
	},
	{
		name: "watch that does not see what came before it", file: "coord/coordtest/internal/memory/session.go",
		is:      `		s.client.catchUpLocked() // listings show from now on what`,
		becomes: `		mutated() // listings show from now on what`,
		test:    "TestWatchShowsWhatCameBeforeIt",
	},
	// The driver's fences, each alone, on a real ZooKeeper.
	{
		name: "ZooKeeper is not told the version", file: "zkqueue/commit.go",
		is: `func fenceVersion(f coord.Fence) int32 {
`,
		becomes: `func fenceVersion(f coord.Fence) int32 {
	if mutated(); f >= 0 {
		return -1
	}
`,
		test: "TestDataFenceAlone",
	},
	{
		name: "one value that is gone takes those read with it along", file: "zkqueue/multiread.go",
		is:      `case code != codeNoNode:`,
		becomes: `case func() bool { mutated(); return true }():`,
		test:    "TestManyNodesAreReadWithFewRequests",
	},
	{
		name: "request of our own lost with its connection", file: "zkqueue/read.go",
		is: `		case !errors.Is(err, coord.ErrUnknown):
			return err
		}
		// go-zookeeper may need`,
		becomes: `		default:
			mutated()
			return err
		}
		// go-zookeeper may need`,
		test: "TestABarrierOutlivesItsConnection",
	},
	{
		name: "answer of ZooKeeper that is cut short is decoded as it is", file: "zkqueue/conn.go",
		is: `	if !isCompleteMulti(answer[4+headerBytes:]) {
`,
		becomes: `	if mutated(); false {
`,
		test: "TestAnAnswerCutShortIsUnknown",
	},
	{
		name: "decoding error of a read is an answer", file: "zkqueue/errors.go",
		is:      `{zk.ErrShortBuffer, outcomeUnknown, nil}, `,
		becomes: `{func() error { mutated(); return zk.ErrShortBuffer }(), outcomeRefused, coord.ErrTooLarge}, `,
		test:    "TestAReadWhoseAnswerIsCutShortIsMadeAgain",
	},
	{
		name: "limit of a batch that forgets the op of its bound", file: "put.go",
		is:      `Limit: limit.Limit - (limit.Size - n)}`,
		becomes: `Limit: func() int { mutated(); return limit.Limit - 1 }()}`,
		test:    "TestPutAllNamesItsLimitOfEntries",
	},
	{
		name: "first address of a name is dialled again and again", file: "internal/resolve/names.go",
		is: `	n.dialed[server] = n.dials
`,
		becomes: `	if n.dialed[server] = 1; n.dials > 1 {
		mutated()
		n.dialed[server] = 0
	}
`,
		test: "TestEachAddressOfANameIsTriedInTurn",
	},
	{
		name: "load balancer without servers is hopeless after a session", file: "zkqueue/session.go",
		is: `			if patient {
				continue
			}
`,
		becomes: `			mutated()
`,
		test: "TestNothingIsHopelessAfterASession",
	},
	{
		name: "closed TLS handshake proves that there is no TLS", file: "internal/secure/handshake.go",
		is:      `		return &ClosedError{err}`,
		becomes: `		return func() error { mutated(); return fmt.Errorf("%w: %w", err, coord.ErrTLS) }()`,
		test:    "TestAClosedHandshakeProvesNothing",
	},
	{
		name: "one node that may not be read hides the others", file: "zkqueue/read.go",
		is: `	d, err := s.data(ctx, fullPath)
	if !errors.Is(err, coord.ErrForbidden) {
		return d, err
	}
	return read`,
		becomes: `	d, err := s.data(ctx, fullPath)
	if mutated(); true {
		return d, err
	}
	return read`,
		test: "TestAnEntryThatCannotBeReadStopsNothing",
	},
	{
		name: "directory is followed though the server hides some of its changes", file: "zkqueue/cache.go",
		is: `	if c == nil || d.names == nil || d.changes < 0 || stat == nil || d.changes >= stat.Cversion {
`,
		becomes: `	if mutated(); c != nil || stat != nil {
`,
		test: "TestAnEntryThatCannotBeReadStopsNothing",
	},
	{
		name: "last number of a directory is given twice", file: "coord/coordtest/internal/memory/state.go",
		is:      `case op.Kind == coord.KindSequential && n > coord.LastNumber:`,
		becomes: `case op.Kind == coord.KindSequential && n > coord.LastNumber && func() bool { mutated(); return false }():`,
		test:    "TestCounterEndsAsZooKeepers",
	},
	{
		name: "counter of ZooKeeper that counts deletions as creates", file: "zkqueue/naming.go",
		is:      `int64(uint32(stat.Cversion+stat.NumChildren) / 2)`,
		becomes: `int64(uint32(stat.Cversion+0*int32(func() int { mutated(); return 1 }())))`,
		test:    "TestTheCounterOfADirectoryIsTheServers",
	},
	{
		name: "what a smaller server refuses is sent again as it is", file: "zkqueue/batch.go",
		is:      `len(commits) > 1 && m.size > s.payload.current() {`,
		becomes: `len(commits) > 1 && m.size > s.payload.current() && func() bool { mutated(); return false }() {`,
		test:    "TestWhatIsMergedFitsASmallerServer",
	},
	{
		name: "requests go out on the next session of ZooKeeper", file: "zkqueue/session.go",
		is: `		s.deadline.Start(timeout, sent)
	}
	known := s.id
	s.mu.Unlock()
	if cause != nil {
		return cause
	}
	if id == 0 || sessionID(id) != known {
		s.end(coord.ErrSessionLost)
		return coord.ErrSessionLost
	}
`,
		becomes: `		s.deadline.Start(time.Hour, sent)
	}
	s.mu.Unlock()
	mutated()
`,
		test: "TestSessionFenceAlone",
	},

	// Commits that travel together.
	{
		name: "two commits of one path in one batch", file: "internal/group/queue.go",
		is: `		if _, dup := p[op.Path]; dup && op.Kind != coord.KindSequential {
			return false
		}`,
		becomes: `		if _, dup := p[op.Path]; dup && op.Kind != coord.KindSequential {
			mutated()
		}`,
		test: "TestNoPathIsTwiceInABatch",
	},
	{
		name: "refusal of one that costs the others of its batch", seeds: "900134", file: "internal/group/queue.go",
		is: `		outcomes[i].Err = ErrAgain
	}
	outcomes[at].Err = err`,
		becomes: `		mutated()
		outcomes[i].Err = err
	}`,
	},
	{
		name: "batch without an answer that is sent again", seeds: "900001", file: "internal/group/queue.go",
		is: `func (o Outcome) Again() bool { return errors.Is(o.Err, ErrAgain) }`,
		becomes: `func (o Outcome) Again() bool {
	if errors.Is(o.Err, coord.ErrUnknown) {
		mutated()
		return true
	}
	return errors.Is(o.Err, ErrAgain)
}`,
	},
	{
		name: "who left before the sending is sent", file: "internal/group/runner.go",
		is: `		case c.waiter.hasLeft:
		case r.endErr`,
		becomes: `		case c.waiter.hasLeft && func() bool { mutated(); return false }():
		case r.endErr`,
		test: "TestABatchThatWasNotSentAfterAllIsTakenBack",
	},

	// Workers.
	{
		name: "shutdown taken for a failure", seeds: "900011", file: "handling.go",
		is:      `	case errors.Is(cause, ErrShutdown), r.taking.Err() != nil && errors.Is(err, context.Canceled):`,
		becomes: `	case errors.Is(cause, ErrShutdown) && func() bool { mutated(); return false }():`,
	},
	{
		name: "snooze taken for a failure", seeds: "900013", file: "handling.go",
		is: `		r.release(a, EndingSnoozed, rest(later.d))
`,
		becomes: `		mutated()
		r.countFailure(a)
`,
	},
	{
		name: "what a worker has not answered is forgotten", file: "handling.go",
		is:      `a.Held.claimer.Spawn(func() { a.Held.finishBehind(do) })`,
		becomes: `mutated()`,
		test:    "TestAnUnansweredFinishIsRepeatedInTheBackground",
	},

	{
		name: "stuck places are not counted", file: "run.go",
		is: `	r.stuck++
	stuck := r.stuck
`,
		becomes: `	mutated()
	stuck := r.stuck
`,
		test: "TestRunEndsWhenAllItsSlotsHaveBeenStuckForAMinute",
	},
	{
		name: "entry that always gets its handler stuck is tried for ever", file: "handling.go",
		is:      `a.stuck && a.Held.stuck+1 >= mostStuck {`,
		becomes: `a.stuck && func() bool { mutated(); return false }() {`,
		test:    "TestEntryThatGetsItsHandlerStuckIsDeadAndTheOthersGoOn",
	},
	{
		name: "negative backoff is a short pause", file: "worker.go",
		is: `		return mostBackoff
	}
	return min(rest, mostBackoff)`,
		becomes: `		mutated()
		return time.Minute
	}
	return min(rest, mostBackoff)`,
		test: "TestNegativeBackoffIsTheLongest",
	},
	{
		name: "panic of a callback ends the process", file: "worker.go",
		is: `		if v := recover(); v != nil {
			rest = defaultBackoff(failures)`,
		becomes: `		mutated()
		if v := any(nil); v != nil {
			rest = defaultBackoff(failures)`,
		test: "TestPanicsOfCallbacksEndNothing",
	},

	// Logs.
	{
		name: "label that reads how far the log is after its entries", seeds: "900164", file: "retained/label.go",
		is: `			batch.pass(head.Next)
`,
		becomes: `			mutated()
			if head, err = b.log.headIn(ctx, s); err != nil {
				return nil, err
			}
			batch.pass(head.Next)
`,
	},
	{
		name: "label moved from wherever it stands", seeds: "900002", file: "retained/label.go",
		is: `	_, err := l.commitOnce(ctx, []coord.Op{coord.Set(b.at.path,`,
		becomes: `	mutated()
	if s, err := l.handle.Session(ctx); err == nil {
		if n, err := s.Get(ctx, b.at.path); err == nil {
			b.at.fence = n.Fence
		}
	}
	_, err := l.commitOnce(ctx, []coord.Op{coord.Set(b.at.path,`,
	},
	{
		name: "unanswered move of a label forgotten", seeds: "901169", file: "retained/label.go",
		is: `		b.doubt = unknown.Token
`,
		becomes: `		mutated()
`,
	},
	{
		name: "append made again when its answer was lost", seeds: "900069", file: "retained/log.go",
		is: `		done, err := l.commitOnce(ctx, l.appendOps(head, values))
`,
		becomes: `		mutated()
		var done lane.Applied
		s, err := l.handle.Session(ctx)
		if err == nil {
			done.Results, err = s.Commit(ctx, l.appendOps(head, values)...)
		}
		if errors.Is(err, zkq.ErrUnknown) && ctx.Err() == nil {
			head = logHead{}
			continue
		}
`,
	},
	{
		name: "expired entry handed out by a log", file: "retained/label.go",
		is: `			if e.expired() {
				batch.Missed++`,
		becomes: `			mutated()
			if e.expired() && e.Number < 0 {
				batch.Missed++`,
		test: "TestExpiredEntriesAreNeverHandedOutAndCounted",
	},

	// Delays, times to live, unique keys, bounds and forwards.
	{
		name: "delayed put made an entry in two commits", seeds: "900003", file: "delayed.go",
		is: `	_, err = s.Commit(ctx, ops...)
	return gone(err)
}

// laterEntry`,
		becomes: `	mutated()
	if _, err = s.Commit(ctx, ops[0]); err == nil && len(ops) > 1 {
		_, err = s.Commit(ctx, ops[1:]...)
	}
	return gone(err)
}

// laterEntry`,
	},
	{
		name: "what is put aside made ready in two commits", seeds: "900009", file: "delayed.go",
		is: `	_, err = s.Commit(ctx, ops...)
	return gone(err)
}

// keepIndex`,
		becomes: `	mutated()
	if _, err = s.Commit(ctx, ops[0]); err == nil && len(ops) > 1 {
		_, err = s.Commit(ctx, ops[1:]...)
	}
	return gone(err)
}

// keepIndex`,
	},
	{
		name: "what is delayed made ready before it is due", seeds: "900003", file: "internal/layout/index.go",
		is: `	d := Delayed{Due: time.UnixMilli(ms)}
`,
		becomes: `	mutated()
	d := Delayed{Due: time.UnixMilli(ms - 2000)}
`,
	},
	{
		name: "delay that ends at a whole second", seeds: "900003", file: "delayed.go",
		is: `	due := time.Now().Round(0).Add(d + time.Millisecond - 1).Truncate(time.Millisecond)`,
		becomes: `	mutated()
	due := time.Now().Round(0).Add(d).Truncate(time.Second)`,
	},
	{
		name: "release for later that leaves the entry ready", seeds: "900009", file: "finish.go",
		is:      `	f.lock = h.lock.PutAside(due)`,
		becomes: `	mutated()`,
	},
	{
		name: "empty said before what is due was looked for", file: "locking.go",
		is: `		moved, problem := q.mover.moveAll(ctx)`,
		becomes: `		if mutated(); err != nil {
			return err
		}
		moved, problem := q.mover.moveAll(ctx)`,
		test: "TestADelayedEntryOutlivesItsProcess",
	},
	{
		name: "empty said while the handle's own mover makes it ready", file: "locking.go",
		is:      `case waited, q.mover.begun.Load() == ended:`,
		becomes: `case waited, q.mover.begun.Load() >= ended && func() bool { mutated(); return true }():`,
		test:    "TestATryTakeFindsTheEntryThatTheMoverMakesReady",
	},
	{
		name: "expired entry handed out", seeds: "900048", file: "claim.go",
		is:      `	if why != forRemoval && expired(h.headers.Expires()) {`,
		becomes: `	if why != forRemoval && expired(h.headers.Expires()) && func() bool { mutated(); return false }() {`,
	},
	{
		name: "key that stays when its entry goes", seeds: "900003", file: "held.go",
		is: `		a.key, a.keyFence = key.Path, key.Fence`,
		becomes: `		mutated()
		_ = key`,
	},
	{
		name: "key that stays when its delayed put expires", seeds: "900977", file: "delayed.go",
		is: `		ops = append(ops, coord.Delete(key.Path, key.Fence))
	case`,
		becomes: `		mutated()
	case`,
	},
	{
		name: "key taken before the put", seeds: "900003", file: "put.go",
		is: `	if b.key != "" {
		ops = append(ops, coord.Create(b.key, b.o.unique))
	}
	return ops, err`,
		becomes: `	if b.key != "" && err == nil {
		mutated()
		if _, err = s.Commit(ctx, coord.Create(b.key, b.o.unique)); retry.IsRefused(err) {
			if exists := p.refusedKey(ctx, b.key); exists != nil {
				err = exists
			}
		}
	}
	return ops, err`,
	},
	{
		name: "bound that is looked at and not committed with", seeds: "900009", file: "bounds.go",
		is: `	return n, []coord.Op{guard}, nil`,
		becomes: `	mutated()
	return n, nil, nil`,
	},
	{
		name: "progress counts as a lost race", file: "find.go",
		is: `				backoff.Reset()
				ahead = head.MaxReadAhead
				continue`,
		becomes: `				mutated()
				if err := backoff.Wait(ctx, nil, nil); err != nil {
					return err
				}
				continue`,
		test: "TestATakeRemovesSpentEntriesWithoutBackingOff",
	},
	{
		name: "spent entries cleared away one by one", file: "take.go",
		is:      `		if spent[node.Path] && 2*len(chosen.Names) <`,
		becomes: `		if mutated(); len(chosen.Names) == 0 && spent[node.Path] && 2*len(chosen.Names) <`,
		test:    "TestATakeRemovesSpentEntriesWithoutBackingOff",
	},
	{
		name: "exchange that takes its own progress for a lost race", file: "take.go",
		is: `			progress, err = t.clearing.clear(ctx, chosen)`,
		becomes: `			mutated()
			_, err = t.clearing.clear(ctx, chosen)`,
		test: "TestATakeRemovesSpentEntriesWithoutBackingOff",
	},
	{
		name: "empty said after a page of what expired", file: "locking.go",
		is: `		case moved:
		case waited,`,
		becomes: `		case moved && !waited:
			mutated()
			waited = true
		case waited,`,
		test: "TestATakeFindsTheDuePutBehindExpiredOnes",
	},
	{
		name: "the mover's lost answer is the take's", file: "mover.go",
		is: `		if !errors.Is(err, ErrUnknown) {
			return retry.Stop, err
		}
		unknown = true`,
		becomes: `		if mutated(); true {
			return retry.Stop, err
		}
		unknown = true`,
		test: "TestALostAnswerToAMoveDoesNotFailTheTake",
	},
	{
		name: "claims what it holds", file: "exchange.go",
		is:      `return h.name == name }) {`,
		becomes: `return func() bool { mutated(); return false }() && h.name == name }) {`,
		test:    "TestAHandleDoesNotClaimAgainWhatItHolds",
	},
	{
		name: "claim made before another finish is known", file: "exchange.go",
		is: `		if !x.noClaims && len(x.separate) > 0 {
			x.dropClaims()`,
		becomes: `		if !x.noClaims && len(x.separate) > 0 && func() bool { mutated(); return false }() {
			x.dropClaims()`,
		test: "TestNothingIsClaimedWhileAnotherFinishIsInDoubt",
	},
	{
		name: "no timer for the first time to live", file: "expiry.go",
		is: `	if err == nil && !c.Expires && lt.Taken != "" {`,
		becomes: `	mutated()
	if err == nil && !c.Expires && lt.Taken == "" {`,
		test: "TestWaitEmptyNoticesTheFirstTimeToLive",
	},
	{
		name: "key of an expired entry is in use", file: "put.go",
		is: `	if err == nil && e.expired() {
		gone = true`,
		becomes: `	mutated()
	if err == nil && e.expired() && e.Name == "" {
		gone = true`,
		test: "TestAnExpiredEntryHoldsNoKey",
	},
	{
		name: "wait for room that knows no expiry", file: "bounds.go",
		is:      `		at = earlier(at, e.expires)`,
		becomes: `		mutated()`,
		test:    "TestAPutThatWaitsGetsTheRoomOfWhatExpires",
	},
	{
		name: "a lane for each put", file: "internal/lane/set.go",
		is: `	return &Set{config: c, series: c.Series, sem: make(chan struct{}, mostLanes)}`,
		becomes: `	mutated()
	return &Set{config: c, series: c.Series, sem: make(chan struct{}, 1<<20)}`,
		test: "TestManyPutsAtOnceShareTheirLanes",
	},
	{
		name: "a poller that forgets nothing", file: "internal/head/suppressed.go",
		is: `			if now.Sub(x.since) > maxAge {`,
		becomes: `			mutated()
			if now.Sub(x.since) > 1000*time.Hour {`,
		test: "TestAHandleThatPollsForgetsWhatItTook",
	},
	{
		name: "put of some that is larger than the room", file: "bounds.go",
		is: `		n = min(n, max(c.MaxEntries-stay, 1))`,
		becomes: `		mutated()
		n = min(n, max(c.MaxEntries-stay+1, 1))`,
		test: "TestPutSomePutsAStreamInOrder",
	},
	{
		name: "put of more than the bound is waited for", file: "bounds.go",
		is: `	if n > c.MaxEntries && !want.some {`,
		becomes: `	mutated()
	if n > c.MaxEntries && !want.some && want.entries < 0 {`,
		test: "TestAPutOfMoreThanTheBoundIsRefusedAtOnce",
	},
	{
		name: "bound that was heard of before the count was read", file: "bounds.go",
		is:      `if c, err = pt.settings.refreshConfig(ctx, s); err != nil || c.MaxEntries == 0 {`,
		becomes: `if mutated(); c.MaxEntries == 0 {`,
		test:    "TestALowerBoundHoldsAtOnce",
	},
	{
		name: "bound that does not count what is delayed", seeds: "900009", file: "bounds.go",
		is: `			return entries + later, err`,
		becomes: `			mutated()
			return entries, err`,
	},
	{
		name: "forward in two commits", seeds: "900003", file: "pipeline.go",
		is: `			return h.past.handOn(ops), err`,
		becomes: `			mutated()
			if err == nil {
				_, err = h.lock.Session().Commit(ctx, ops...)
			}
			return h.past.forget(), err`,
	},
	{
		name: "forward that leaves what it forwards", seeds: "900004", file: "pipeline.go",
		is:      `		act: "forward", entry: coord.Delete(h.entry, h.at()), wasApplied: h.wasRemoved,`,
		becomes: `		act: "forward", entry: func() coord.Op { mutated(); return coord.Check(h.entry, h.at()) }(), wasApplied: h.wasRemoved,`,
	},
	{
		name: "takes that start together ask each for themselves", file: "internal/handle/shared.go",
		is: `		underWay := c.done
`,
		becomes: `		underWay := c.done
		if underWay != nil {
			c.Mu.Unlock()
			mutated()
			return call()
		}
`,
		test: "TestTakersThatStartTogetherAskOnce",
	},
	{
		name: "one who cannot ask ends those who wait for him", file: "internal/handle/shared.go",
		is: `			close(c.done)
			c.done = nil
`,
		becomes: `			if mutated(); err == nil {
				close(c.done)
				c.done = nil
			}
`,
		test: "TestConcurrentCallersShareOneCall",
	},
	{
		name: "choice counted before it is what is chosen", file: "internal/head/choose.go",
		is: `	if !h.readAhead.hasAll(order[:min(n, len(order))]) { // more`,
		becomes: `	mutated()
	if len(order) > 0 {
		h.fairness.choose(order[0], first)
	}
	if !h.readAhead.hasAll(order[:min(n, len(order))]) { // more`,
		test: "TestEntriesOfAProcessThatStandsStillAreTakenWithinTheBound",
	},

	// What a process was told.
	{
		name: "listing that does not wait for the process's own commits", file: "etcdqueue/watch.go",
		is:      `				w.cache.noteCommit(rev)`,
		becomes: `				mutated()`,
		test:    "TestAProcessSeesItsOwnCommitsAtOnce",
	},
	{
		name: "own commit that is signalled by its event alone", file: "etcdqueue/watch.go",
		is:      `				if direct && !op.SignalLater && rev > w.signalledAt`,
		becomes: `				if mutated(); direct && rev < 0`,
		test:    "TestAProcessSeesItsOwnCommitsAtOnce",
	},
	{
		name: "listing that waits for an event for ever", file: "etcdqueue/list.go",
		is:      `				late = time.After(s.timeout / 2)`,
		becomes: `				mutated()`,
		test:    "TestListingsDoNotWaitForAnEventForEver",
	},
	{
		name: "dropped mirror that comes back", file: "etcdqueue/cache.go",
		is: `	if c.generation != generation {
		return
	}
	c.names`,
		becomes: `	if mutated(); false {
		return
	}
	c.names`,
		test: "TestADiscardedCacheDoesNotComeBack",
	},
	{
		name: "broken entry hidden from the handle that claimed it", file: "internal/head/suppressed.go",
		is:      `		case x.why == WasClaimed && x.number <= before:`,
		becomes: `		case x.why == WasClaimed && x.number <= before && func() bool { mutated(); return false }():`,
		test:    "TestAnEntryWhoseLockWasBrokenIsTakenAtOnce",
	},
	// What operators look at.
	{
		name: "a drained queue of kazoo's has no layout", file: "name.go",
		is: `	return LayoutPlain, nil
}
`,
		becomes: `	mutated()
	return "", nil
}
`,
		test: "TestTheLayoutOfAQueueIsFound",
	},
	{
		name: "delayed puts have no ends of names", file: "base.go",
		is:      `b.delayed.isLater(name) || dead && dir == layout.DeadDir {`,
		becomes: `func() bool { mutated(); return false }() || dead && dir == layout.DeadDir {`,
		test:    "TestNamesAreFoundByTheirEnds",
	},
	{
		name: "the end of two names stands for the first", file: "cmd/zkq/names.go",
		is: `		switch matches := found[name]; len(matches) {
`,
		becomes: `		switch matches := found[name]; min(len(matches), func() int { mutated(); return 1 }()) {
`,
		test: "TestTheEndOfSeveralNamesIsRefused",
	},
	{
		name: "a full service ends a consumer", file: "cmd/zkq/consumer.go",
		is:      `	case zkq.EndingUnknown:`,
		becomes: "	case zkq.EndingUnknown:\n		if mutated(); true {\n			return outcomeUnknown\n		}",
		test:    "TestFullServiceDoesNotOutlastTheGrace",
	},
	{
		name: "a full service outlasts the grace", file: "run.go",
		is: `			r.endFinish()
			<-idle
`,
		becomes: `			mutated()
			<-idle
`,
		test: "TestFullServiceDoesNotOutlastTheGrace",
	},
	{
		name: "rows wider than the terminal", file: "cmd/zkq/table.go",
		is:      `		last[i] = min(last[i], max(left/(cut-n), leastWidth))`,
		becomes: `		mutated(); _ = n`,
		test:    "TestRowsAreCutToTheTerminal",
	},
	{
		name: "restored service whose watches wait for revisions of before", file: "etcdqueue/watch.go",
		is:      `		case <-w.renew:`,
		becomes: `		case <-func() chan struct{} { mutated(); return nil }():`,
		test:    "TestWatchesBeginAnewWhenTheServiceIsRestored",
	},
	{
		name: "restored service that is not noticed while nothing is asked", file: "etcdqueue/health.go",
		is:      `	if c.revisions.current().isAheadOf(r.Header) {`,
		becomes: `	if mutated(); false {`,
		test:    "TestWatchesBeginAnewWhenTheServiceIsRestored",
	},
	{
		name: "session that outlives the state it was of", file: "etcdqueue/revision.go",
		is: `	if s := c.latestSession(); s != nil {
		s.end(`,
		becomes: `	mutated()
	if s := c.latestSession(); s == nil {
		s.end(`,
		test: "TestWatchesBeginAnewWhenTheServiceIsRestored",
	},
}
