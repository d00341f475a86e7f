package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/urfave/cli/v2"
)

// layout names one of kazoo's two queues.
type layout string

const (
	layoutLocking layout = "locking"
	layoutPlain   layout = "plain"
)

// settings holds the global flags, read from the command line or the environment.
type settings struct {
	target         target
	layout         layout
	layoutGiven    bool // the user named the layout; it is not the default
	json           bool
	logLevel       hclog.Level
	logJSON        bool
	sessionTimeout time.Duration
	connectTimeout time.Duration
	progress       string // auto, always or never
	credentials    credentials
}

func globalFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("coordinator", "c", "URL", "local:DIR, etcd://HOST:PORT,…/PREFIX or zk://HOST:PORT,…/CHROOT; etcds:// and zks:// with TLS (default: a store in your data directory)"),
		stringFlag("layout", "", "LAYOUT", "locking or plain, kazoo's two queues (default: that of the queue, and locking for a new one)"),
		stringFlag("output", "o", "FORMAT", "text (default) or json, one object per line"),
		stringFlag("log-level", "", "LEVEL", "trace, debug, info, warn (default), error or off"),
		boolFlag("log-json", "", "log in JSON"),
		stringFlag("session-timeout", "", "D", "how long a dead process keeps its entries (10s)"),
		stringFlag("connect-timeout", "", "D", "how long to try to reach the coordinator (5s)"),
		stringFlag("progress", "", "WHEN", "auto (default: on a terminal), always or never"),
		boolFlag("version", "", "show the version"),
		helpFlag(),
	}
}

// readSettings reads each global flag, or if it is not given, its variable: ZKQ_ and the
// flag's name in upper case. An empty variable counts as unset.
func readSettings(c *cli.Context, env environment) (settings, error) {
	g := c.Lineage()[len(c.Lineage())-2] // the context of zkq; the last one is urfave's own
	r := settingsReader{flags: g, env: env}
	var s settings
	s.json = readSetting(&r, "output", "text", oneOf("text", "json")) == "json"
	given := readSetting(&r, "layout", "", oneOf(string(layoutLocking), string(layoutPlain)))
	s.layout, s.layoutGiven = cmp.Or(layout(given), layoutLocking), given != ""
	s.logLevel = hclog.LevelFromString(readSetting(&r, "log-level", "warn", oneOf("trace", "debug", "info", "warn", "error", "off")))
	s.logJSON = readSetting(&r, "log-json", false, parseBoolean)
	s.sessionTimeout = readSetting(&r, "session-timeout", 10*time.Second, parsePositiveDuration)
	s.connectTimeout = readSetting(&r, "connect-timeout", 5*time.Second, parsePositiveDuration)
	s.progress = readSetting(&r, "progress", "auto", oneOf("auto", "always", "never"))
	url, name := r.value("coordinator")
	if r.err != nil {
		return s, r.err
	}
	var err error
	if s.target, err = parseTarget(url, env); err != nil {
		return s, usageError("", "%s %w", name, err)
	}
	s.credentials, err = readCredentials(s.target, env)
	return s, err
}

// settingsReader reads settings one by one and keeps the first error. After an error it
// returns default values.
type settingsReader struct {
	flags *cli.Context
	env   environment
	err   error
}

// value returns a setting's text, "" if it is not given, and the name of the flag or
// variable that holds it.
func (r *settingsReader) value(flag string) (value, name string) {
	if r.flags.IsSet(flag) {
		return fmt.Sprint(r.flags.Value(flag)), "--" + flag
	}
	name = variableOf(flag)
	return r.env[name], name
}

// readSetting parses a setting with its flag's parser. It returns absent if the setting is not
// given, or after an error.
func readSetting[T any](r *settingsReader, flag string, absent T, parse func(string) (T, error)) T {
	value, name := r.value(flag)
	if r.err != nil || value == "" && !r.flags.IsSet(flag) {
		return absent
	}
	v, err := parse(value)
	if err != nil {
		r.err = usageError("", "%s %w", name, err)
		return absent
	}
	return v
}

// wantsJSON reports whether errors should be JSON. It looks at the words of the command
// line, because an error of the parser must have the right form too.
func wantsJSON(args []string, env environment) bool {
	format := env["ZKQ_OUTPUT"]
	for i, a := range args {
		if !flagLike(a) {
			if i == 0 || !flagLike(args[i-1]) || strings.Contains(args[i-1], "=") {
				break
			}
			continue
		}
		name, value, inline := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if name != "o" && name != "output" {
			continue
		}
		if !inline && i+1 < len(args) {
			value = args[i+1]
		}
		format = value
	}
	return format == "json"
}

// newLogger returns the log on w, with the level and form of the settings.
func newLogger(w io.Writer, s settings) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name:       "zkq",
		Level:      s.logLevel,
		Output:     w,
		JSONFormat: s.logJSON,
		TimeFn:     func() time.Time { return time.Now().UTC() },
	})
}
