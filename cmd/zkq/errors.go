package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"syscall"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// The exit codes; docs/cli.md says what they promise.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNothing     = 3
	exitLockLost    = 4
	exitUnreachable = 5
	exitSome        = 6
	exitFull        = 7
	exitUnknown     = 8
	exitExists      = 9
)

// failure is an error with its exit code.
type failure struct {
	code     int
	what     string // verb, queue and coordinator, once they are known
	err      error
	hint     string // what the user can do; "" for no hint
	usage    string // the usage line; printed with exitUsage
	settled  bool   // the code stays even if a signal ended the verb
	reported bool   // it has been printed
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// usageError returns a failure with exitUsage.
func usageError(hint, format string, args ...any) *failure {
	return &failure{code: exitUsage, err: fmt.Errorf(format, args...), hint: hint}
}

// nothingError returns a failure with exitNothing: there is no such entry.
func nothingError(format string, args ...any) *failure {
	return &failure{code: exitNothing, err: fmt.Errorf(format, args...)}
}

// classify returns the failure for an error of the library, with its exit code and hint.
// If several cases apply, the first one wins: a case that says more about the state of
// the queue stands before the others.
func classify(err error) *failure {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	f := &failure{code: exitFailed, err: err}
	var unknown *zkq.UnknownError
	switch {
	case errors.As(err, &unknown):
		f.code, f.hint = exitUnknown, fmt.Sprintf("no answer came: zkq resolve %s tells whether it was done, and makes sure that otherwise it never is", unknown.Token)
	case is(coord.ErrUnknown):
		f.code, f.hint = exitUnknown, "no answer came: the change may have been made, or may still be; look with zkq ls before you repeat it"
	case is(zkq.ErrFull):
		f.code, f.hint = exitFull, "put --wait D waits for room"
	case is(zkq.ErrExists):
		f.code = exitExists
	case is(zkq.ErrLockLost):
		f.code = exitLockLost
	case is(zkq.ErrEmpty, zkq.ErrNoEntry, zkq.ErrNotHeld):
		f.code = exitNothing
	case is(zkq.ErrHeld):
		f.hint = "a worker is busy with it; --force removes it anyway"
	case is(zkq.ErrLayout):
		f.code, f.hint = exitUsage, "name the queue's own layout with --layout, or choose another queue"
	case is(zkq.ErrTooLarge, zkq.ErrInvalidName, zkq.ErrInvalidPriority, zkq.ErrInvalid):
		f.code = exitUsage
	case is(coord.ErrBusy): // exitFailed: the service was reached, and refused
	case is(coord.ErrTLS):
		f.code, f.hint = exitUnreachable, "see ZKQ_CA_FILE, ZKQ_CERT_FILE and ZKQ_KEY_FILE, and whether the URL should begin with etcds: or zks:"
	case is(coord.ErrAuth):
		f.code, f.hint = exitUnreachable, "see ZKQ_USER and ZKQ_PASSWORD_FILE"
	case is(coord.ErrUnreachable):
		f.code, f.hint = exitUnreachable, "is it running, and is the address right? -c or ZKQ_COORDINATOR names it"
	case is(coord.ErrSessionLost, context.DeadlineExceeded):
		f.code = exitUnreachable
	case is(zkq.ErrTokenExpired):
		f.hint = "an outcome is kept for a day, and only until the same process puts again; look with zkq ls"
	case is(coord.ErrForbidden):
		f.hint = "the credentials do not allow it: see ZKQ_USER and ZKQ_PASSWORD_FILE"
	}
	var local interface{ Hint() string } // implemented by errors of the embedded store
	if f.code == exitUnreachable && errors.As(err, &local) {
		f.hint = local.Hint()
	}
	return f
}

// readerGone reports whether err is that of a broken pipe on a stream of this process.
// A broken connection to a server does not count.
func readerGone(err error) bool {
	var o *outputError
	return errors.As(err, &o) && errors.Is(o, syscall.EPIPE)
}

// failureOf returns the failure that err is or wraps, or classifies it.
func failureOf(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	return classify(err)
}

// partialError adds to an error the changes that were made before it. It replaces exit codes
// that promise that nothing was changed by exitFailed.
func partialError(err error, done string) *failure {
	g := *failureOf(err)
	if g.code == exitUnreachable || g.code == exitUsage {
		g.code = exitFailed
	}
	g.err = fmt.Errorf("%w (%s)", g.err, done)
	return &g
}

// report prints an error, unless it has been printed, and returns its exit code.
func (p *program) report(err error) int {
	if err == nil {
		return exitDone
	}
	f := failureOf(err)
	if !f.reported {
		p.printFailure(f)
	}
	return f.code
}

// printFailure prints a failure on stderr: a line each for the error, the hint and the usage, or
// one JSON object. It removes passwords first.
func (p *program) printFailure(f *failure) {
	text := errorText(f.err)
	if f.what != "" {
		text = f.what + ": " + text
	}
	text, hint := hideSecrets(text), hideSecrets(f.hint)
	if p.out.json {
		line, err := marshal(struct {
			Error string `json:"error"`
			Code  int    `json:"code"`
			Hint  string `json:"hint"`
		}{text, f.code, hint})
		if err == nil {
			p.messages.Write(line)
		}
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "zkq: %s\n", printable(text))
	if hint != "" {
		fmt.Fprintf(&b, "zkq: hint: %s\n", printable(hint))
	}
	if f.code == exitUsage && f.usage != "" {
		fmt.Fprintf(&b, "usage: %s\n", f.usage)
	}
	io.WriteString(p.messages, b.String())
}

// packagePrefixes matches the package names before the text of a sentinel error. It matches only
// where an error of the chain begins, because a path may contain the same text.
var packagePrefixes = regexp.MustCompile(`(^|: |\n)(?:(?:zkq|coord|lock|priority): )+`)

// errorText returns the error's text without the package names of sentinels.
func errorText(err error) string {
	return packagePrefixes.ReplaceAllString(err.Error(), "$1")
}

// hint prints a hint that belongs to no error.
func (p *program) hint(text string) {
	fmt.Fprintf(p.messages, "zkq: hint: %s\n", printable(text))
}

// marshal returns v as one line of JSON. It escapes all characters that a terminal would
// act on, more than JSON requires, because the line may be shown there.
func marshal(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	line := b.String()
	if !strings.ContainsFunc(line, isUpperControl) {
		return []byte(line), nil
	}
	var c strings.Builder
	for _, r := range line {
		if isUpperControl(r) {
			fmt.Fprintf(&c, `\u%04x`, r)
		} else {
			c.WriteRune(r)
		}
	}
	return []byte(c.String()), nil
}

// isUpperControl reports whether r acts on a terminal and JSON does not escape it.
func isUpperControl(r rune) bool { return r >= 0x7f && actsOnTerminal(r) }
