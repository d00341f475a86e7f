package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"

	"github.com/zkq/zkq/coord"
)

// program is one run of the command: its arguments, environment and streams.
type program struct {
	args     []string // without the program's name
	env      environment
	stdin    io.Reader
	stderr   io.Writer // given to CMD; zkq itself writes to messages
	messages *stream   // stderr, for what zkq itself prints
	out      *output
	exit     func(code int) // ends the process; nil in tests

	working bool // a verb runs that fails when the reader of its output goes away
	open    func(context.Context, target, openOptions) (coord.Coordinator, error)
	app     *cli.App
	log     hclog.Logger
}

// environment holds the environment variables by name.
type environment map[string]string

func newEnvironment(environ []string) environment {
	env := make(environment, len(environ))
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			env[name] = value
		}
	}
	return env
}

// list returns the environment as NAME=VALUE, sorted, as a new process gets it.
func (e environment) list() []string {
	list := make([]string, 0, len(e))
	for _, name := range slices.Sorted(maps.Keys(e)) {
		list = append(list, name+"="+e[name])
	}
	return list
}

// run runs the command and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	p := newProgram(args, stdin, stdout, stderr, environ)
	p.exit = os.Exit
	return p.run(ctx)
}

// newProgram returns a program that has no exit function: tests use it too.
func newProgram(args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) *program {
	if _, ok := stderr.(*os.File); !ok {
		stderr = &lockedWriter{w: stderr} // the logger, the hints and every CMD write to it
	}
	return &program{
		args:     args,
		env:      newEnvironment(environ),
		stdin:    stdin,
		stderr:   stderr,
		messages: newStream(stderr),
		open:     openCoordinator,
		log:      hclog.NewNullLogger(),
		out:      newOutput(stdout),
	}
}

// lockedWriter is a writer that several goroutines may use. An *os.File needs none.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *lockedWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}

// run parses the command line, runs the verb, prints its error and returns the exit code.
func (p *program) run(ctx context.Context) int {
	p.newApp()
	p.args = p.splitGlued(p.args)
	p.out.json = wantsJSON(p.args, p.env)
	err := p.app.RunContext(ctx, append([]string{"zkq"}, p.args...))
	if !p.working && readerGone(err) {
		return exitDone
	}
	return p.report(err)
}

// verb is one of the command's verbs.
type verb struct {
	name    string
	args    string // the arguments, as help shows them
	usage   string // one line for the list of verbs
	more    string // further paragraphs of the verb's help
	example []string
	flags   []cli.Flag
	min     int  // fewest arguments
	max     int  // most arguments; -1 for any number
	queue   bool // the first argument names a queue
	cmd     bool // a command may follow after --
	locking bool // refused in the plain layout
	offline bool // needs no settings and no coordinator
	// anyLayout: without --layout, the verb uses the layout that the queue has.
	anyLayout bool
	readOnly  bool // changes nothing, so a lost reader of its output is no failure
	hidden    bool // not in help or completion, and its flags are not parsed
	// twoSignals: the verb handles the second signal itself.
	twoSignals bool
	run        func(context.Context, *call) error
}

// verbs lists all verbs in the order in which help shows them.
func verbs() []verb {
	return []verb{
		putVerb(), getVerb(), consumeVerb(),
		lsVerb(), peekVerb(), statVerb(), workersVerb(), waitVerb(),
		rmVerb(), purgeVerb(), releaseVerb(), requeueVerb(), resolveVerb(),
		createVerb(), pauseVerb(), resumeVerb(),
		serveVerb(), doctorVerb(), benchVerb(), completionVerb(), versionVerb(), helpVerb(), completeVerb(), benchWorkerVerb(),
	}
}

// newApp creates the urfave application. It switches off what would harm a queue: help
// as a subcommand of each verb (a queue may be called "help"), commas that split values
// of --file, calls of os.Exit, and usage on stdout.
func (p *program) newApp() {
	cli.HelpFlag = nil
	p.app = &cli.App{
		Name:                      "zkq",
		HelpName:                  "zkq",
		Usage:                     "a work queue on ZooKeeper, etcd, or no server at all",
		HideHelp:                  true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true,
		Flags:                     globalFlags(),
		Writer:                    io.Discard,
		ErrWriter:                 io.Discard,
		ExitErrHandler:            func(*cli.Context, error) {},
		OnUsageError:              p.flagError,
		Action:                    p.noVerb,
	}
	for _, v := range verbs() {
		p.app.Commands = append(p.app.Commands, p.command(v))
	}
}

// command returns the urfave command of a verb. Its action parses, checks and runs it.
func (p *program) command(v verb) *cli.Command {
	c := &cli.Command{
		Name:            v.name,
		ArgsUsage:       v.args,
		Usage:           v.usage,
		Description:     v.more,
		UsageText:       strings.Join(v.example, "\n"),
		Flags:           append(v.flags, helpFlag()),
		HideHelp:        true,
		HideHelpCommand: true,
		Hidden:          v.hidden,
		SkipFlagParsing: v.hidden,
		OnUsageError:    p.flagError,
		Action: func(c *cli.Context) error {
			switch root := c.Lineage()[1]; {
			case root.Bool("help"):
				return p.out.text(p.appHelp())
			case root.Bool("version"):
				return p.out.version()
			}
			call, err := p.newCall(c, v)
			if err != nil {
				return p.explain(c.Command, err)
			}
			if c.Bool("help") && !v.hidden {
				return p.out.text(p.verbHelp(c.Command))
			}
			if err := call.prepare(); err != nil {
				return p.explain(c.Command, err)
			}
			ctx, stop := call.catchSignals(c.Context)
			defer stop()
			p.working = !v.readOnly && !v.offline
			return p.explain(c.Command, call.toSignalError(ctx, v.run(ctx, call)))
		},
	}
	return c
}

// noVerb runs when the command line has no known verb.
func (p *program) noVerb(c *cli.Context) error {
	switch {
	case c.Bool("version"):
		return p.out.version()
	case c.Bool("help") || !c.Args().Present():
		return p.out.text(p.appHelp())
	}
	name := c.Args().First()
	hint := "zkq help lists the commands"
	if near := nearestWord(name, p.verbNames()); near != "" {
		hint = "did you mean " + near + "? " + hint
	}
	return p.explain(nil, usageError(hint, "unknown command %q", hideQuery(name)))
}

// flagError turns urfave's error for a command line that it cannot parse into a usage
// error with a hint. sub reports whether the flag follows a verb.
func (p *program) flagError(c *cli.Context, err error, sub bool) error {
	cmd := c.Command
	if !sub {
		cmd = nil
	}
	const undefined = "flag provided but not defined: -"
	name, unknown := strings.CutPrefix(err.Error(), undefined)
	if !unknown {
		return p.explain(cmd, usageError("", "%s", err))
	}
	shown := withDashes(name)
	switch {
	case cmd != nil && findFlag(p.app.Flags, name) != nil:
		return p.explain(cmd, usageError("flags of zkq itself stand before the command: "+p.globalFirst(c, name), "%s is not a flag of %s", shown, cmd.Name))
	case cmd != nil:
		return p.explain(cmd, usageError(unknownFlagHint(cmd, name), "unknown flag %s of %s", shown, cmd.Name))
	}
	hint := "zkq help lists the flags"
	for _, v := range p.app.Commands {
		if !v.Hidden && findFlag(v.Flags, name) != nil && name != "help" && name != "h" {
			hint = "it is a flag of " + v.Name + ", and stands after it: zkq " + v.Name + " " + shown + " …"
			break
		}
	}
	return p.explain(nil, usageError(hint, "unknown flag %s", shown))
}

// explain adds the usage line to a usage error: that of cmd, or of zkq if cmd is nil.
func (p *program) explain(cmd *cli.Command, err error) error {
	var f *failure
	if errors.As(err, &f) && f.code == exitUsage && f.usage == "" {
		f.usage = "zkq [global flags] COMMAND [flags] QUEUE [args]"
		if cmd != nil {
			f.usage = usageLine(cmd)
		}
	}
	return err
}
