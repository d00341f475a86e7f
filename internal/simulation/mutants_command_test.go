package simulation

func init() { mutants = append(mutants, commandMutants...) }

// commandMutants are those of the command. Tests find them: the simulation runs the
// library alone.
var commandMutants = []mutant{
	{
		name: "value glued to a short flag is refused", file: "cmd/zkq/glued.go",
		is:      `	return []string{word[:2], word[2:]}`,
		becomes: "	mutated()\n	return []string{word}",
		test:    "TestValueMayBeGluedToAShortFlag",
	},
	{
		name: "password behind the ? of a URL is printed", file: "cmd/zkq/hide.go",
		is:      `	return before + "?" + hidden`,
		becomes: "	mutated()\n	_ = before\n	return url",
		test:    "TestBadArgumentsAreRefusedBeforeAnythingIsContacted",
	},
	{
		name: "misspelt variable is passed over", file: "cmd/zkq/variables.go",
		is:      `		warnings = append(warnings, warning)`,
		becomes: `		mutated()`,
		test:    "TestUnknownVariableIsWarnedOf",
	},
	{
		name: "flags of a CMD without -- are taken for zkq's", file: "cmd/zkq/args.go",
		is:      `len(words) > 1 && (a.literal || !flagLike(words[1])) {`,
		becomes: `len(words) > 1 && func() bool { mutated(); return false }() {`,
		test:    "TestBadArgumentsAreRefusedBeforeAnythingIsContacted",
	},
	{
		name: "write into a full pipe outlasts the signals", file: "cmd/zkq/stream.go",
		is:      `	case <-s.hurried:`,
		becomes: `	case <-func() chan struct{} { mutated(); return nil }():`,
		test:    "TestHurriedWriteIsGivenUp",
	},
	{
		name: "CMD that dies of zkq's broken pipe has failed", file: "cmd/zkq/runcommand.go",
		is:      `	return hungUp(c.out.file) ||`,
		becomes: `	return func() bool { mutated(); return false }() ||`,
		test:    "TestBrokenPipeOfCommandIsNoFailure",
	},
	{
		name: "list whose reader went away is a failure", file: "cmd/zkq/program.go",
		is:      `	if !p.working && readerGone(err) {`,
		becomes: `	if mutated(); false {`,
		test:    "TestLookingCommandsEndSilentlyWithoutAReader",
	},
	{
		name: "broken connection taken for a reader that went away", file: "cmd/zkq/errors.go",
		is:      `	return errors.As(err, &o) && errors.Is(o, syscall.EPIPE)`,
		becomes: "	mutated()\n	_ = o\n	return errors.Is(err, syscall.EPIPE)",
		test:    "TestLookingCommandsEndSilentlyWithoutAReader",
	},
	{
		name: "stream into a bounded queue is all or none", file: "cmd/zkq/put.go",
		is:      `			put, n = w.queue.PutSome, w.fits(rest)`,
		becomes: "			mutated()\n			n = w.fits(rest)",
		test:    "TestStreamFillsABoundedQueueInOrder",
	},
	{
		name: "drain of a paused queue is a success", file: "run.go",
		is: `	case errors.Is(err, ErrPaused) && idle:
		r.fail(err)
`,
		becomes: `	case errors.Is(err, ErrPaused) && idle:
		mutated()
		r.takeNoMore()
`,
		test: "TestDrainOfAPausedQueueSaysWhatItLeaves",
	},
	{
		name: "take waits for the end of a pause without a word", file: "pause.go",
		is:      `		p.logWaiting(paused)`,
		becomes: `		mutated()`,
		test:    "TestAPauseIsLogged",
	},
	{
		name: "drain waits without a word for what fails", file: "cmd/zkq/consumer.go",
		is:      `			c.tellFailing(n)`,
		becomes: `			mutated()`,
		test:    "TestDrainSaysOnceWhatItWaitsFor",
	},
	{
		name: "failure that nobody is told", file: "handling.go",
		is:      `		log, about = r.log().Warn, "reason"`,
		becomes: "		mutated()\n		about = \"reason\"",
		test:    "TestEachFailureAndDeathIsTold",
	},
	{
		name: "wait passes over the dead", file: "cmd/zkq/wait.go",
		is:      `		if st.Dead > 0 && k.flags.Bool("fail-on-dead") {`,
		becomes: `		if mutated(); false {`,
		test:    "TestWaitFailsOnDeadWhereAsked",
	},
	{
		name: "orphans stay zombies", file: "cmd/zkq/reap_linux.go",
		is:      `		syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)`,
		becomes: "		mutated()\n		_ = ws\n		return false",
		test:    "TestOrphansAreReaped",
	},
}
