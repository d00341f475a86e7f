package simulation

func init() { mutants = append(mutants, commandMutants...) }

// commandMutants are mutants of the command. Tests kill them: the simulation runs only the library.
var commandMutants = []mutant{
	{
		name: "value glued to a short flag is refused", file: "cmd/zkq/glued.go",
		old:  `	return []string{word[:2], word[2:]}`,
		new:  "	mutated()\n	return []string{word}",
		test: "TestValueMayBeGluedToAShortFlag",
	},
	{
		name: "password behind the ? of a URL is printed", file: "cmd/zkq/hide.go",
		old:  `	return before + "?" + hiddenText`,
		new:  "	mutated()\n	_ = before\n	return url",
		test: "TestBadArgumentsAreRefusedBeforeAnythingIsContacted",
	},
	{
		name: "a misspelt variable is ignored", file: "cmd/zkq/variables.go",
		old:  `		warnings = append(warnings, warning)`,
		new:  `		mutated()`,
		test: "TestUnknownVariableIsWarnedOf",
	},
	{
		name: "flags of a CMD without -- are read as zkq's", file: "cmd/zkq/args.go",
		old:  `len(words) > 1 && (a.literal || !flagLike(words[1])) {`,
		new:  `len(words) > 1 && func() bool { mutated(); return false }() {`,
		test: "TestBadArgumentsAreRefusedBeforeAnythingIsContacted",
	},
	{
		name: "a write into a full pipe outlasts the signals", file: "cmd/zkq/stream.go",
		old:  `	case <-s.hurried:`,
		new:  `	case <-func() chan struct{} { mutated(); return nil }():`,
		test: "TestHurriedWriteIsGivenUp",
	},
	{
		name: "a CMD that dies of zkq's broken pipe counts as failed", file: "cmd/zkq/runcommand.go",
		old:  `	return hungUp(c.out.file) ||`,
		new:  `	return func() bool { mutated(); return false }() ||`,
		test: "TestBrokenPipeOfCommandIsNoFailure",
	},
	{
		name: "a list whose reader has gone fails", file: "cmd/zkq/program.go",
		old:  `	if !p.working && readerGone(err) {`,
		new:  `	if mutated(); false {`,
		test: "TestLookingCommandsEndSilentlyWithoutAReader",
	},
	{
		name: "a broken connection is taken for a reader that has gone", file: "cmd/zkq/errors.go",
		old:  `	return errors.As(err, &o) && errors.Is(o, syscall.EPIPE)`,
		new:  "	mutated()\n	_ = o\n	return errors.Is(err, syscall.EPIPE)",
		test: "TestLookingCommandsEndSilentlyWithoutAReader",
	},
	{
		name: "a stream into a bounded queue is all or none", file: "cmd/zkq/put.go",
		old:  `			put, n = w.queue.PutSome, w.countFitting(rest)`,
		new:  "			mutated()\n			n = w.countFitting(rest)",
		test: "TestStreamFillsABoundedQueueInOrder",
	},
	{
		name: "draining a paused queue succeeds", file: "run.go",
		old: `	case errors.Is(err, ErrPaused) && idle:
		r.fail(err)
`,
		new: `	case errors.Is(err, ErrPaused) && idle:
		mutated()
		r.takeNoMore()
`,
		test: "TestDrainOfAPausedQueueSaysWhatItLeaves",
	},
	{
		name: "a take that waits for the end of a pause logs nothing", file: "admin.go",
		old:  `		p.logWaiting(paused)`,
		new:  `		mutated()`,
		test: "TestAPauseIsLogged",
	},
	{
		name: "a drain that waits for failing entries logs nothing", file: "cmd/zkq/consumer.go",
		old:  `			c.tellFailing(n)`,
		new:  `			mutated()`,
		test: "TestDrainSaysOnceWhatItWaitsFor",
	},
	{
		name: "an outage does not end a drain", file: "run.go",
		old:  `		if errors.Is(err, coord.ErrUnreachable) && r.taking.Err() == nil {`,
		new:  `		if mutated(); false {`,
		test: "TestALongOutageEndsADrain",
	},
	{
		name: "a lost session with etcd is missed without a warning", file: "etcdqueue/session.go",
		old:  `		warning.Waiting(c.connectError(ctx, true, nil))`,
		new:  `		mutated()`,
		test: "TestAnOutageOfEtcdIsToldOf",
	},
	{
		name: "a failure is not logged", file: "handling.go",
		old:  `		log, about = r.log().Warn, "reason"`,
		new:  "		mutated()\n		about = \"reason\"",
		test: "TestEachFailureAndDeathIsTold",
	},
	{
		name: "wait ignores dead entries", file: "cmd/zkq/wait.go",
		old:  `		if st.Dead > 0 && k.flags.Bool("fail-on-dead") {`,
		new:  `		if mutated(); false {`,
		test: "TestWaitFailsOnDeadWhereAsked",
	},
	{
		name: "orphaned processes stay zombies", file: "cmd/zkq/reap_linux.go",
		old:  `		syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)`,
		new:  "		mutated()\n		_ = ws\n		return false",
		test: "TestOrphansAreReaped",
	},
}
