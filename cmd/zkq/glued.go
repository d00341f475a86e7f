package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// splitGlued separates short flags from values that follow without a space: -j2 becomes
// -j 2. It does so in the flags of zkq and of the verb, and changes no arguments.
func (p *program) splitGlued(args []string) []string {
	flags, inVerb := p.app.Flags, false
	split := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		w := args[i]
		if !flagLike(w) {
			verb := p.app.Command(w)
			if inVerb || w == "--" || verb == nil || verb.Hidden {
				return append(split, args[i:]...)
			}
			split = append(split, w)
			flags, inVerb = verb.Flags, true
			continue
		}
		// A global flag after the verb is refused later. That error shows the corrected
		// line, so split the flag here too.
		split = append(split, splitWords([]string{w}, flags, p.app.Flags)...)
		name, _, inline := strings.Cut(strings.TrimLeft(w, "-"), "=")
		if f := findFlag(flags, name); f != nil && !inline && takesValue(f) && i+1 < len(args) {
			i++
			split = append(split, args[i])
		}
	}
	return split
}

// splitGluedWord splits a word into a short flag and its value. It returns any other word
// unchanged, as the only element.
func splitGluedWord(word string, flags []cli.Flag) []string {
	if len(word) < 3 || word[0] != '-' || word[1] == '-' {
		return []string{word}
	}
	name, _, _ := strings.Cut(word[1:], "=")
	short := findFlag(flags, word[1:2])
	if findFlag(flags, name) != nil || short == nil || !takesValue(short) {
		return []string{word}
	}
	return []string{word[:2], word[2:]}
}

// splitWords separates short flags from their values in all words. It looks a flag up
// among those of the verb first, then among those of zkq.
func splitWords(words []string, verb, global []cli.Flag) (split []string) {
	for _, w := range words {
		parts := splitGluedWord(w, verb)
		if len(parts) == 1 {
			parts = splitGluedWord(w, global)
		}
		split = append(split, parts...)
	}
	return split
}
