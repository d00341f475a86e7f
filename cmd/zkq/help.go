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

// appHelp fits one screen and ends with an example that works.
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

func usageLine(c *cli.Command) string {
	return strings.TrimRight("zkq "+c.Name+" [flags] "+c.ArgsUsage, " ")
}

func (p *program) verbHelp(c *cli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "zkq %s: %s\n\nusage: %s\n", c.Name, c.Usage, usageLine(c))
	if c.Description != "" {
		fmt.Fprintf(&b, "\n%s\n", c.Description)
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

// writeFlags writes one paragraph for each flag, broken to fit a terminal.
func writeFlags(b *strings.Builder, flags []cli.Flag) {
	const indent, width = 28, 100
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
		line := fmt.Sprintf("  %-*s", indent-3, left)
		for word := range strings.FieldsSeq(usage) {
			if len(line)+1+len(word) > width {
				fmt.Fprintln(b, line)
				line = strings.Repeat(" ", indent-1)
			}
			line += " " + word
		}
		fmt.Fprintln(b, line)
	}
}
