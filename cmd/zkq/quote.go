package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// quoteWord quotes a word so that a shell reads it unchanged. It hides the query of a
// coordinator's URL, which may be a password.
func quoteWord(w string) string {
	w = hideQuery(w)
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:=,@%+", r)
	}
	switch {
	case w == "":
		return "''"
	case strings.IndexFunc(w, func(r rune) bool { return !plain(r) }) < 0:
		return w
	case printable(w) == w:
		return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for i := range len(w) {
		switch c := w[i]; {
		case c == '\'' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < 0x20 || c >= 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// quoteLine quotes the words of a command line. It hides possible passwords.
func quoteLine(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range hideCoordinator(words) {
		quoted[i] = quoteWord(w)
	}
	return strings.Join(quoted, " ")
}

// printable returns s with all characters escaped that a terminal would act on or that
// would break a line or a column.
func printable(s string) string { return escape(s, "") }

// escape replaces characters that act on a terminal, and bytes that are not UTF-8, by
// escapes like \x1b. It does not escape the characters in keep.
func escape(s, keep string) string {
	clean := func(r rune, size int) bool {
		if r == utf8.RuneError && size <= 1 {
			return false
		}
		return !actsOnTerminal(r) || strings.ContainsRune(keep, r)
	}
	i := 0
	for i < len(s) {
		r, size := utf8.DecodeRuneInString(s[i:])
		if !clean(r, size) {
			break
		}
		i += size
	}
	if i == len(s) {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:i])
	for i < len(s) {
		r, size := utf8.DecodeRuneInString(s[i:])
		if clean(r, size) {
			b.WriteString(s[i : i+size])
		} else {
			for _, c := range []byte(s[i : i+size]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		}
		i += size
	}
	return b.String()
}

// actsOnTerminal reports whether a terminal does more with a character than show it: a control
// character, the end of a line or paragraph, or a change of the text's direction.
func actsOnTerminal(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
}

// pluralize returns the number n with its noun: one for 1, otherwise many.
func pluralize(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
