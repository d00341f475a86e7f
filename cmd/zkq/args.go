package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arguments holds the words that follow a verb's flags.
type arguments struct {
	words   []string // the arguments proper
	cmd     []string // the words after --, if the verb runs a command
	hasCmd  bool     // a -- started cmd, which may be empty
	literal bool     // a -- precedes the first argument, so that no argument is a flag
}

// splitArguments splits the words that urfave left after the flags into arguments
// and a command. raw holds all words after the verb, rest those that the parser left.
// The parser would silently read a flag after the first argument as a value.
// splitArguments therefore returns a usage error for it, unless a -- precedes it.
// It also refuses a flag that is given twice.
func (p *program) splitArguments(v verb, c *cli.Command, raw, rest []string) (arguments, error) {
	taken := raw[:len(raw)-len(rest)]
	head := p.head(raw)
	for _, given := range []string{repeatedFlag(p.app.Flags, head[:len(head)-1]), repeatedFlag(c.Flags, taken)} {
		if given != "" {
			return arguments{}, usageError("", "%s is given twice", withDashes(given))
		}
	}
	a := arguments{literal: endsInDashes(c.Flags, taken)}
	words := rest
	if !a.literal || v.cmd {
		if i := slices.Index(rest, "--"); i >= 0 {
			words = rest[:i]
			if v.cmd {
				a.hasCmd, a.cmd = true, rest[i+1:]
			}
		}
	}
	if v.cmd && !a.hasCmd && len(words) > 1 && (a.literal || !flagLike(words[1])) {
		line := slices.Concat(p.head(raw), taken, words[:1], []string{"--"}, words[1:])
		return a, usageError("zkq "+quoteLine(line), "the command to run stands after --")
	}
	if !a.literal {
		for _, w := range words {
			if flagLike(w) {
				return a, usageError(p.flagsFirst(c, raw, taken, words, rest[len(words):]),
					"%s stands after an argument: flags stand before arguments", quoteWord(w))
			}
		}
	}
	a.words = words
	if len(words) < len(rest) && !v.cmd {
		a.words = slices.Concat(words, rest[len(words)+1:])
	}
	return a, nil
}

// flagLike reports whether the word looks like a flag. A lone - and a -- do not.
func flagLike(word string) bool { return len(word) > 1 && word[0] == '-' && word != "--" }

// head returns the command line up to and including the verb.
func (p *program) head(raw []string) []string { return p.args[:len(p.args)-len(raw)] }

// flagsFirst returns a corrected command line to paste: flags of zkq before the verb,
// the verb's flags after it, then the arguments. A word that looks like a flag and is
// none becomes an argument after --.
func (p *program) flagsFirst(c *cli.Command, raw, taken, words, tail []string) string {
	head := slices.Clone(p.head(raw))
	name := head[len(head)-1]
	global, flags, args := head[:len(head)-1:len(head)-1], slices.Clone(taken), []string{}
	words = splitWords(words, c.Flags, p.app.Flags)
	for i := 0; i < len(words); i++ {
		w := words[i]
		if !flagLike(w) {
			if c.Name == "consume" && len(args) == 1 && len(tail) == 0 {
				tail = slices.Concat([]string{"--"}, words[i:]) // the rest is CMD, with CMD's own flags
				break
			}
			args = append(args, w)
			continue
		}
		key, _, inline := strings.Cut(strings.TrimLeft(w, "-"), "=")
		to, f := &flags, findFlag(c.Flags, key)
		if f == nil {
			to, f = &global, findFlag(p.app.Flags, key)
		}
		switch {
		case f == nil, !inline && takesValue(f) && i+1 == len(words):
			args = append(args, w)
		case !inline && takesValue(f):
			*to = append(*to, w, words[i+1])
			i++
		default:
			*to = append(*to, w)
		}
	}
	line := slices.Concat(global, []string{name}, flags)
	if slices.ContainsFunc(args, flagLike) {
		line = append(line, "--")
		if len(tail) > 0 && c.Name != "consume" {
			tail = tail[1:]
		}
	}
	return "zkq " + quoteLine(slices.Concat(line, args, tail))
}

// globalFirst returns the command line with the global flag called name moved before
// the verb.
func (p *program) globalFirst(c *cli.Context, name string) string {
	raw := rawArguments(c)
	head := slices.Clone(p.head(raw))
	verb := head[len(head)-1]
	head = head[:len(head)-1]
	var rest []string
	for i := 0; i < len(raw); i++ {
		key, _, inline := strings.Cut(strings.TrimLeft(raw[i], "-"), "=")
		if !flagLike(raw[i]) || key != name {
			rest = append(rest, raw[i])
			continue
		}
		head = append(head, raw[i])
		if !inline && takesValue(findFlag(p.app.Flags, name)) && i+1 < len(raw) {
			i++
			head = append(head, raw[i])
		}
		rest = append(rest, raw[i+1:]...)
		break
	}
	return "zkq " + quoteLine(slices.Concat(head, []string{verb}, rest))
}

// rawArguments returns all words that follow the verb.
func rawArguments(c *cli.Context) []string {
	return c.Lineage()[1].Args().Tail()
}

// repeatedFlag returns the first flag that is given more than once and may not be; "" if
// there is none. words contains only flags and their values.
func repeatedFlag(flags []cli.Flag, words []string) string {
	var seen []cli.Flag
	for i := 0; i < len(words) && words[i] != "--"; i++ {
		name, _, inline := strings.Cut(strings.TrimLeft(words[i], "-"), "=")
		f := findFlag(flags, name)
		if f == nil {
			continue
		}
		if _, repeatable := f.(*cli.StringSliceFlag); !repeatable && slices.Contains(seen, f) {
			return name
		}
		seen = append(seen, f)
		if !inline && takesValue(f) {
			i++
		}
	}
	return ""
}

// endsInDashes reports whether the words that the parser took end in the -- that
// ends flags. A -- that is the value of a flag does not count.
func endsInDashes(flags []cli.Flag, taken []string) bool {
	for i := 0; i < len(taken); i++ {
		if taken[i] == "--" {
			return true
		}
		name, _, inline := strings.Cut(strings.TrimLeft(taken[i], "-"), "=")
		if f := findFlag(flags, name); f != nil && !inline && takesValue(f) {
			i++
		}
	}
	return false
}

// findFlag returns the flag with this name or alias, or nil.
func findFlag(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// withDashes returns the flag's name with one dash, or two for a long name.
func withDashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// unknownFlagHint returns a hint for an unknown flag. It guesses that the user joined
// several short flags, or misspelt a name.
func unknownFlagHint(c *cli.Command, name string) string {
	if len(name) > 1 && strings.Trim(name, strings.Join(shortFlags(c.Flags), "")) == "" {
		return "write -" + strings.Join(strings.Split(name, ""), " -")
	}
	var names []string
	for _, f := range c.Flags {
		names = append(names, f.Names()[0])
	}
	if near := nearestWord(name, names); near != "" {
		return "did you mean --" + near + "? zkq help " + c.Name + " lists the flags"
	}
	return "zkq help " + c.Name + " lists the flags"
}

// shortFlags returns the one-letter names of the flags that take no value.
func shortFlags(flags []cli.Flag) (names []string) {
	for _, f := range flags {
		for _, n := range f.Names() {
			if len(n) == 1 && !takesValue(f) {
				names = append(names, n)
			}
		}
	}
	return names
}

// nearestWord returns the word that name most likely misspells, or "". It accepts up to
// two edits, fewer for a short name; exchanged letters count as one edit.
func nearestWord(name string, words []string) (near string) {
	best := min(2, len(name)/2) + 1
	for _, w := range words {
		d := editDistance(w, name)
		if sortedLetters(w) == sortedLetters(name) {
			d = 1 // the same letters in another order
		}
		if d < best {
			best, near = d, w
		}
	}
	return near
}

// sortedLetters returns the bytes of s in order, to compare words with exchanged letters.
func sortedLetters(s string) string {
	b := []byte(s)
	slices.Sort(b)
	return string(b)
}

// editDistance returns the number of letters to change, add or remove to turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
