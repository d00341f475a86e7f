package simulation

// mutants are in the order of the parts of the code. A name says what the mutated code does wrong. (K1) and so on are the
// defects of kazoo's queues that docs/decisions.md numbers.
var mutants = []mutant{
	// Nodes that another client forged.
	{
		name: "any header of 64 bytes is a key", file: "internal/layout/key.go",
		old: `		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
`,
		new: `		if mutated(); c == 0 {
`,
		test: "TestOnlyLowercaseHexDigitsNameAKey",
	},
	{
		name: "a header owns its key whichever commit created the key", file: "unique.go",
		old:  `bool { return born == key.Born || born == key.Revision }`,
		new:  `bool { mutated(); return true }`,
		test: "TestForgedKeyChangesNothingElse",
	},
	{
		name: "a requeued entry keeps a header of another case", file: "internal/layout/envelope.go",
		old:  `		if strings.EqualFold(name, "expires_ms") || strings.EqualFold(name, "unique") {`,
		new:  `		if mutated(); name == "expires_ms" || strings.Clone(name) == "unique" {`,
		test: "TestRequeuedValueHasNoHeaderOfAnyCaseLeft",
	},
	{
		name: "impossible counts are a history", file: "internal/layout/history.go",
		old:  `		max(int64(h.Failures), int64(h.Stuck), h.Forgiven, h.Updates) > mostCounted {`,
		new:  `		func() bool { mutated(); return false }() {`,
		test: "TestAnImpossibleCountIsNoHistory",
	},

	// A service without space.
	{
		name: "the error of a full service names only the deadline", file: "internal/retry/errors.go",
		old: `		return fmt.Errorf("%w: %w", end, err)
	}
	return err
}

// BusyUntil`,
		new: `		mutated()
		return end
	}
	return err
}

// BusyUntil`,
		test: "TestErrorsSayWhatAnotherAttemptCanDo",
	},
	{
		name: "a full service is not logged", file: "internal/retry/retry.go",
		old:  `	if now.Sub(b.firstBusy) >= ReportAfter {`,
		new:  `	if mutated(); now.Before(b.firstBusy) {`,
		test: "TestTheObserverHearsOfAWaitOfASecond",
	},
	{
		name: "each call that waits is logged", file: "internal/handle/busy.go",
		old:  `	if b.mark(act, true) {`,
		new:  `	if mutated(); b.mark(act, true) || true {`,
		test: "TestAPutThatWaitsForAFullServiceIsLoggedOnceAndItsEndToo",
	},
	{
		name: "a worker does not log that the service is full", file: "worker.go",
		old: `	defer w.Queue.busy.Also(w.log())()
`,
		new: `	mutated()
`,
		test: "TestAWorkerLogsThatTheServiceIsFull",
	},
	{
		name: "a worker that only waits is not registered", file: "worker.go",
		old:  `	w.Queue.registry.Stay()`,
		new:  `	mutated()`,
		test: "TestAWorkerThatOnlyWaitsIsAmongTheWorkers",
	},

	// The embedded store.
	{
		name: "an embedded store is made under its own name", file: "etcdqueue/embedded/create.go",
		old: `	if _, err := os.Stat(d.data()); err == nil && isUnused(d.data()) {
`,
		new: `	if _, err := os.Stat(d.data()); err == nil && func() bool { mutated(); return false }() {
`,
		test: "TestHalfMadeStoreIsMadeAnew",
	},
	{
		name: "a store's log with a request counts as unused", file: "etcdqueue/embedded/create.go",
		old: `	return proto.Size(&r) == 0
`,
		new: `	mutated()
	return true
`,
		test: "TestStoreInDoubtIsNotMadeAnew",
	},
	{
		name: "puts may use the space that is kept for takes", file: "etcdqueue/embedded/admission.go",
		old: `	w.grows = w.grows || grows && !removes
`,
		new: `	mutated()
	_ = removes
`,
		test: "TestFileSizeLimitRefusesPutsAndNothingElse",
	},
	{
		name: "a store's start does not end with its context", file: "etcdqueue/embedded/server.go",
		old: `		case <-ctx.Done():
			return ctx.Err()
`,
		new: `		case <-func() <-chan struct{} { mutated(); return nil }():
`,
		test: "TestStartThatComesToNothingEndsWithItsContext",
	},
	{
		name: "another user's store is used", file: "etcdqueue/embedded/directory.go",
		old: `	if owner := d.foreignOwner(); owner != "" {
		return d, &OwnerError{Path: d.path, Owner: owner}
	}
	if err := d.checkPrivate()`,
		new: `	mutated()
	if err := d.checkPrivate()`,
		test: "TestStoreOfAnotherUserIsRefused",
	},

	// Slots, keys, callbacks and names.
	{
		name: "an entry whose handler hangs comes back for ever", file: "handling.go",
		old:  ` || a.stuck && a.Held.stuck+1 >= mostStuck {`,
		new:  ` || a.stuck && func() bool { mutated(); return false }() {`,
		test: "TestEntryThatGetsItsHandlerStuckIsDeadAndTheOthersGoOn",
	},
	{
		name: "deliveries to a hung handler are forgotten with their worker", file: "finish.go",
		old:  `				a.Stuck++`,
		new:  `				mutated()`,
		test: "TestStuckDeliveriesCountOverTheWorkersThatHadThem",
	},
	{
		name: "a worker goes on when all its slots hang", file: "run.go",
		old:  `	case stuck >= most && r.ending == nil:`,
		new:  `	case func() bool { mutated(); return stuck > most }() && r.ending == nil:`,
		test: "TestRunEndsWhenAllItsSlotsHaveBeenStuckForAMinute",
	},
	{
		name: "a refusal ends a worker that had a session before", file: "run.go",
		old: `	return session == 0 || now.Sub(r.first) > session`,
		new: `	mutated()
	return true`,
		test: "TestAWorkerOutlivesATransientRefusal",
	},
	{
		name: "a negative back-off is a short one (library)", file: "worker.go",
		old: `	if rest = w.Backoff(failures); rest < 0 {`,
		new: `	if rest = w.Backoff(failures); rest < 0 {
		mutated()
		return time.Minute
	}
	if rest < 0 {`,
		test: "TestNegativeBackoffIsTheLongest",
	},
	{
		name: "a key that a forward hands on is removed and created", file: "held.go",
		old:  `		if h.key != "" && op.Path == h.key {`,
		new:  `		if mutated(); h.key == "" && op.Path == h.key {`,
		test: "TestAForwardHandsItsUniqueKeyOn",
	},
	{
		name: "a finished Held is reported as dropped", file: "held.go",
		old:  `	if d.state.Load() == stateHolding && !d.wasFinishTried.Load() {`,
		new:  `	if mutated(); d != nil {`,
		test: "TestADroppedHeldIsReportedOnce",
	},
	{
		name: "a directory among the workers is a member", file: "internal/member/member.go",
		old:  `layout.IsHolder(name) { // other nodes`,
		new:  `func() bool { mutated(); return true }() { // others`,
		test: "TestADirectoryAmongTheWorkersOwnsNoDueEntries",
	},
	{
		name: "a value is not decoded before it is put", file: "typed.go",
		old:  `		err = t.codec().Unmarshal(b, new(T))`,
		new:  `		mutated()`,
		test: "TestAValueThatNoWorkerCouldDecodeIsRefusedAtPut",
	},
	{
		name: "a get with no time does not look", file: "kazoo.go",
		old:  `	if ctx == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {`,
		new:  `	if mutated(); true {`,
		test: "TestGetThatHasNoTimeLooksOnce",
	},

	// Claims.
	{
		name: "a claim moves no fence", seeds: "900003", file: "claim.go",
		old: `a.ops = []coord.Op{coord.Touch(n.Path, n.Value, n.Fence), `,
		new: `mutated()
	a.ops = []coord.Op{coord.Check(n.Path, n.Fence), `,
	},
	{
		name: "a claim is two commits, the lock first (K4)", file: "exchange.go",
		old: `		rs, err := x.session.Commit(ctx, ops...)
		switch refused`,
		new: `		mutated()
		var rs []coord.Result
		if len(x.finishing) > 0 || len(x.claims) > 1 {
			rs, err = x.session.Commit(ctx, ops...)
		} else if rs, err = x.session.Commit(ctx, ops[1]); err == nil {
			var first []coord.Result
			first, err = x.session.Commit(ctx, ops[0])
			rs = append(first, rs...)
		}
		switch refused`,
	},
	{
		name: "a claim without an answer counts as refused (K5)", file: "claim.go",
		old: `		h, err = c.resolveClaim(ctx, a)
	}
	if err == nil {`,
		new: `		mutated()
		err = errUnavailable
	}
	if err == nil {`,
	},
	{
		name: "a claim without an answer counts as made", seeds: "900002", file: "claim.go",
		old: `		h, err = c.resolveClaim(ctx, a)
	}
	if err == nil {`,
		new: `		mutated()
		h = c.newHeld(a, a.node.Fence+1, lock.Acquired(s, coord.Result{Path: path.Join(c.Taken, name), Fence: 1}, c.holder), a.node.Revision+1)
		err = nil
	}
	if err == nil {`,
	},
	{
		name: "a cancelled claim is not undone", file: "claim.go",
		old: `		c.undoClaim(a, h)
`,
		new: `		mutated()
`,
	},
	{
		name: "a take skips the entry of a claim in doubt", file: "internal/head/claims.go",
		old:  `	c.entries[name].inDoubt = true`,
		new:  `	mutated()`,
		test: "TestClaimInDoubtIsNotPassedOver",
	},
	{
		name: "an entry released under a claim in doubt waits for the claim's next attempt", file: "internal/head/claims.go",
		old: `	t.requestRetry()
	if t.isBlocked {`,
		new: `	mutated()
	if t.isBlocked {`,
		test: "TestEntryGivenBackUnderAClaimInDoubtIsNotPassedOver",
	},
	{
		name: "releases of later holders lower the count of deliveries", file: "claim.go",
		old: `		if err == nil && h.past.revision > h.Token {`,
		new: `		mutated()
		if err == nil && h.past.revision > h.Token+1<<40 {`,
		test: "TestALaterHoldersReleaseDoesNotLowerTheCountOfDeliveries",
	},
	{
		name: "a token does not grow", seeds: "900003", file: "claim.go",
		old: `		Token:      token,`,
		new: `		Token:      func() int64 { mutated(); return 1 }(),`,
	},
	{
		name: "an entry is handed out beyond its limit of deliveries", seeds: "900002", file: "claim.go",
		old: `	return c.maxDeliveries > 0 && h.changes`,
		new: `	mutated()
	return c.maxDeliveries > 1000 && h.changes`,
	},

	// Finishes.
	{
		name: "a finish does not check the entry's fence", seeds: "900030", file: "finish.go",
		old: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry,`,
		new: `	mutated()
	if n, err := h.lock.Session().Get(ctx, h.entry); err == nil {
		f.entry.Fence = n.Fence
	}
	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry,`,
	},
	{
		name: "a finish checks the lock and then removes by path (K1)", seeds: "900008", file: "finish.go",
		old: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, extra...)...)`,
		new: `	if holds, err := h.lock.Holds(ctx); err != nil || !holds {
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
	_, err = s.Commit(ctx, append([]coord.Op{f.entry, back}, extra...)...)`,
	},
	{
		name: "a refused finish counts as made (K2)", seeds: "900015", file: "finish.go",
		old: `	case stepLose:
		return retry.Stop, h.endFinish(f, stateLost, ErrLockLost)`,
		new: `	case stepLose:
		mutated()
		return retry.Stop, h.endFinish(f, stateDone, nil)`,
	},
	{
		name: "a finish without an answer counts as made", seeds: "900011", file: "finish.go",
		old: `		h.unanswered.note(f)
	}`,
		new: `		mutated()
		return retry.Stop, h.endFinish(f, stateDone, nil)
	}`,
	},
	{
		name: "a finish that was applied without an answer counts as lost", seeds: "900008", file: "finish.go",
		old: `	case mine:
		return h.endFinish(f, stateDone, nil)
	}`,
		new: `	case mine:
		mutated()
	}`,
	},
	{
		name: "a release leaves its lock", seeds: "900008", file: "finish.go",
		old: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, extra...)...)`,
		new: `	ops := append([]coord.Op{f.entry, f.lock}, extra...)
	if f.act == "release" {
		mutated()
		ops = ops[:1]
	}
	_, err = h.lock.Session().Commit(ctx, ops...)`,
	},
	{
		name: "a consume leaves its lock", seeds: "900002", file: "finish.go",
		old: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, extra...)...)`,
		new: `	ops := append([]coord.Op{f.entry, f.lock}, extra...)
	if f.act == "consume" {
		mutated()
		ops = ops[:1]
	}
	_, err = h.lock.Session().Commit(ctx, ops...)`,
	},
	{
		name: "a consume removes only its lock", seeds: "900003", file: "finish.go",
		old: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, extra...)...)`,
		new: `	ops := append([]coord.Op{f.entry, f.lock}, extra...)
	if f.act == "consume" {
		mutated()
		ops = ops[1:2]
	}
	_, err = h.lock.Session().Commit(ctx, ops...)`,
	},
	{
		name: "a release puts the entry again", seeds: "900005", file: "finish.go",
		old: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, extra...)...)`,
		new: `	ops := append([]coord.Op{f.entry, f.lock}, extra...)
	if f.act == "release" {
		mutated()
		ops[0] = coord.Delete(h.entry, h.fence)
		ops = append(ops, coord.CreateSequential(h.entry[:len(h.entry)-10], h.Value))
	}
	_, err = h.lock.Session().Commit(ctx, ops...)`,
	},
	{
		name: "an entry becomes dead in two commits", seeds: "900002", file: "finish.go",
		old: `	_, err = h.lock.Session().Commit(ctx, append([]coord.Op{f.entry, f.lock}, extra...)...)`,
		new: `	ops := append([]coord.Op{f.entry, f.lock}, extra...)
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
		name: "an entry that another client removed counts as finished by this call", seeds: "900055", file: "finish.go",
		old: `	broken, err := h.claimer.traces.wasBroken(ctx, h.lock.Session(), h.Name, h.lock.Revision())
`,
		new: `	mutated()
	broken, err := false, error(nil)
`,
	},
	{
		name: "a finish in doubt is taken for another one of its handle", file: "finish.go",
		old: `	case mine && h.unanswered.severalKinds:
`,
		new: `	case mine && h.unanswered.severalKinds && func() bool { mutated(); return false }():
`,
		test: "TestAFinishIsNotTakenForAnotherOfItsHandle",
	},
	{
		name: "a removal that is cancelled half-way keeps its lock", file: "claim.go",
		old: `		c.Spawn(func() { c.undoClaim(claimAttempt{session: s, name: name}, h) })
`,
		new: `		mutated()
`,
		test: "TestCancelledRemovalHoldsNothing",
	},
	{
		name: "an entry's history is kept when the entry is gone", seeds: "900003", file: "held.go",
		old: `		ops = append(ops, coord.Delete(h.path, h.fence))`,
		new: `	mutated()
	return nil`,
	},

	// The head of the queue.
	{
		name: "a release wakes no take", seeds: "900003", file: "internal/head/head.go",
		old: `dirs = append(dirs, h.Taken)`,
		new: `mutated()`,
	},
	{
		name: "the watch begins after the listing", file: "internal/head/head.go", test: "TestAnEntryPutAsTheWatchBeginsIsTaken",
		old: `	if s == h.session && isMember == h.watched.members {
		return nil
	}`,
		new: `	if s == h.session && isMember == h.watched.members {
		return nil
	}
	if l, err := h.List(ctx, s, DefaultWindow, coord.ListOptions{Fresh: true}); err == nil {
		mutated()
		defer func() { h.ready, h.isComplete, h.isListed = l.Names, l.IsComplete, h.session == s }()
	}`,
	},
	{
		name: "the head forgets an entry whose claim failed", file: "claim.go", test: "TestATakeThatGaveUpLeavesTheEntryToTheNext",
		old: `	case !errors.Is(err, coord.ErrUnknown):
		mayBeFree = true`,
		new: `	case !errors.Is(err, coord.ErrUnknown):
		mutated()`,
	},
	{
		name: "a lost claim wakes no take that skipped its entry", file: "claim.go", test: "TestALostClaimWakesTheTakesThatSkippedItsEntry",
		old: `	case retry.IsRefused(err):
		mayBeFree = true`,
		new: `	case retry.IsRefused(err):
		mutated()`,
	},
	{
		name: "a signal during a listing is lost (K6)", seeds: "900037", file: "internal/head/head.go",
		old: `	case <-h.changed:
		h.isListed = false
		h.changedAt = h.watchedUntil.Add(now.Sub(h.watchedUntil) / 2)
	default:`,
		new: `	case <-h.changed:
		mutated()
	default:`,
	},
	{
		name: "ErrEmpty is returned although locks changed during the listings", file: "take.go",
		old: `			if locks.Stamp == l.Stamp {`,
		new: `			mutated()
			if locks.Stamp == l.Stamp || l.Stamp != 0 {`,
		test: "TestErrEmptyIsNotReturnedWhenAReleaseFellBetweenTheListings",
	},
	{
		name: "ErrEmpty is returned after a stale listing", seeds: "900941", file: "take.go",
		old: `			l, err := fd.lister.List(ctx, s, max(n, ahead)+resting.Len()+fd.restricted.Len(), coord.ListOptions{Fresh: true})`,
		new: `			mutated()
			l, err := fd.lister.List(ctx, s, max(n, ahead)+resting.Len()+fd.restricted.Len(), coord.ListOptions{})`,
	},

	// Choosing entries, and exchanges.
	{
		name: "a refused claim also fails the finish of its exchange", file: "exchange.go",
		old: `		case refused >= 0:
			x.takeOutRefused(ctx, parts, refused, err)
			return retry.Now, nil`,
		new: `		case refused >= 0:
			if refused >= parts[len(x.finishing)] && len(x.finishing) > 0 {
				mutated()
				for _, h := range x.finishing {
					h.end(stateDone, true)
					<-h.sem
				}
				x.finishing = nil
			}
			x.takeOutRefused(ctx, parts, refused, err)
			return retry.Now, nil`,
		test: "TestExchangeTakesAnotherEntryWhereOneWasClaimedFirst",
	},
	{
		name: "an exchange without an answer counts as applied", file: "exchange.go",
		old: `	for _, h := range inDoubt {
		x.failed = errors.Join(x.failed, x.finishAlone(ctx, h))
	}`,
		new: `	for _, h := range inDoubt {
		mutated()
		h.end(stateDone, true)
	}`,
		test: "TestExchangeWhoseAnswerWasLostIsAppliedOnce",
	},
	{
		name: "a lost entry fails the other finishes of its exchange", file: "exchange.go",
		old: `			x.separateOne(i)
			return
		}`,
		new: `			mutated()
			h := x.finishing[i]
			h.lock.SetReleasing(false)
			<-h.sem
			x.finishing = append(x.finishing[:i:i], x.finishing[i+1:]...)
			return
		}`,
		test: "TestExchangeOfALostEntryCostsTheOthersNothing",
	},
	{
		name: "the window has no limit", file: "internal/head/choose.go",
		old:  `	return max(h.Window/2, min(wanted, mostShared), 1) // half`,
		new:  `	return func() int { mutated(); return max(wanted, 1<<20) }() // half`,
		test: "TestEntriesOfAProcessThatStandsStillAreTakenWithinTheBound",
	},
	{
		name: "the window does not grow with the fleet", file: "internal/head/choose.go",
		old:  `h.heldCount()) * members`,
		new:  `h.heldCount()) * func() int { mutated(); return 1 }()`,
		test: "TestEachProcessOfALargeFleetFindsEntriesOfItsOwn",
	},
	{
		name: "a process takes what stands behind the entries that it leaves to others", file: "internal/head/choose.go",
		old: `		others, behind = open, nil
`,
		new: `		mutated()
		others = open
`,
		test: "TestAHandleWithNothingLeftWantsTheOthersEntriesFromTheirEnd",
	},
	{
		name: "a process leaves a more urgent entry to others and waits", file: "internal/head/choose.go",
		old:  `	hasLessUrgent := len(behind) > 0 &&`,
		new:  `	hasLessUrgent := func() bool { mutated(); return false }() &&`,
		test: "TestAMoreUrgentEntryIsTakenNextByEveryProcess",
	},
	{
		name: "every process claims the entry of another at once", file: "internal/head/choose.go",
		old:  `		case !at.After(now):`,
		new:  `		case func() bool { mutated(); return !now.IsZero() }():`,
		test: "TestOneOfManyWaitingProcessesClaimsAnEntry",
	},
	{
		name: "a grace has no end", file: "internal/head/head.go",
		old:  `	if h.isLeft && !h.opensAt.IsZero()`,
		new:  `	if func() bool { mutated(); return false }()`,
		test: "TestEntriesOfProcessesThatTakeNothingAreTakenSoon",
	},
	{
		name: "a grace begins anew with each look", file: "internal/head/patience.go",
		old: `		since = ready
		p.since[name] = since
`,
		new: `		mutated()
		since = time.Now()
`,
		test: "TestEntriesOfProcessesThatTakeNothingAreTakenSoon",
	},
	{
		name: "the ranks of a member that has left stay", file: "internal/member/rank.go",
		old:  `	r.members, r.hashes, r.before = members, make([]uint64, len(members)), nil`,
		new:  `	r.members, r.hashes, r.before = members, make([]uint64, len(members)), func() map[string]int { mutated(); return r.before }()`,
		test: "TestRanksAreThoseOfThePresentMembers",
	},
	{
		name: "a choice that leaves all entries to others counts as one of nothing", file: "internal/head/fairness.go",
		old: `	case chosen == "":
`,
		new: `	case chosen == "":
		mutated()
		f.entry = ""
`,
		test: "TestTheFirstEntryIsAnybodysAfterTwoAnsweredClaims",
	},
	{
		name: "a process takes others' entries from the end where their owners begin", file: "internal/head/choose.go",
		old:  `slices.Reverse(others)`,
		new:  `mutated()`,
		test: "TestAHandleWithNothingLeftWantsTheOthersEntriesFromTheirEnd",
	},
	{
		name: "an exchange waits behind a take", file: "internal/head/head.go",
		old: `	if wait {
		waiting = nil
	}`,
		new: `	mutated()
	waiting = nil`,
		test: "TestExchangeDoesNotWaitBehindATake",
	},
	{
		name: "a more urgent entry is taken after those chosen before it", file: "internal/head/choose.go",
		old:  `		isShared := seen <= window && hasPriorityOf(name, first)`,
		new:  `		isShared := seen <= window && func() bool { mutated(); return true }()`,
		test: "TestAMoreUrgentEntryIsTakenNextByEveryProcess",
	},

	// Entries that come back, and dead entries.
	{
		name: "a release counts as a failure", file: "finish.go",
		old: `if a.Forgiven += h.bumps; h.bumps == 0 {`,
		new: `if mutated(); h.bumps == 0 {`,
	},
	{
		name: "a failure is not counted", file: "finish.go",
		old: `			a.Failures++
`,
		new: `			mutated()
			a.Forgiven++
`,
	},
	{
		name: "a failure is counted although its lock was broken", file: "finish.go",
		old: `		wasApplied: h.wasAppliedUnlessBroken,
	}, opts)`,
		new: `		wasApplied: func(context.Context, *coord.Refusal) (bool, error) { mutated(); return true, nil },
	}, opts)`,
	},
	{
		name: "a strict take skips an entry that came back", file: "exchange.go",
		old:  `		x.keepClaims(i) // the refused`,
		new:  `		mutated() // the refused`,
		test: "TestStrictTakesAnEntryReleasedSinceItWasRead",
	},
	{
		name: "a release in doubt counts as applied whatever an operator did", file: "finish.go",
		old: `			return []coord.Op{a.writeOp()}, nil
		},
		wasApplied: h.wasAppliedUnlessBroken,
	}
}`,
		new: `			return []coord.Op{a.writeOp()}, nil
		},
		wasApplied: func(context.Context, *coord.Refusal) (bool, error) { mutated(); return true, nil },
	}
}`,
		test: "TestAFinishInDoubtIsNotReportedAsAppliedWhenAnOperatorTookTheEntry",
	},
	{
		name: "another finish in doubt counts as applied whatever an operator did", file: "finish.go",
		old: `	if _, problem := h.wasAppliedUnlessBroken(ctx, refusal); problem != nil {`,
		new: `	var problem error
	if mutated(); problem != nil {`,
		test: "TestAFinishInDoubtIsNotReportedAsAppliedWhenAnOperatorTookTheEntry",
	},
	{
		name: "a finish of a broken lock stays in doubt for ever", file: "finish.go",
		old:  `	if errors.Is(problem, errBroken) {`,
		new:  `	if mutated(); false {`,
		test: "TestAFinishInDoubtIsNotReportedAsAppliedWhenAnOperatorTookTheEntry",
	},
	{
		name: "a claim of several takes an entry that came back", file: "internal/head/choose.go",
		old: `		if len(c.Names) == n || cameBack && len(c.Names) > 0 {
			break`,
		new: `		mutated()
		if len(c.Names) == n {
			break`,
		test: "TestAnEntryThatCameBackIsTakenAlone",
	},
	{
		name: "TakeN skips an entry that came back", file: "internal/head/choose.go",
		old: `		if cameBack {
			break`,
		new: `		if cameBack {
			mutated()
			continue`,
		test: "TestAnEntryThatCameBackIsTakenAlone",
	},
	{
		name: "the limit of deliveries is reached one delivery late", file: "claim.go",
		old: `	return c.maxDeliveries > 0 && h.changes-h.past.Forgiven >= int64(c.maxDeliveries)
`,
		new: `	mutated()
	return c.maxDeliveries > 0 && h.changes-h.past.Forgiven > int64(c.maxDeliveries)
`,
	},
	{
		name: "the limit of deliveries counts releases", file: "claim.go",
		old: `	return c.maxDeliveries > 0 && h.changes-h.past.Forgiven >= int64(c.maxDeliveries)
`,
		new: `	mutated()
	return c.maxDeliveries > 0 && h.changes >= int64(c.maxDeliveries)
`,
	},
	{
		name: "a move to the dead entries counts as a failure", file: "claim.go",
		old: `	err := h.bury(ctx, 0, `,
		new: `	mutated()
	err := h.bury(ctx, 1, `,
	},
	{
		name: "a requeue leaves the dead entry", file: "admin.go",
		old: `	_, body := layout.Unwrap(n.Value)
	return []coord.Op{
		coord.Delete(n.Path, n.Fence),
`,
		new: `	_, body := layout.Unwrap(n.Value)
	mutated()
	return []coord.Op{
		coord.Check(n.Path, n.Fence),
`,
	},
	{
		name: "a requeue is two commits", file: "admin.go",
		old: `	done, err := q.lanes.commitOnce(ctx, nil, ops, nil)
`,
		new: `	mutated()
	done, err := q.lanes.commitOnce(ctx, nil, ops[1:], nil)
	if err == nil {
		done.Results = append([]coord.Result{{}}, done.Results...)
		err = q.handle.Do(ctx, func(ctx context.Context, s coord.Session) error { _, err := s.Commit(ctx, ops[0]); return err })
	}
`,
	},

	// Operators, and updates.
	{
		name: "an update counts as a delivery", file: "update.go",
		old: `a.Updates, a.Forgiven = a.Updates+1, a.Forgiven+1`,
		new: `mutated()
	a.Updates = a.Updates + 1`,
	},
	{
		name: "an update drops the entry's headers", file: "update.go",
		old: `	sealed := layout.Reseal(n.Value, value)
`,
		new: `	mutated()
	sealed := value
`,
	},
	{
		name: "an update does not write the value", file: "update.go",
		old: `coord.Set(h.entry, sealed, h.fence), coord.Check`,
		new: `coord.Set(h.entry, func() []byte { mutated(); return n.Value }(), h.fence), coord.Check`,
	},
	{
		name: "an update that is applied late counts as a lost lock", file: "update.go",
		old:  `err != nil || again || h.updating == 0`,
		new:  `err != nil || again || func() bool { mutated(); return true }()`,
		test: "TestAnUpdateThatIsAppliedLateIsNotTakenForALoss",
	},
	{
		name: "WaitEmpty overlooks delayed entries", file: "inspect.go",
		old: `			if left, until, err = in.findDelayedPut(ctx, s, expires); err != nil || left {
				return left, until, err
			}
`,
		new: `			mutated()
`,
	},
	{
		name: "WaitEmpty forgets when the last entry expires", file: "base.go",
		old:  `waitUntil(ctx, s, changed, nil, until, &told)`,
		new:  `waitUntil(ctx, s, changed, nil, func() (never lifetime) { mutated(); return never }().expires, &told)`,
		test: "TestWaitEmptyNoticesTheFirstTimeToLive",
	},
	{
		name: "a batch loses its refused ones", file: "remove.go",
		old: `			errs[i] = rm.removeWhere(ctx, name, inDoubt[name], allowed)
`,
		new: `			mutated()
			errs[i] = ErrNoEntry
`,
		test: "TestPurgeRemovesWhatChangedAndIsReady",
	},
	{
		name: "a purge finishes what another process holds", file: "remove.go",
		old:  `		case r.state == StateReady && rm.removeAllReady != nil:`,
		new:  `		case r.state == StateReady && rm.removeAllReady != nil && func() bool { mutated(); return false }():`,
		test: "TestPurgeLeavesWhatKazooTook",
	},
	{
		name: "a removal without an answer is repeated as if it were the first", file: "remove.go",
		old: `			inDoubt[others[i]] = true
`,
		new: `			mutated()
`,
		test: "TestLostAnswersOfABulkChange",
	},
	{
		name: "a purge of held entries leaves no trace", file: "remove.go",
		old:  `append(changes, append(r.ops, rm.traces.leaveTrace(name)))`,
		new:  `append(changes, append(r.ops, func() []coord.Op { mutated(); return nil }()...))`,
		test: "TestAPurgeOfHeldEntriesTellsEachHolder",
	},
	{
		name: "a removed entry leaves the index of its rest", file: "remove.go",
		old:  `[]coord.Node{locks[i], past[i], index[i]}`,
		new:  `[]coord.Node{locks[i], past[i], func() coord.Node { mutated(); index[i].Path = ""; return index[i] }()}`,
		test: "TestChangesOfManyCostFewRequests",
	},
	{
		name: "a refused change takes those before it along", file: "internal/bulk/bulk.go",
		old: `			return append(some[:at:at], some[at+1:]...)
`,
		new: `			mutated()
			return some[at+1:]
`,
		test: "TestARefusedChangeLeavesTheOthersAlone",
	},
	{
		name: "the second half of a refused batch is forgotten", file: "internal/bulk/bulk.go",
		old: `			some = some[len(some)/2:]
`,
		new: `			mutated()
			some = nil
`,
		test: "TestARefusedChangeLeavesTheOthersAlone",
	},
	{
		name: "a bulk commit has no bound in bytes", file: "internal/bulk/bulk.go",
		old:  `size > c.limits.CommitBytes)`,
		new:  `size > func() int { mutated(); return 1 << 40 }())`,
		test: "TestCommitsKeepTheLimits",
	},
	{
		name: "two changes of one node share a commit", file: "internal/bulk/bulk.go",
		old:  `			if paths[op.Path] {`,
		new:  `			if paths[op.Path] && func() bool { mutated(); return false }() {`,
		test: "TestChangesOfOnePathDoNotShareACommit",
	},
	{
		name: "a requeue of many forgets the bound", file: "admin.go",
		old:  `append(slices.Clip(ops), guard...)`,
		new:  `append(slices.Clip(ops), func() []coord.Op { mutated(); return guard[:0] }()...)`,
		test: "TestARequeueOfManyNeverExceedsTheBound",
	},
	{
		name: "a requeue of many has no lane", file: "admin.go",
		old:  `changes, rq.commitRequeued)`,
		new:  `changes, func(ctx context.Context, ops ...coord.Op) ([]coord.Result, error) { mutated(); return s.Commit(ctx, ops...) })`,
		test: "TestLostAnswersOfABulkChange",
	},
	{
		name: "a purge counts what others removed", file: "remove.go",
		old: `			case problem == nil:
				removed++
			case`,
		new: `			case problem == nil || errors.Is(problem, ErrNoEntry) && func() bool { mutated(); return true }():
				removed++
			case`,
		test: "TestPurgeCountsOnlyWhatItRemoved",
	},
	{
		name: "an entry that a restore brings back is never taken", file: "internal/head/head.go",
		old: `	h.Suppressed.clear()
`,
		new: `	mutated()
`,
		test: "TestProcessesGoOnAfterARestore",
	},

	// Puts and lanes.
	{
		name: "a put without an answer is made twice (K10)", seeds: "900004", file: "internal/lane/commit.go",
		old: `		case errors.Is(err, coord.ErrUnknown):
			inDoubt = true
		case inDoubt && mayPassLater`,
		new: `		case errors.Is(err, coord.ErrUnknown):
			mutated()
			refusal = errUnusable
			return retry.Stop, errUnusable
		case inDoubt && mayPassLater`,
	},
	{
		name: "a put does not check its lane", seeds: "900002", file: "internal/lane/commit.go",
		old: `			if rs, err = sendIn(ctx, session, send, all); err == nil {
				l.advance(`,
		new: `			if n, err := session.Get(ctx, l.path()); err == nil {
				mutated()
				all[0].Fence = n.Fence
			}
			if rs, err = sendIn(ctx, session, send, all); err == nil {
				l.advance(`,
	},
	{
		name: "a put of unknown outcome counts as failed", seeds: "900001", file: "internal/lane/commit.go",
		old: `	case inDoubt:
		return Applied{}, &UnknownError`,
		new: `	case func() bool { mutated(); return inDoubt && l == nil }():
		return Applied{}, &UnknownError`,
	},
	{
		name: "a put of unknown outcome counts as made", seeds: "900009", file: "internal/lane/commit.go",
		old: `	case inDoubt:
		return Applied{}, &UnknownError`,
		new: `	case inDoubt:
		if mutated(); true {
			return Applied{}, nil
		}
		return Applied{}, &UnknownError`,
	},
	{
		name: "a lane in doubt is used again", seeds: "900009", file: "internal/lane/commit.go",
		old: `		if unknown := (*UnknownError)(nil); !errors.As(err, &unknown) {
			s.putBack(l)`,
		new: `		if unknown := (*UnknownError)(nil); !errors.As(err, &unknown) || l != nil {
			if err != nil {
				mutated()
			}
			s.putBack(l)`,
	},
	{
		name: "a lane is used again however long it was idle", file: "internal/lane/commit.go",
		old:  `		case time.Since(l.wrote) > maxIdle && !s.refresh(ctx, l):`,
		new:  `		case time.Since(l.wrote) > maxIdle && func() bool { mutated(); return false }():`,
		test: "TestUnknownPutIsResolvedThoughItsHandleWasIdle",
	},
	{
		name: "a put of several values is two commits", seeds: "900001", file: "put.go",
		old: `	return pt.lanes.commitOnce(ctx, o.noteOf(bs), ops, send)
`,
		new: `	done, err := pt.lanes.commitOnce(ctx, o.note, ops[:1], send)
	if err == nil && len(ops) > 1 {
		mutated()
		var more lane.Applied
		more, err = pt.lanes.commitOnce(ctx, o.note, ops[1:], send)
		done.Results = append(done.Results, more.Results...)
	}
	return done, err
`,
	},
	{
		name: "the names of several values are in another order", seeds: "900001", file: "put.go",
		old: `			names[i] = path.Base(r.Path)`,
		new: `			mutated()
			names[len(names)-1-i] = path.Base(r.Path)`,
	},
	{
		name: "Resolve does not make a token void", file: "internal/lane/resolve.go",
		old: `	_, err = session.Commit(ctx, coord.Set(lane, layout.Marker{N: n, Void: true}.Value(), node.Fence))
	return Outcome{}, err`,
		new: `	mutated()
	return Outcome{}, nil`,
		test: "TestUnknownPutIsResolvedByAnyProcess",
	},
	{
		name: "Resolve takes a void token for an applied put", seeds: "900079", file: "internal/lane/resolve.go",
		old: `	case m.N == n && m.Void:
		return Outcome{}, nil`,
		new: `	case m.N == n && m.Void:
		mutated()
		return Outcome{Applied: true}, nil`,
	},
	{
		name: "a missing lane counts as not applied", file: "internal/lane/resolve.go",
		old: `		o, err = resolveIn(ctx, session, Path(name), n)
`,
		new: `		if o, err = resolveIn(ctx, session, Path(name), n); errors.Is(err, ErrExpired) {
			mutated()
			return nil
		}
`,
		test: "TestAForgottenTokenIsExpiredAndNeverNotApplied",
	},
	{
		name: "a put ignores that its token is void", file: "internal/lane/commit.go",
		old: `			return retry.Stop, fmt.Errorf("token %s: %w", token, ErrVoid)`,
		new: `			mutated()
			done.Revision = node.Revision
			return retry.Stop, nil`,
		test: "TestVoidTokenPutsNothing",
	},

	// The simple queue, and the rest.
	{
		name: "a get without an answer takes the next entry (K8)", seeds: "900009", file: "queue.go",
		old: `	case errors.Is(err, ErrUnknown):
		return e, fmt.Errorf("remove %s: %w", name, err)`,
		new: `	case errors.Is(err, ErrUnknown):
		mutated()
		return Entry{}, errUnavailable`,
	},
	{
		name: "a get uses no lane", seeds: "900004", file: "queue.go",
		old: `	_, err := q.lanes.commitOnce(ctx, nil, []coord.Op{coord.Delete(n.Path, n.Fence)}, nil)`,
		new: `	s, err := q.handle.Session(ctx)
	for mutated(); err == nil; {
		if _, err = s.Commit(ctx, coord.Delete(n.Path, n.Fence)); !errors.Is(err, coord.ErrUnknown) || ctx.Err() != nil {
			break
		}
		err = nil
	}`,
	},
	{
		name: "Len counts the locks", seeds: "900002", file: "locking.go",
		old: `		n, err = s.Count(ctx, q.handle.Entries)
		return err`,
		new: `		n, err = s.Count(ctx, q.handle.Entries)
		if err == nil {
			mutated()
			var locks int
			locks, err = s.Count(ctx, q.handle.Taken)
			n += locks
		}
		return err`,
	},
	{
		name: "Close releases nothing", file: "locking.go",
		old: `	err := q.finishCurrent(func(h *Held) error { return h.Release(ctx) })
	<-q.kazooMu`,
		new: `	mutated()
	err := ctx.Err()
	<-q.kazooMu`,
		test: "TestCloseEndsWaitersAndReleasesWhatGetHolds",
	},
	{
		name: "a holder is not told of the end of its session", seeds: "900224", file: "lock/keeper.go",
		old: `	for _, watched := range w.locks {
		watched.lose(ErrLost)
	}
	w.locks = nil`,
		new: `	mutated()
	w.locks = nil`,
	},
	{
		name: "a session is given up later than the service ends it", seeds: "900275", file: "coord/coordtest/internal/memory/client.go",
		old: `		current.deadline = now.Add(liveness.Trust(current.timeout))`,
		new: `		mutated()
		current.deadline = now.Add(liveness.Trust(current.timeout) + current.timeout/3)`,
	},
	{
		name: "a watch does not see changes before it", file: "coord/coordtest/internal/memory/session.go",
		old:  `		s.client.catchUpLocked() // listings show from now on what`,
		new:  `		mutated() // listings show from now on what`,
		test: "TestWatchShowsWhatCameBeforeIt",
	},
	// The driver's fences, each alone, on a real ZooKeeper.
	{
		name: "ZooKeeper is not told the version", file: "zkqueue/commit.go",
		old: `func fenceVersion(f coord.Fence) int32 {
`,
		new: `func fenceVersion(f coord.Fence) int32 {
	if mutated(); f >= 0 {
		return -1
	}
`,
		test: "TestDataFenceAlone",
	},
	{
		name: "one missing value fails the others of its read", file: "zkqueue/multiread.go",
		old:  `case code != codeNoNode:`,
		new:  `case func() bool { mutated(); return true }():`,
		test: "TestManyNodesAreReadWithFewRequests",
	},
	{
		name: "an own request is lost with its connection", file: "zkqueue/read.go",
		old: `			// go-zookeeper may need a moment to notice that the connection is gone.
			return retry.Later
`,
		new: `			mutated()
			return retry.Stop
`,
		test: "TestABarrierOutlivesItsConnection",
	},
	{
		name: "a truncated answer of ZooKeeper is decoded", file: "zkqueue/conn.go",
		old: `	if !isCompleteMulti(answer[4+headerBytes:]) {
`,
		new: `	if mutated(); false {
`,
		test: "TestAnAnswerCutShortIsUnknown",
	},
	{
		name: "the decoding error of a read is an answer", file: "zkqueue/errors.go",
		old:  `{zk.ErrShortBuffer, outcomeUnknown, nil}, `,
		new:  `{func() error { mutated(); return zk.ErrShortBuffer }(), outcomeRefused, coord.ErrTooLarge}, `,
		test: "TestAReadWhoseAnswerIsCutShortIsMadeAgain",
	},
	{
		name: "the limit of a commit forgets the op of the bound", file: "put.go",
		old:  `Limit: limit.Limit - (limit.Size - n)}`,
		new:  `Limit: func() int { mutated(); return limit.Limit - 1 }()}`,
		test: "TestPutAllNamesItsLimitOfEntries",
	},
	{
		name: "only the first address of a name is dialled", file: "internal/resolve/names.go",
		old: `	n.dialed[server] = n.dials
`,
		new: `	if n.dialed[server] = 1; n.dials > 1 {
		mutated()
		n.dialed[server] = 0
	}
`,
		test: "TestEachAddressOfANameIsTriedInTurn",
	},
	{
		name: "a load balancer without servers ends a session that was up before", file: "zkqueue/session.go",
		old: `			if patient {
				continue
			}
`,
		new: `			mutated()
`,
		test: "TestNothingIsHopelessAfterASession",
	},
	{
		name: "a closed TLS handshake counts as a server without TLS", file: "internal/secure/handshake.go",
		old:  `		return &ClosedError{err}`,
		new:  `		return func() error { mutated(); return fmt.Errorf("%w: %w", err, coord.ErrTLS) }()`,
		test: "TestAClosedHandshakeProvesNothing",
	},
	{
		name: "one node without permission hides the others", file: "zkqueue/read.go",
		old: `	d, err := s.data(ctx, fullPath)
	if !errors.Is(err, coord.ErrForbidden) {
		return d, err
	}
	return read`,
		new: `	d, err := s.data(ctx, fullPath)
	if mutated(); true {
		return d, err
	}
	return read`,
		test: "TestAnEntryThatCannotBeReadStopsNothing",
	},
	{
		name: "a directory is mirrored although the server hides some changes", file: "zkqueue/cache.go",
		old: `	if c == nil || d.names == nil || d.changes < 0 || stat == nil || d.changes >= stat.Cversion {
`,
		new: `	if mutated(); c != nil || stat != nil {
`,
		test: "TestAnEntryThatCannotBeReadStopsNothing",
	},
	{
		name: "the last number of a directory is given twice", file: "coord/coordtest/internal/memory/state.go",
		old:  `case op.Kind == coord.KindSequential && n > coord.LastNumber:`,
		new:  `case op.Kind == coord.KindSequential && n > coord.LastNumber && func() bool { mutated(); return false }():`,
		test: "TestCounterEndsAsZooKeepers",
	},
	{
		name: "ZooKeeper's counter counts deletions as creates", file: "zkqueue/naming.go",
		old:  `int64(uint32(stat.Cversion+stat.NumChildren) / 2)`,
		new:  `int64(uint32(stat.Cversion+0*int32(func() int { mutated(); return 1 }())))`,
		test: "TestTheCounterOfADirectoryIsTheServers",
	},
	{
		name: "a request that a smaller server refuses is repeated as it is", file: "zkqueue/batch.go",
		old:  `len(commits) > 1 && m.size > s.payload.current() {`,
		new:  `len(commits) > 1 && m.size > s.payload.current() && func() bool { mutated(); return false }() {`,
		test: "TestWhatIsMergedFitsASmallerServer",
	},
	{
		name: "requests of an old session are sent on the next", file: "zkqueue/session.go",
		old: `		s.deadline.Start(timeout, sent)
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
		new: `		s.deadline.Start(time.Hour, sent)
	}
	s.mu.Unlock()
	mutated()
`,
		test: "TestSessionFenceAlone",
	},

	// Commits that travel together.
	{
		name: "two commits of one path in one batch", file: "internal/group/queue.go",
		old: `		if _, dup := p[op.Path]; dup && op.Kind != coord.KindSequential {
			return false
		}`,
		new: `		if _, dup := p[op.Path]; dup && op.Kind != coord.KindSequential {
			mutated()
		}`,
		test: "TestNoPathIsTwiceInABatch",
	},
	{
		name: "one refused commit fails the others of its group", seeds: "900134", file: "internal/group/queue.go",
		old: `		outcomes[i].Err = ErrAgain
	}
	outcomes[at].Err = err`,
		new: `		mutated()
		outcomes[i].Err = err
	}`,
	},
	{
		name: "a group without an answer is sent again", seeds: "900001", file: "internal/group/queue.go",
		old: `func (o Outcome) Again() bool { return errors.Is(o.Err, ErrAgain) }`,
		new: `func (o Outcome) Again() bool {
	if errors.Is(o.Err, coord.ErrUnknown) {
		mutated()
		return true
	}
	return errors.Is(o.Err, ErrAgain)
}`,
	},
	{
		name: "a commit whose caller has gone is sent", file: "internal/group/runner.go",
		old: `		case c.waiter.hasLeft:
		case r.endErr`,
		new: `		case c.waiter.hasLeft && func() bool { mutated(); return false }():
		case r.endErr`,
		test: "TestABatchThatWasNotSentAfterAllIsTakenBack",
	},

	// Workers.
	{
		name: "a shutdown counts as a failure", seeds: "900011", file: "handling.go",
		old: `	case errors.Is(cause, ErrShutdown), r.taking.Err() != nil && errors.Is(err, context.Canceled):`,
		new: `	case errors.Is(cause, ErrShutdown) && func() bool { mutated(); return false }():`,
	},
	{
		name: "a snooze counts as a failure", seeds: "900013", file: "handling.go",
		old: `		r.release(a, EndingSnoozed, snoozeOption(later.d))
`,
		new: `		mutated()
		r.countFailure(a)
`,
	},
	{
		name: "a worker forgets finishes without an answer", file: "handling.go",
		old:  `a.Held.claimer.Spawn(func() { a.Held.finishInBackground(do) })`,
		new:  `mutated()`,
		test: "TestAnUnansweredFinishIsRepeatedInTheBackground",
	},

	{
		name: "slots that hang are not counted", file: "run.go",
		old: `	r.stuck++
	stuck := r.stuck
`,
		new: `	mutated()
	stuck := r.stuck
`,
		test: "TestRunEndsWhenAllItsSlotsHaveBeenStuckForAMinute",
	},
	{
		name: "an entry that always hangs its handler is tried for ever", file: "handling.go",
		old:  `a.stuck && a.Held.stuck+1 >= mostStuck {`,
		new:  `a.stuck && func() bool { mutated(); return false }() {`,
		test: "TestEntryThatGetsItsHandlerStuckIsDeadAndTheOthersGoOn",
	},
	{
		name: "a negative back-off is a short one", file: "worker.go",
		old: `		return mostBackoff
	}
	return min(rest, mostBackoff)`,
		new: `		mutated()
		return time.Minute
	}
	return min(rest, mostBackoff)`,
		test: "TestNegativeBackoffIsTheLongest",
	},
	{
		name: "a panic of a callback ends the process", file: "worker.go",
		old: `		if v := recover(); v != nil {
			rest = defaultBackoff(failures)`,
		new: `		mutated()
		if v := any(nil); v != nil {
			rest = defaultBackoff(failures)`,
		test: "TestPanicsOfCallbacksEndNothing",
	},

	// Logs.
	{
		name: "a label reads the end of the log after the entries", seeds: "900164", file: "retained/label.go",
		old: `			batch.pass(head.Next)
`,
		new: `			mutated()
			if head, err = b.log.headIn(ctx, s); err != nil {
				return nil, err
			}
			batch.pass(head.Next)
`,
	},
	{
		name: "a label is moved from any position", seeds: "900002", file: "retained/label.go",
		old: `	_, err := l.commitOnce(ctx, []coord.Op{coord.Set(b.at.path,`,
		new: `	mutated()
	if s, err := l.handle.Session(ctx); err == nil {
		if n, err := s.Get(ctx, b.at.path); err == nil {
			b.at.fence = n.Fence
		}
	}
	_, err := l.commitOnce(ctx, []coord.Op{coord.Set(b.at.path,`,
	},
	{
		name: "a label's move without an answer is forgotten", seeds: "901169", file: "retained/label.go",
		old: `		b.doubt = unknown.Token
`,
		new: `		mutated()
`,
	},
	{
		name: "an append without an answer is made again", seeds: "900069", file: "retained/log.go",
		old: `		done, err := l.commitOnce(ctx, l.appendOps(head, values))
`,
		new: `		mutated()
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
		name: "a log hands out an expired entry", file: "retained/label.go",
		old: `			if e.expired() {
				batch.Missed++`,
		new: `			mutated()
			if e.expired() && e.Number < 0 {
				batch.Missed++`,
		test: "TestExpiredEntriesAreNeverHandedOutAndCounted",
	},

	// Delays, times to live, unique keys, bounds and forwards.
	{
		name: "due entries are made ready in two commits", seeds: "900003,900009", file: "delayed.go",
		old: `changes, s.Commit) {
		errs[of[i]] = asUnavailable`,
		new: `changes, func(ctx context.Context, ops ...coord.Op) (all []coord.Result, err error) {
		mutated()
		for _, op := range ops {
			if all, err = append(all, coord.Result{}), err; err == nil {
				_, err = s.Commit(ctx, op)
			}
		}
		return all, err
	}) {
		errs[of[i]] = asUnavailable`,
	},
	{
		name: "a due entry that was refused with others waits for its owner's next look", file: "delayed.go",
		old: `			errs[i] = dp.makeReady(ctx, s, d.name, d.Delayed)
`,
		new: `			mutated()
			_ = d
`,
		test: "TestDueEntriesThatChangeAreMadeReadyAtOnce",
	},
	{
		name: "nobody moves the due entries of an owner that does not", file: "mover.go",
		old: `	part := m.chooseLate(late)
`,
		new: `	mutated()
	part := m.chooseLate(late)[:0]
`,
		test: "TestDueEntriesOfAnOwnerThatDoesNothingAreMoved",
	},
	{
		name: "movers begin with what others own", file: "mover.go",
		old:  `		if len(members) == 0 || member.Owner(members, d.name) == m.holder {`,
		new:  `		if mutated(); len(members) == 0 || member.Owner(members, d.name) != "" {`,
		test: "TestDueEntriesAreSharedByTheirTakers",
	},
	{
		name: "a delayed entry is made ready before it is due", seeds: "900003", file: "internal/layout/index.go",
		old: `	d := Delayed{Due: time.UnixMilli(ms)}
`,
		new: `	mutated()
	d := Delayed{Due: time.UnixMilli(ms - 2000)}
`,
	},
	{
		name: "a delay ends at a whole second", seeds: "900003", file: "delayed.go",
		old: `	due := time.Now().Round(0).Add(d + time.Millisecond - 1).Truncate(time.Millisecond)`,
		new: `	mutated()
	due := time.Now().Round(0).Add(d).Truncate(time.Second)`,
	},
	{
		name: "a delayed release leaves the entry ready", seeds: "900009", file: "finish.go",
		old: `	f.lock = h.lock.RestOp(due)`,
		new: `	mutated()`,
	},
	{
		name: "ErrEmpty is returned before due entries were looked for", file: "locking.go",
		old: `		moved, problem := q.mover.moveAll(ctx)`,
		new: `		if mutated(); err != nil {
			return err
		}
		moved, problem := q.mover.moveAll(ctx)`,
		test: "TestADelayedEntryOutlivesItsProcess",
	},
	{
		name: "ErrEmpty is returned while the handle's mover makes an entry ready", file: "locking.go",
		old:  `case waited, q.mover.begun.Load() == ended:`,
		new:  `case waited, q.mover.begun.Load() >= ended && func() bool { mutated(); return true }():`,
		test: "TestATryTakeFindsTheEntryThatTheMoverMakesReady",
	},
	{
		name: "an expired entry is handed out", seeds: "900048", file: "claim.go",
		old: `	if why != forRemoval && expired(h.headers.Expires()) {`,
		new: `	if why != forRemoval && expired(h.headers.Expires()) && func() bool { mutated(); return false }() {`,
	},
	{
		name: "a key outlives its entry", seeds: "900003", file: "held.go",
		old: `		a.key, a.keyFence = key.Path, key.Fence`,
		new: `		mutated()
		_ = key`,
	},
	{
		name: "a key outlives its expired delayed put", seeds: "900977", file: "delayed.go",
		old: `		ops = append(ops, coord.Delete(key.Path, key.Fence))
	default:`,
		new: `		mutated()
	default:`,
	},
	{
		name: "a key is created before the put", seeds: "900003", file: "put.go",
		old: `	if b.key != "" {
		ops = append(ops, coord.Create(b.key, b.o.unique))
	}
	return ops, err`,
		new: `	if b.key != "" && err == nil {
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
		name: "a bound is checked outside the commit", seeds: "900009", file: "bounds.go",
		old: `	return []coord.Op{guard}
}`,
		new: `	mutated()
	return nil
}`,
	},
	{
		name: "progress counts as a lost race", file: "take.go",
		old: `				backoff.Reset()
				ahead = head.MaxReadAhead
				return retry.Now, nil`,
		new: `				mutated()
				return retry.Later, nil`,
		test: "TestATakeRemovesSpentEntriesWithoutBackingOff",
	},
	{
		name: "spent entries are removed one by one", file: "take.go",
		old:  `		if spent[node.Path] && 2*len(chosen.Names) <`,
		new:  `		if mutated(); len(chosen.Names) == 0 && spent[node.Path] && 2*len(chosen.Names) <`,
		test: "TestATakeRemovesSpentEntriesWithoutBackingOff",
	},
	{
		name: "an exchange takes its own progress for a lost race", file: "take.go",
		old: `			progress, err = t.clearing.clear(ctx, chosen)`,
		new: `			mutated()
			_, err = t.clearing.clear(ctx, chosen)`,
		test: "TestATakeRemovesSpentEntriesWithoutBackingOff",
	},
	{
		name: "ErrEmpty is returned after a page of expired entries", file: "locking.go",
		old: `		case moved:
		case waited,`,
		new: `		case moved && !waited:
			mutated()
			waited = true
		case waited,`,
		test: "TestATakeFindsTheDuePutBehindExpiredOnes",
	},
	{
		name: "a lost answer to a move fails the take", file: "mover.go",
		old: `		if !errors.Is(err, ErrUnknown) {
			return retry.Stop, err
		}
		unknown = true`,
		new: `		if mutated(); true {
			return retry.Stop, err
		}
		unknown = true`,
		test: "TestALostAnswerToAMoveDoesNotFailTheTake",
	},
	{
		name: "a handle claims again what it holds", file: "exchange.go",
		old:  `return h.name == name }) {`,
		new:  `return func() bool { mutated(); return false }() && h.name == name }) {`,
		test: "TestAHandleDoesNotClaimAgainWhatItHolds",
	},
	{
		name: "a claim is made before another finish is known", file: "exchange.go",
		old: `		if !x.noClaims && len(x.separate) > 0 {
			x.dropClaims()`,
		new: `		if !x.noClaims && len(x.separate) > 0 && func() bool { mutated(); return false }() {
			x.dropClaims()`,
		test: "TestNothingIsClaimedWhileAnotherFinishIsInDoubt",
	},
	{
		name: "WaitEmpty has no timer for the first time to live", file: "expiry.go",
		old: `	if err == nil && !c.Expires && lt.Taken != "" {`,
		new: `	mutated()
	if err == nil && !c.Expires && lt.Taken == "" {`,
		test: "TestWaitEmptyNoticesTheFirstTimeToLive",
	},
	{
		name: "the key of an expired entry is in use", file: "put.go",
		old: `	if err == nil && e.expired() {
		gone = true`,
		new: `	mutated()
	if err == nil && e.expired() && e.Name == "" {
		gone = true`,
		test: "TestAnExpiredEntryHoldsNoKey",
	},
	{
		name: "a wait for room ignores expiry", file: "bounds.go",
		old:  `		at = earlier(at, e.expires)`,
		new:  `		mutated()`,
		test: "TestAPutThatWaitsGetsTheRoomOfWhatExpires",
	},
	{
		name: "each put makes a lane", file: "internal/lane/set.go",
		old: `	return &Set{config: c, series: c.Series, sem: make(chan struct{}, mostLanes)}`,
		new: `	mutated()
	return &Set{config: c, series: c.Series, sem: make(chan struct{}, 1<<20)}`,
		test: "TestManyPutsAtOnceShareTheirLanes",
	},
	{
		name: "a polling handle forgets no entry", file: "internal/head/suppressed.go",
		old: `			if now.Sub(x.since) > maxAge {`,
		new: `			mutated()
			if now.Sub(x.since) > 1000*time.Hour {`,
		test: "TestAHandleThatPollsForgetsWhatItTook",
	},
	{
		name: "an embedded store waits for its clock before it elects itself", file: "etcdqueue/embedded/server.go",
		old: `	self := uint64(s.Server.MemberID())`,
		new: `	if mutated(); ctx != nil {
		return
	}
	self := uint64(s.Server.MemberID())`,
		test: "TestAStoreElectsItselfBeforeItsClockTicks",
	},
	{
		name: "puts that share a commit exceed the room together", file: "bounds.go",
		old: `		if sc.first[i] = -1; r.full(entries+n) == nil {`,
		new: `		if sc.first[i] = -1; r.full(n) == nil {
			mutated()`,
		test: "TestPutsTogetherFillTheRoomAndNoMore",
	},
	{
		name: "a shared commit counts the entries of its last put only", file: "bounds.go",
		old: `			entries += n`,
		new: `			mutated()
			entries = n`,
		test: "TestPutsOfAHandleShareTheCountOfAnExactBound",
	},
	{
		name: "a shared commit does not write the count", file: "bounds.go",
		old: `	if sc.count = len(sc.ops); sc.count > 0 {`,
		new: `	if sc.count = len(sc.ops); sc.count > len(puts[0].Ops) {
		mutated()
	} else if sc.count > 0 {`,
		test: "TestSharedPutsOfSeveralProcessesKeepAnExactBound",
	},
	{
		name: "the count is written once for each put", file: "bounds.go",
		old:  `var sharedLimits = group.Limits{Commits: 64,`,
		new:  `var sharedLimits = group.Limits{Commits: func() int { mutated(); return 1 }(),`,
		test: "TestPutsOfAHandleShareTheCountOfAnExactBound",
	},
	{
		name: "a put gets the results of the first put of its commit", file: "bounds.go",
		old: `			sc.outcomes[i] = group.Outcome{Results: results[first:end:end]}`,
		new: `			mutated()
			sc.outcomes[i] = group.Outcome{Results: results[:end-first]}`,
		test: "TestPutsOfAHandleShareTheCountOfAnExactBound",
	},
	{
		name: "a refusal fails all puts of the commit", file: "bounds.go",
		old:  `		case refusal != nil && refusal.Index >= first && refusal.Index < end:`,
		new:  `		case func() bool { mutated(); return refusal != nil }():`,
		test: "TestARefusedPutLeavesTheOthersOfItsCommit",
	},
	{
		name: "a put without an answer is refused for want of room, and applied later", file: "internal/lane/commit.go",
		old: `	return isDeclined(err) || retry.RefusedOp(err) > 0 && errors.Is(err, coord.ErrExist)`,
		new: `	mutated()
	return retry.RefusedOp(err) > 0 && errors.Is(err, coord.ErrExist)`,
		test: "TestAPutInDoubtIsDecidedWhenTheQueueIsFull",
	},
	{
		name: "a put that was applied is refused for want of room", file: "internal/lane/commit.go",
		old: `			if retry.IsRefused(err) { // an attempt`,
		new: `			if mutated(); retry.IsRefused(err) {
				refusal = inTheWay
				return retry.Stop, inTheWay
			}
			if retry.IsRefused(err) { // an attempt`,
		test: "TestAPutInDoubtIsDecidedWhenTheQueueIsFull",
	},
	{
		name: "PutSome puts more than there is room for", file: "bounds.go",
		old: `		n = min(n, max(r.max-(r.have-r.removed), 1))
	}
	if err := r.full(n); err != nil {`,
		new: `		mutated()
		n = min(n, max(r.max-(r.have-r.removed)+1, 1))
	}
	if err := r.full(n); err != nil && !want.partial {`,
		test: "TestPutSomePutsAStreamInOrder",
	},
	{
		name: "a put of more than the bound waits", file: "bounds.go",
		old:  `	case n > r.max:`,
		new:  `	case func() bool { mutated(); return false }():`,
		test: "TestAPutOfMoreThanTheBoundIsRefusedAtOnce",
	},
	{
		name: "a bound is compared with a count that was read after it", file: "bounds.go",
		old:  `if c, err = pt.settings.refreshConfig(ctx, s); err != nil || c.MaxEntries == 0 {`,
		new:  `if mutated(); c.MaxEntries == 0 {`,
		test: "TestALowerBoundHoldsAtOnce",
	},
	{
		name: "a bound does not count delayed entries", seeds: "900009", file: "bounds.go",
		old: `			return entries + later, err`,
		new: `			mutated()
			return entries, err`,
	},
	{
		name: "a forward is two commits", seeds: "900003", file: "pipeline.go",
		old: `			return h.past.handOverOps(ops), err`,
		new: `			mutated()
			if err == nil {
				_, err = h.lock.Session().Commit(ctx, ops...)
			}
			return h.past.removeOps(), err`,
	},
	{
		name: "a forward leaves the entry", seeds: "900004", file: "pipeline.go",
		old: `		act: "forward", entry: coord.Delete(h.entry, h.at()), wasApplied: h.wasRemoved,`,
		new: `		act: "forward", entry: func() coord.Op { mutated(); return coord.Check(h.entry, h.at()) }(), wasApplied: h.wasRemoved,`,
	},
	{
		name: "takes that start together each read the configuration", file: "internal/handle/shared.go",
		old: `		underWay := c.done
`,
		new: `		underWay := c.done
		if underWay != nil {
			c.Mu.Unlock()
			mutated()
			return call()
		}
`,
		test: "TestTakersThatStartTogetherAskOnce",
	},
	{
		name: "a call that fails also fails those that wait for it", file: "internal/handle/shared.go",
		old: `			close(c.done)
			c.done = nil
`,
		new: `			if mutated(); err == nil {
				close(c.done)
				c.done = nil
			}
`,
		test: "TestConcurrentCallersShareOneCall",
	},
	{
		name: "entries count as claimed before they are chosen", file: "internal/head/choose.go",
		old: `	if !h.readAhead.hasAll(order[:min(n, len(order))]) { // more`,
		new: `	mutated()
	if len(order) > 0 {
		h.fairness.choose(order[0], first)
	}
	if !h.readAhead.hasAll(order[:min(n, len(order))]) { // more`,
		test: "TestEntriesOfAProcessThatStandsStillAreTakenWithinTheBound",
	},

	// Signals and mirrors.
	{
		name: "a listing does not wait for the process's own commits", file: "etcdqueue/watch.go",
		old:  `				w.cache.noteCommit(rev)`,
		new:  `				mutated()`,
		test: "TestAProcessSeesItsOwnCommitsAtOnce",
	},
	{
		name: "an own commit is signalled only by its event", file: "etcdqueue/watch.go",
		old:  `				if direct && !op.SignalLater && rev > w.signalledAt`,
		new:  `				if mutated(); direct && rev < 0`,
		test: "TestAProcessSeesItsOwnCommitsAtOnce",
	},
	{
		name: "a listing waits for an event for ever", file: "etcdqueue/list.go",
		old:  `				late = time.After(s.timeout / 2)`,
		new:  `				mutated()`,
		test: "TestListingsDoNotWaitForAnEventForEver",
	},
	{
		name: "a dropped mirror comes back", file: "etcdqueue/cache.go",
		old: `	if c.generation != generation {
		return
	}
	c.names`,
		new: `	if mutated(); false {
		return
	}
	c.names`,
		test: "TestADiscardedCacheDoesNotComeBack",
	},
	{
		name: "an entry whose lock was broken is hidden from its last holder", file: "internal/head/suppressed.go",
		old:  `		case x.why == WasClaimed && x.number <= before:`,
		new:  `		case x.why == WasClaimed && x.number <= before && func() bool { mutated(); return false }():`,
		test: "TestAnEntryWhoseLockWasBrokenIsTakenAtOnce",
	},
	// Listings for operators.
	{
		name: "kazoo's drained queue has no layout", file: "name.go",
		old: `	return LayoutPlain, nil
}
`,
		new: `	mutated()
	return "", nil
}
`,
		test: "TestTheLayoutOfAQueueIsFound",
	},
	{
		name: "delayed puts are not found by the end of their names", file: "base.go",
		old:  `b.delayed.isDelayedPut(name) || dead && dir == layout.DeadDir {`,
		new:  `func() bool { mutated(); return false }() || dead && dir == layout.DeadDir {`,
		test: "TestNamesAreFoundByTheirEnds",
	},
	{
		name: "the end of two names finds the first", file: "cmd/zkq/names.go",
		old: `		switch matches := found[name]; len(matches) {
`,
		new: `		switch matches := found[name]; min(len(matches), func() int { mutated(); return 1 }()) {
`,
		test: "TestTheEndOfSeveralNamesIsRefused",
	},
	{
		name: "a full service ends a consumer", file: "cmd/zkq/consumer.go",
		old:  `	case zkq.EndingUnknown:`,
		new:  "	case zkq.EndingUnknown:\n		if mutated(); true {\n			return outcomeUnknown\n		}",
		test: "TestFullServiceDoesNotOutlastTheGrace",
	},
	{
		name: "a full service outlasts the grace", file: "run.go",
		old: `			r.endFinish()
			<-idle
`,
		new: `			mutated()
			<-idle
`,
		test: "TestFullServiceDoesNotOutlastTheGrace",
	},
	{
		name: "rows wider than the terminal", file: "cmd/zkq/table.go",
		old:  `		last[i] = min(last[i], max(left/(cut-n), leastWidth))`,
		new:  `		mutated(); _ = n`,
		test: "TestRowsAreCutToTheTerminal",
	},
	{
		name: "after a restore watches wait for revisions of before", file: "etcdqueue/watch.go",
		old:  `		case <-w.renew:`,
		new:  `		case <-func() chan struct{} { mutated(); return nil }():`,
		test: "TestWatchesBeginAnewWhenTheServiceIsRestored",
	},
	{
		name: "a restore is not noticed while no request is sent", file: "etcdqueue/health.go",
		old:  `	if c.revisions.current().isAheadOf(r.Header) {`,
		new:  `	if mutated(); false {`,
		test: "TestWatchesBeginAnewWhenTheServiceIsRestored",
	},
	{
		name: "a session outlives the state that it belonged to", file: "etcdqueue/revision.go",
		old: `	if s := c.latestSession(); s != nil {
		s.end(`,
		new: `	mutated()
	if s := c.latestSession(); s == nil {
		s.end(`,
		test: "TestWatchesBeginAnewWhenTheServiceIsRestored",
	},
	{
		name: "no other member watches when those on duty die", file: "internal/head/watching.go", test: "TestOthersWatchWhenThoseOnDutyDie",
		old: `	case d.mayTakeOver(h.Holder):
		isSubstitute = true`,
		new: `	case d.mayTakeOver(h.Holder) && func() bool { mutated(); d.takeoverAt = time.Time{}; return false }():
		isSubstitute = true`,
	},
	{
		name: "a sleeper does not watch who is on duty", file: "internal/head/watching.go", test: "TestAMemberWithoutAFreePlaceIsOffDuty",
		old: `		if err := h.subscribe(ctx, h.session, scope{members: true, duties: true}); err != nil {
			return false, err
		}`,
		new: `		mutated()
		if err := h.subscribe(ctx, h.session, scope{members: true}); err != nil {
			return false, err
		}
		h.watched.duties = true`,
	},
	{
		name: "a member without a free place keeps its duty", file: "internal/head/watching.go", test: "TestAMemberWithoutAFreePlaceIsOffDuty",
		old: `	d.mark.remove(ctx)
	d.endCall(ctx)`,
		new: `	mutated()
	d.endCall(ctx)`,
	},
	{
		name: "a member without a free place keeps its watch", file: "internal/head/watching.go", test: "TestAMemberWithoutAFreePlaceIsOffDuty",
		old: `	if idle >= unwatchAfter && d.isLarge {
		h.endWatch()
	}`,
		new: `	if idle >= unwatchAfter && d.isLarge {
		mutated()
	}`,
	},
	{
		name: "sleepers do not come when they are called", file: "internal/head/watching.go", test: "TestAllJoinWhenThereIsWorkForAll",
		old: `	case !wait, d.isCalled, !d.isLarge:`,
		new: `	case d.isCalled && func() bool { mutated(); return false }(), !wait, !d.isLarge:`,
	},
	{
		name: "a sleeper wakes for the time of an entry", file: "internal/head/head.go", test: "TestASleeperLooksAgainForDutiesOnly",
		old: `	if h.duty.isAsleep { // it lists nothing`,
		new: `	if mutated(); h.duty.isAsleep && !h.duty.lookAt.IsZero() { // it lists nothing`,
	},
	{
		name: "every member watches an idle queue", file: "internal/head/watching.go", test: "TestOfManyIdleMembersAFewHearOfAnEntry",
		old: `		d.isAsleep = true
		return true, nil`,
		new: `		mutated()
		return false, h.subscribe(ctx, h.session, scope{queue: true, members: true, duties: true})`,
	},
	{
		name: "a closed handle stays on duty", file: "internal/head/watching.go", test: "TestAClosedMemberIsOffDuty",
		old: `		if e.remove(ctx); !e.mayExist() {`,
		new: `		if mutated(); true {`,
	},
}
