package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// splitGlued parts values from the short flags that they are glued to: -j2 becomes
// -j 2. It follows the parser through the flags of zkq and those of the verb, and
// leaves arguments alone.
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
		// A flag of zkq itself behind the verb is refused later, with the line as it
		// should be.
		split = append(split, splitWords([]string{w}, flags, p.app.Flags)...)
		name, _, inline := strings.Cut(strings.TrimLeft(w, "-"), "=")
		if f := lookup(flags, name); f != nil && !inline && takesValue(f) && i+1 < len(args) {
			i++
			split = append(split, args[i])
		}
	}
	return split
}

// glued returns a short flag and the value glued to it as two words, and any other
// word as it is.
func glued(word string, flags []cli.Flag) []string {
	if len(word) < 3 || word[0] != '-' || word[1] == '-' {
		return []string{word}
	}
	name, _, _ := strings.Cut(word[1:], "=")
	short := lookup(flags, word[1:2])
	if lookup(flags, name) != nil || short == nil || !takesValue(short) {
		return []string{word}
	}
	return []string{word[:2], word[2:]}
}

// splitWords parts glued values in words that stand behind the first argument, where
// the verb's flags are looked up before those of zkq.
func splitWords(words []string, verb, global []cli.Flag) (split []string) {
	for _, w := range words {
		parts := glued(w, verb)
		if len(parts) == 1 {
			parts = glued(w, global)
		}
		split = append(split, parts...)
	}
	return split
}
