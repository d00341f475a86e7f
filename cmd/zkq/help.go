package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

func helpVerb() verb {
	return verb{
		name:  "help",
		args:  "[COMMAND]",
		usage: "show help, of a command or of zkq",
		max:   1, offline: true,
		run: func(_ context.Context, k *call) error {
			if len(k.words) == 0 {
				return k.out.text(k.appHelp())
			}
			c := k.app.Command(k.words[0])
			if c == nil || c.Hidden {
				return usageError("zkq help lists the commands", "unknown command %q", k.words[0])
			}
			return k.out.text(k.verbHelp(c))
		},
	}
}

// appHelp returns the help of zkq. It must fit one screen, and its example must work.
func (p *program) appHelp() string {
	var b strings.Builder
	fmt.Fprintf(&b, "zkq is %s.\n\nusage: zkq [global flags] COMMAND [flags] QUEUE [args]\n\ncommands:\n", p.app.Usage)
	for _, c := range p.app.Commands {
		if !c.Hidden {
			fmt.Fprintf(&b, "  %-11s %s\n", c.Name, c.Usage)
		}
	}
	b.WriteString("\nglobal flags, each also ZKQ_ and its name in upper case in the environment:\n")
	writeFlags(&b, p.app.Flags)
	b.WriteString("\nexample:\n  zkq put jobs 'hello world' && zkq get jobs\n")
	return b.String()
}

// usageLine returns the one-line usage of a verb.
func usageLine(c *cli.Command) string {
	return strings.TrimRight("zkq "+c.Name+" [flags] "+c.ArgsUsage, " ")
}

// verbHelp returns the help of a verb.
func (p *program) verbHelp(c *cli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "zkq %s: %s\n\nusage: %s\n", c.Name, c.Usage, usageLine(c))
	if c.Description != "" {
		fmt.Fprintln(&b)
		wrap(&b, "", 0, c.Description)
	}
	b.WriteString("\nflags:\n")
	writeFlags(&b, c.Flags)
	if c.UsageText != "" {
		b.WriteString("\nexamples:\n")
		for line := range strings.SplitSeq(c.UsageText, "\n") {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	return b.String()
}

// helpWidth is the number of columns that help uses at most.
const helpWidth = 80

// flagIndent is the column in which the text of a flag begins.
const flagIndent = 27

// writeFlags writes one paragraph for each flag.
func writeFlags(b *strings.Builder, flags []cli.Flag) {
	for _, f := range flags {
		d := f.(cli.DocGenerationFlag)
		usage, left := d.GetUsage(), "    "
		names := f.Names()
		for _, n := range names {
			if len(n) == 1 {
				left = "-" + n + ", "
			}
		}
		left += "--" + names[0]
		if rest, ok := strings.CutPrefix(usage, "`"); ok {
			placeholder, text, _ := strings.Cut(rest, "` ")
			left, usage = left+" "+placeholder, text
		}
		wrap(b, "  "+left, flagIndent, usage)
	}
}

// wrap writes a paragraph that begins with head. It indents the text and breaks lines at
// helpWidth.
func wrap(b *strings.Builder, head string, indent int, text string) {
	line := head
	if len(line) > indent-1 && indent > 0 {
		fmt.Fprintln(b, line)
		line = ""
	}
	line += strings.Repeat(" ", max(indent-len(line), 0))
	empty := true
	for word := range strings.FieldsSeq(text) {
		if !empty && textWidth(line)+1+textWidth(word) > helpWidth {
			fmt.Fprintln(b, line)
			line, empty = strings.Repeat(" ", indent), true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	fmt.Fprintln(b, line)
}
