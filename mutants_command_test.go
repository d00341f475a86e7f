package zkq_test

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
}
