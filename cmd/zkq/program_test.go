package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// shell runs zkq in this process, on a coordinator in memory.
type shell struct {
	t     *testing.T
	store *coordtest.Store
	env   []string
	opens int // how often the coordinator was contacted
	fail  error
}

func newShell(t *testing.T) *shell {
	return &shell{t: t, store: coordtest.NewStore(), env: []string{"HOME=/nonexistent", "PATH=" + os.Getenv("PATH")}}
}

type outcome struct {
	code           int
	stdout, stderr string
}

func (s *shell) run(stdin string, args ...string) outcome {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	p := newProgram(args, strings.NewReader(stdin), &stdout, &stderr, s.env)
	p.open = func(context.Context, target, openOptions) (coord.Coordinator, error) {
		s.opens++
		if s.fail != nil {
			return nil, s.fail
		}
		return s.store.Open(coordtest.Options{}), nil
	}
	code := p.run(context.Background())
	return outcome{code, stdout.String(), stderr.String()}
}

// expect runs zkq and demands its code and its standard output.
func (s *shell) expect(code int, stdout, stdin string, args ...string) outcome {
	s.t.Helper()
	got := s.run(stdin, args...)
	if got.code != code || got.stdout != stdout {
		s.t.Fatalf("zkq %s: exit %d, stdout %q, stderr %q; want exit %d, stdout %q", quoteLine(args), got.code, got.stdout, got.stderr, code, stdout)
	}
	return got
}

func TestBadArgumentsAreRefusedBeforeAnythingIsContacted(t *testing.T) {
	long := strings.Repeat("x", 256)
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, zkq.MaxValue+1), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		line   []string
		stderr string // a part of it
	}{
		// Queue names.
		{[]string{"put", "", "v"}, "is empty"},
		{[]string{"put", "/", "v"}, "is empty"},
		{[]string{"put", "jobs/", "v"}, "empty segment"},
		{[]string{"put", "//jobs", "v"}, "empty segment"},
		{[]string{"put", "a//b", "v"}, "empty segment"},
		{[]string{"put", "a/./b", "v"}, `"."`},
		{[]string{"put", "a/../b", "v"}, `".."`},
		{[]string{"put", "a\nb", "v"}, `a\nb`},
		{[]string{"put", "a\x1bb", "v"}, `a\x1bb`},
		{[]string{"put", "a\x00b", "v"}, `a\x00b`},
		{[]string{"put", "a\xffb", "v"}, "UTF-8"},
		{[]string{"put", long, "v"}, "255"},
		{[]string{"put", "entry-1", "v"}, "entry-"},
		{[]string{"put", "a/entries", "v"}, "reserved"},
		{[]string{"put", "taken", "v"}, "reserved"},
		{[]string{"put", "a/workers", "v"}, "reserved"},
		{[]string{"put", "a/delayed", "v"}, "reserved"},
		{[]string{"put", "dead", "v"}, "reserved"},
		{[]string{"put", "a/broken", "v"}, "reserved"},
		{[]string{"put", "unique", "v"}, "reserved"},
		{[]string{"put", "attempts", "v"}, "reserved"},
		{[]string{"put", "config", "v"}, "reserved"},
		{[]string{"put", "count", "v"}, "reserved"},
		{[]string{"put", "a/retained", "v"}, "reserved"},
		{[]string{"put", "zkq", "v"}, "reserved"},
		{[]string{"stat", "ok", "a//b"}, "empty segment"},

		// Priorities.
		{[]string{"put", "-p", "-1", "q", "v"}, `"-1": allowed are 0 to 999`},
		{[]string{"put", "-p", "1000", "q", "v"}, `"1000"`},
		{[]string{"put", "-p", "0x5", "q", "v"}, `"0x5"`},
		{[]string{"put", "-p", "010", "q", "v"}, `"010"`},
		{[]string{"put", "-p", "00", "q", "v"}, `"00"`},
		{[]string{"put", "-p", "0b1", "q", "v"}, `"0b1"`},
		{[]string{"put", "-p", "1_0", "q", "v"}, `"1_0"`},
		{[]string{"put", "-p", "+5", "q", "v"}, `"+5"`},
		{[]string{"put", "-p", " 5", "q", "v"}, `" 5"`},
		{[]string{"put", "-p", "1.5", "q", "v"}, `"1.5"`},
		{[]string{"put", "-p", "1e2", "q", "v"}, `"1e2"`},
		{[]string{"put", "-p", "٥", "q", "v"}, `allowed are 0 to 999`},
		{[]string{"put", "-p", "", "q", "v"}, `""`},
		{[]string{"put", "-p", "99999999999999999999", "q", "v"}, "allowed"},
		{[]string{"put", "-p"}, "needs an argument"},

		// Durations.
		{[]string{"get", "-w", "-1s", "q"}, `"-1s"`},
		{[]string{"get", "-w", "-0", "q"}, `"-0"`},
		{[]string{"get", "-w", "5", "q"}, `"5"`},
		{[]string{"get", "-w", "1 s", "q"}, `"1 s"`},
		{[]string{"get", "-w", "", "q"}, `""`},
		{[]string{"get", "-w", "1d", "q"}, `"1d"`},
		{[]string{"get", "-w", "for ever", "q"}, "forever"},
		{[]string{"get", "-w", "999999999h", "q"}, "allowed"},
		{[]string{"wait", "--timeout", "-1ns", "q"}, `"-1ns"`},
		{[]string{"wait", "--timeout", "forever", "q"}, `"forever"`},
		{[]string{"consume", "-w", "-1s", "q"}, `"-1s"`},
		{[]string{"consume", "--grace", "-1s", "q"}, `"-1s"`},
		{[]string{"--session-timeout", "0", "stat"}, "more than 0"},
		{[]string{"--connect-timeout", "0", "stat"}, "more than 0"},
		{[]string{"--connect-timeout", "-1s", "stat"}, `"-1s"`},

		// Counts.
		{[]string{"get", "-n", "0", "q"}, "1 and more"},
		{[]string{"get", "-n", "0x5", "q"}, `"0x5"`},
		{[]string{"get", "-n", "-1", "q"}, `"-1"`},
		{[]string{"consume", "-n", "010", "q"}, `"010"`},
		{[]string{"consume", "-j", "0", "q"}, "1 to 1000"},
		{[]string{"consume", "-j", "1001", "q"}, "1 to 1000"},
		{[]string{"consume", "--halt", "0", "q"}, `"0"`},
		{[]string{"consume", "--retries", "0", "q"}, `"0"`},
		{[]string{"consume", "--backoff", "-1s", "q"}, `"-1s"`},
		{[]string{"consume", "--backoff", "2562047h", "q"}, "at most 720h"},
		{[]string{"consume", "--forward", "a//b", "q"}, "empty segment"},
		{[]string{"consume", "--forward", "/q", "q", "--", "cat"}, "names the queue that is consumed"},
		{[]string{"consume", "--forward", "r", "--ungroup", "q", "--", "cat"}, "prints nothing"},
		{[]string{"consume", "--read-ahead", "0", "q"}, `"0"`},
		{[]string{"consume", "--max-deliveries", "0", "q"}, `"0"`},
		{[]string{"consume", "--read-ahead", "1001", "q"}, "1 to 1000"},
		{[]string{"consume", "--timeout", "0", "q", "--", "cat"}, "more than 0"},
		{[]string{"consume", "--timeout", "1s", "q"}, "needs a CMD"},
		{[]string{"consume", "--memory-limit", "1GB", "q"}, "needs a CMD"},
		{[]string{"consume", "--memory-limit", "0", "q", "--", "cat"}, `"0"`},
		{[]string{"consume", "--memory-limit", "1g", "q", "--", "cat"}, `"1g"`},
		{[]string{"consume", "--memory-limit", "01MB", "q", "--", "cat"}, `"01MB"`},
		{[]string{"consume", "--memory-limit", "-1MB", "q", "--", "cat"}, `"-1MB"`},
		{[]string{"consume", "--memory-limit", "1 MB", "q", "--", "cat"}, `"1 MB"`},
		{[]string{"consume", "--memory-limit", "9999999999GiB", "q", "--", "cat"}, "GiB"},
		{[]string{"ls", "-n", "x", "q"}, `"x"`},

		// Words.
		{[]string{"ls", "--state", "ready,", "q"}, `""`},
		{[]string{"ls", "--state", "gone", "q"}, "ready, held, delayed, dead"},
		{[]string{"purge", "--yes", "--state", "ready,dead", "q"}, `"ready,dead"`},
		{[]string{"--layout", "Plain", "stat"}, "locking, plain"},
		{[]string{"-o", "yaml", "stat"}, "text, json"},
		{[]string{"--log-level", "loud", "stat"}, "trace"},
		{[]string{"--progress", "maybe", "stat"}, "always"},
		{[]string{"completion", "tcsh"}, "bash"},

		// Coordinators.
		{[]string{"-c", "mem://x", "stat"}, `scheme "mem"`},
		{[]string{"-c", "nothing", "stat"}, "no scheme"},
		{[]string{"-c", "etcd:host", "stat"}, "//HOST:PORT"},
		{[]string{"-c", "etcd://", "stat"}, "host is missing"},
		{[]string{"-c", "etcd://h:1,", "stat"}, "host is missing"},
		{[]string{"-c", "etcd://h:0", "stat"}, "1 to 65535"},
		{[]string{"-c", "etcd://h:65536", "stat"}, "1 to 65535"},
		{[]string{"-c", "etcd://h:x", "stat"}, "1 to 65535"},
		{[]string{"-c", "etcd://u:secret@h:1", "stat"}, "user information"},
		{[]string{"-c", "zk://h:1/a//b", "stat"}, "segment"},
		{[]string{"-c", "zk://h:1/a?secret", "stat"}, `"zk://h:1/a?***": no ? is allowed`},
		{[]string{"-c", "etcds://h?secret=1", "stat"}, "etcds://h?***"},
		{[]string{"-c", "h?secret", "stat"}, `"h?***": has no scheme`},
		{[]string{"-c", "h?secret:1", "stat"}, `scheme "h?***"`},
		{[]string{"stat", "q", "-c", "http://h?secret it's"}, "hint: zkq -c 'http://h?***' stat q\n"},
		{[]string{"stat", "q", "--coordinator=zk://h?secret it's"}, "zkq '--coordinator=zk://h?***' stat q\n"},
		{[]string{"zk://h/p?secret it's", "stat"}, "zk://h/p?***"},
		{[]string{"get", "zk://h/p?secret=2"}, "zk://h/p?***"},
		{[]string{"get", "q", "zk://h/p?secret=2"}, "zk://h/p?***"},
		{[]string{"--layout", "zk://h/p?secret=2", "stat"}, "zk://h/p?***"},
		{[]string{"-c", "local:~/x", "stat"}, "$HOME"},

		// Values.
		{[]string{"put", "q", strings.Repeat("v", zkq.MaxValue+1)}, "1044481 bytes, the limit is 1044480"},
		{[]string{"put", "--file", big, "q"}, "1044481 bytes, the limit is 1044480"},
		{[]string{"put", "-l", "q", "v"}, "one source"},
		{[]string{"put", "-l", "-0", "q"}, "one source"},
		{[]string{"put", "-l", "--file", big, "q"}, "one source"},
		{[]string{"put", "--file", big, "q", "v"}, "one source"},

		// Numbers of arguments.
		{[]string{"put"}, "QUEUE is missing"},
		{[]string{"get"}, "QUEUE is missing"},
		{[]string{"get", "a", "b"}, "one too many"},
		{[]string{"ls", "a", "b"}, "one too many"},
		{[]string{"wait", "a", "b"}, "one too many"},
		{[]string{"rm", "q"}, "QUEUE NAME"},
		{[]string{"release", "--force", "q"}, "QUEUE NAME"},
		{[]string{"serve", "q"}, "one too many"},
		{[]string{"completion"}, "completion takes bash|zsh"},
		{[]string{"version", "x"}, "one too many"},

		// What is dangerous and was not confirmed; names of entries.
		{[]string{"purge", "q"}, "--yes"},
		{[]string{"release", "q", "entry-100-0000000001"}, "--force"},
		{[]string{"rm", "q", "bob"}, "entry-PPP"},
		{[]string{"rm", "q", "entry-100-0000000001", "../x"}, "entry-PPP"},
		{[]string{"peek", "q", ""}, "empty"},
		{[]string{"rm", "q", "1763683200000-bob"}, "entry-PPP"},
		{[]string{"requeue", "q"}, "--all"},
		{[]string{"requeue", "--all", "q", "entry-100-0000000001"}, "not both"},
		{[]string{"requeue", "q", "bob"}, "entry-PPP"},
		{[]string{"requeue", "q", "17-entry-100-0000000001"}, "entry-PPP"},

		// The plain layout has no locks.
		{[]string{"--layout", "plain", "consume", "q"}, "locking layout"},
		{[]string{"--layout", "plain", "release", "--force", "q", "entry-100-0000000001"}, "locking layout"},

		// Commands, and flags that other commands have or will have.
		{[]string{"nosuch"}, `unknown command "nosuch"`},
		{[]string{"puts", "q"}, "did you mean put?"},
		{[]string{"help", "nosuch"}, "unknown command"},
		{[]string{"put", "--prio", "5", "q", "v"}, "unknown flag --prio"},
		{[]string{"put", "--line", "q"}, "did you mean --lines?"},
		{[]string{"consume", "-j0", "q"}, `"0": allowed are 1 to 1000`},
		{[]string{"put", "-l0", "q"}, "write -l -0"},
		{[]string{"put", "-ojson", "q"}, "zkq -o json put q"},
		{[]string{"get", "q", "-w2s"}, "hint: zkq get -w 2s q\n"},
		{[]string{"get", "q", "-ojson"}, "hint: zkq -o json get q\n"},
		{[]string{"consume", "q", "-j2", "--", "cat", "-n1"}, "hint: zkq consume -j 2 q -- cat -n1\n"},
		{[]string{"--bogus", "stat"}, "unknown flag --bogus"},
		{[]string{"-l", "put", "q"}, "it is a flag of put"},
		{[]string{"put", "-o", "json", "q"}, "zkq -o json put q"},
		{[]string{"put", "-l=maybe", "q"}, "maybe"},
		{[]string{"put", "-p", "1", "--priority", "2", "q", "v"}, "two forms"},
		{[]string{"put", "---p", "q"}, "bad flag"},

		// Flags after the first argument, and the line to paste.
		{[]string{"put", "q", "hello", "-p", "5"}, "hint: zkq put -p 5 q hello\n"},
		{[]string{"put", "q", "hello", "-p=5"}, "hint: zkq put -p=5 q hello\n"},
		{[]string{"put", "q", "it's", "-p", "5"}, `hint: zkq put -p 5 q 'it'\''s'` + "\n"},
		{[]string{"put", "q", "a b", "--atomic", "c"}, "hint: zkq put --atomic q 'a b' c\n"},
		{[]string{"put", "-p", "5", "q", "-v"}, "hint: zkq put -p 5 -- q -v\n"},
		{[]string{"put", "q", "-5"}, "hint: zkq put -- q -5\n"},
		{[]string{"put", "q", "v", "-p"}, "hint: zkq put -- q v -p\n"},
		{[]string{"put", "q", "v", "-l", "--", "-x"}, "hint: zkq put -l q v -- -x\n"},
		{[]string{"put", "q", "v", "-o", "json"}, "hint: zkq -o json put q v\n"},
		{[]string{"-o", "text", "put", "q", "a\x1bb", "--atomic"}, `hint: zkq -o text put --atomic q $'a\x1bb'` + "\n"},
		{[]string{"get", "q", "-w", "5s"}, "hint: zkq get -w 5s q\n"},
		{[]string{"get", "q", "--help"}, "hint: zkq get --help q\n"},
		{[]string{"stat", "q", "--output=json"}, "hint: zkq --output=json stat q\n"},
		{[]string{"consume", "q", "-j", "4", "--", "cat"}, "hint: zkq consume -j 4 q -- cat\n"},
		{[]string{"consume", "q", "cat"}, "hint: zkq consume q -- cat\n"},
		{[]string{"consume", "jobs", "sh", "-c", "x"}, "hint: zkq consume jobs -- sh -c x\n"},
		{[]string{"consume", "-j2", "jobs", "sh", "-c", "x"}, "hint: zkq consume -j 2 jobs -- sh -c x\n"},
		{[]string{"consume", "jobs", "-j", "2", "sh", "-c", "a b"}, "hint: zkq consume -j 2 jobs -- sh -c 'a b'\n"},
		{[]string{"consume", "--", "jobs", "sh", "-c", "x"}, "hint: zkq consume -- jobs -- sh -c x\n"},
		{[]string{"consume", "q", "--"}, "CMD is missing"},
		{[]string{"consume", "q", "--", "/nonexistent/cmd"}, "/nonexistent/cmd"},
		{[]string{"consume", "q", "r", "--", "cat"}, "one too many"},
	}
	for _, tt := range tests {
		t.Run(printable(quoteLine(tt.line))[:min(60, len(printable(quoteLine(tt.line))))], func(t *testing.T) {
			s := newShell(t)
			got := s.run("", tt.line...)
			if got.code != exitUsage {
				t.Errorf("exit %d, want 2", got.code)
			}
			if got.stdout != "" {
				t.Errorf("stdout is %q, want nothing", got.stdout)
			}
			if !strings.Contains(got.stderr, tt.stderr) {
				t.Errorf("stderr is %q, want %q in it", got.stderr, tt.stderr)
			}
			lines := strings.Split(strings.TrimSuffix(got.stderr, "\n"), "\n")
			if !strings.HasPrefix(lines[0], "zkq: ") || !strings.HasPrefix(lines[len(lines)-1], "usage: zkq ") || len(lines) > 3 {
				t.Errorf("stderr is %q, want a line with the error, perhaps one with a hint, and one with the usage", got.stderr)
			}
			if len(lines) == 3 && !strings.HasPrefix(lines[1], "zkq: hint: ") {
				t.Errorf("the second line is %q, want a hint", lines[1])
			}
			if s.opens > 0 {
				t.Error("the coordinator was contacted")
			}
			if strings.Contains(got.stderr, "secret") {
				t.Errorf("stderr is %q, and tells the password", got.stderr)
			}
		})
	}
}

func TestBadVariableIsNamed(t *testing.T) {
	for name, value := range map[string]string{
		"ZKQ_LAYOUT": "both", "ZKQ_OUTPUT": "xml", "ZKQ_LOG_LEVEL": "loud", "ZKQ_LOG_JSON": "si",
		"ZKQ_SESSION_TIMEOUT": "-1s", "ZKQ_CONNECT_TIMEOUT": "0x5s", "ZKQ_PROGRESS": "x", "ZKQ_COORDINATOR": "ftp://x",
	} {
		s := newShell(t)
		s.env = append(s.env, name+"="+value)
		if got := s.run("", "stat"); got.code != exitUsage || !strings.Contains(got.stderr, name) || s.opens > 0 {
			t.Errorf("%s=%s: exit %d, stderr %q, contacted %d times", name, value, got.code, got.stderr, s.opens)
		}
		s = newShell(t)
		s.env = append(s.env, name+"=")
		s.expect(exitDone, "", "", "stat")
	}
}

// Everybody writes -j2, and the parser does not know it.
func TestValueMayBeGluedToAShortFlag(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "-p5", "q", "b")
	s.run("", "put", "-p4", "q", "a")
	s.expect(exitDone, "a\nb\n", "", "get", "-n2", "-w2s", "q")
	s.run("", "put", "-p", "-5", "q", "no") // a value that looks like one is none
	if got := s.run("", "-ojson", "ls", "-n1", "q"); got.code != exitDone || got.stdout != "" {
		t.Errorf("%+v", got)
	}
	s.expect(exitDone, "", "", "put", "-l", "q")
	s.run("", "put", "--", "q", "-p5")
	s.expect(exitDone, "-p5\n", "", "get", "q")
	s.run("", "put", "q", "x")
	s.expect(exitDone, "x -j2", "", "consume", "-j1", "-n1", "q", "--", "sh", "-c", `printf "%s $1" "$(cat)"`, "sh", "-j2")
}

func TestUnknownVariableIsWarnedOf(t *testing.T) {
	s := newShell(t)
	s.env = append(s.env, "ZKQ_CORDINATOR=zk://h", "ZKQ_ZEBRA=1", "ZKQ_QUEUE=q", "ZKQ_LOG_LEVEL=warn", "ZKQ_USER=", "ZKQ_SERVICE_HOST=10.0.0.1", "ZKQ_PORT_2379_TCP_ADDR=10.0.0.1")
	got := s.expect(exitDone, "", "", "stat")
	lines := strings.Split(strings.TrimSpace(got.stderr), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "[WARN]  zkq: ZKQ_CORDINATOR is set, and zkq has no such variable: did you mean ZKQ_COORDINATOR?") ||
		!strings.Contains(lines[1], "ZKQ_ZEBRA") {
		t.Errorf("stderr is %q", got.stderr)
	}
	if strings.Contains(got.stderr, "zk://h") {
		t.Errorf("stderr tells the value: %q", got.stderr)
	}
	if got := s.expect(exitDone, "", "", "--log-level", "off", "stat"); got.stderr != "" {
		t.Errorf("stderr is %q", got.stderr)
	}
}

func TestFlagOverridesVariable(t *testing.T) {
	s := newShell(t)
	s.env = append(s.env, "ZKQ_LAYOUT=plain", "ZKQ_OUTPUT=json")
	s.run("", "put", "q", "v")
	s.expect(exitUsage, "", "", "--layout", "locking", "get", "q")
	s.expect(exitDone, "v\n", "", "-o", "text", "get", "q")
}

func TestAllowedArgumentsAreTaken(t *testing.T) {
	s := newShell(t)
	for _, line := range [][]string{
		{"put", "-p", "0", "q", "v"},
		{"put", "-p", "999", "/q", "v"},
		{"put", "--priority=5", "a/b c/ü", ""},
		{"put", strings.Repeat("x", 255), "v"},
		{"put", "q", strings.Repeat("v", zkq.MaxValue)},
		{"get", "-w", "0", "q"},
		{"get", "-w", "1.5s", "q"},
		{"get", "-w", "1h30m", "q"},
		{"get", "-w", "forever", "help"},
		{"--session-timeout", "30s", "--connect-timeout", "2m", "stat", "q"},
		{"wait", "--timeout", "1ms", "empty"},
	} {
		if line[0] == "get" {
			s.run("", "put", line[len(line)-1], "v")
		}
		if got := s.run("", line...); got.code != exitDone {
			t.Errorf("zkq %.60s: exit %d, stderr %q", quoteLine(line), got.code, got.stderr)
		}
	}
}

// The names of queues that urfave would take for something else.
func TestQueuesMayHaveNamesOfFlagsAndCommands(t *testing.T) {
	for _, name := range []string{"help", "h", "p", "priority", "put", "file", "version", "l"} {
		s := newShell(t)
		if got := s.run("", "put", name, "v"); got.code != exitDone || !strings.HasPrefix(got.stdout, "entry-100-") {
			t.Errorf("put %s: %+v", name, got)
		}
		s.expect(exitDone, "v\n", "", "get", name)
	}
}

func TestEverythingAfterDashesIsAnArgument(t *testing.T) {
	s := newShell(t)
	get := func(want string) {
		t.Helper()
		s.expect(exitDone, want+"\n", "", "get", "q")
	}
	s.run("", "put", "--", "q", "-v")
	get("-v")
	s.run("", "put", "q", "--", "-v")
	get("-v")
	s.run("", "put", "--", "q", "--")
	get("--")
	s.run("", "put", "q", "--", "--")
	get("--")
	s.run("", "put", "q", "-")
	get("-")
	s.run("", "put", "--", "q", "--generate-bash-completion")
	get("--generate-bash-completion")
	if got := s.run("", "put", "q", "--generate-bash-completion"); got.code != exitUsage {
		t.Errorf("put q --generate-bash-completion: %+v, want exit 2", got)
	}
	if got := s.run("", "put", "--file", "--", "q"); got.code != exitFailed {
		t.Errorf("put --file --: %+v, want exit 1 for the file called --", got)
	}
	s.run("", "put", "q", "v")
	s.expect(exitDone, "v", "", "consume", "--drain", "--", "q", "--", "cat")
	s.expect(exitDone, "", "", "consume", "--drain", "q", "--", "sh", "-c", "exit 0")
}

func TestFileNamesKeepTheirCommas(t *testing.T) {
	s := newShell(t)
	file := filepath.Join(t.TempDir(), "a,b")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.run("", "put", "--file", file, "--file", file, "q"); got.code != exitDone || strings.Count(got.stdout, "\n") != 2 {
		t.Fatalf("%+v", got)
	}
	s.expect(exitDone, "x\nx\n", "", "get", "-n", "5", "q")
}

func TestHelpGoesToStdout(t *testing.T) {
	s := newShell(t)
	for _, line := range [][]string{{}, {"--help"}, {"-h"}, {"help"}, {"--help", "put"}} {
		got := s.run("", line...)
		if got.code != exitDone || got.stderr != "" || !strings.Contains(got.stdout, "usage: zkq [global flags] COMMAND") {
			t.Errorf("zkq %v: %+v", line, got)
		}
		if n := strings.Count(got.stdout, "\n"); n > 45 {
			t.Errorf("zkq %v: %d lines, want one screen", line, n)
		}
	}
	for _, v := range verbs() {
		if v.hidden {
			continue
		}
		for _, line := range [][]string{{v.name, "--help"}, {v.name, "-h"}, {"help", v.name}, {v.name, "--help", "x"}} {
			got := s.run("", line...)
			if got.code != exitDone || got.stderr != "" || !strings.HasPrefix(got.stdout, "zkq "+v.name+": ") {
				t.Errorf("zkq %v: %+v", line, got)
			}
		}
	}
}

func TestErrorsHaveTheirExitCodes(t *testing.T) {
	refused := func(err error) error { return &coord.Refusal{Err: err} }
	for _, tt := range []struct {
		err  error
		code int
	}{
		{zkq.ErrEmpty, 3},
		{zkq.ErrPaused, 3},
		{zkq.ErrFull, 7},
		{zkq.ErrExists, 9},
		{zkq.ErrNoEntry, 3},
		{zkq.ErrNotHeld, 3},
		{zkq.ErrHeld, 1},
		{zkq.ErrLockLost, 4},
		{zkq.ErrLayout, 2},
		{zkq.ErrInvalidName, 2},
		{zkq.ErrInvalidPriority, 2},
		{&coord.LimitError{}, 2},
		{coord.ErrUnreachable, 5},
		{coord.ErrSessionLost, 5},
		{coord.ErrAuth, 5},
		{coord.ErrTLS, 5},
		{coord.ErrForbidden, 1},
		{coord.ErrFormat, 1},
		{coord.ErrBusy, 1},
		{coord.ErrUnknown, 8},
		{errors.Join(coord.ErrUnknown, context.DeadlineExceeded), 8},
		{errors.Join(coord.ErrUnknown, coord.ErrSessionLost), 8},
		{context.DeadlineExceeded, 5},
		{refused(coord.ErrVersion), 1},
		{errors.New("anything"), 1},
	} {
		if got := classify(fmt.Errorf("wrapped: %w", tt.err)).code; got != tt.code {
			t.Errorf("%v: exit %d, want %d", tt.err, got, tt.code)
		}
	}
}

func TestSignalLeavesTheTokenOfAnUnansweredPut(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(&signalError{os.Interrupt})
	k := &call{verb: putVerb(), queue: "jobs"}
	const token = "0123456789abcdef-00-7"
	err := k.toSignalError(ctx, k.describe(fmt.Errorf("put /jobs: %w", &zkq.UnknownError{Token: token, Err: context.Canceled})))
	var f *failure
	if !errors.As(err, &f) || f.code != 130 || !strings.Contains(f.hint, token) {
		t.Errorf("%+v, want 130 and the token", f)
	}
}

func TestErrorsLosePackageNamesAndNothingElse(t *testing.T) {
	dir := &os.PathError{Op: "open", Path: "/home/zkq: /lock: ", Err: os.ErrNotExist}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{zkq.ErrEmpty, strings.TrimPrefix(zkq.ErrEmpty.Error(), "zkq: ")},
		{fmt.Errorf("take: %w", zkq.ErrLockLost), "take: " + strings.TrimPrefix(zkq.ErrLockLost.Error(), "zkq: ")},
		{fmt.Errorf("zkq: %w", coord.ErrClosed), strings.TrimPrefix(coord.ErrClosed.Error(), "coord: ")},
		{dir, dir.Error()},
		{fmt.Errorf("store in /tmp/zkq: process 7 runs it: %w", coord.ErrClosed), "store in /tmp/zkq: process 7 runs it: " + strings.TrimPrefix(coord.ErrClosed.Error(), "coord: ")},
	} {
		if got := errorText(tt.err); got != tt.want {
			t.Errorf("%q became %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestUnreachableNamesCoordinatorAndQueue(t *testing.T) {
	s := newShell(t)
	s.fail = fmt.Errorf("h:1: connection refused: %w", coord.ErrUnreachable)
	for _, line := range [][]string{{"put", "jobs", "v"}, {"get", "jobs"}, {"consume", "jobs"}, {"ls", "jobs"}, {"peek", "jobs"}, {"wait", "jobs"}, {"stat", "jobs"}, {"purge", "--yes", "jobs"}, {"rm", "jobs", "entry-100-0000000001"}} {
		got := s.expect(exitUnreachable, "", "", append([]string{"-c", "etcd://h:1/p"}, line...)...)
		if first, _, _ := strings.Cut(got.stderr, "\n"); !strings.Contains(first, "etcd://h:1/p") || !strings.Contains(first, "connection refused") || !strings.HasPrefix(first, "zkq: "+line[0]) {
			t.Errorf("zkq %v: stderr %q", line, got.stderr)
		}
	}
}

func TestErrorsInJSON(t *testing.T) {
	s := newShell(t)
	for _, line := range [][]string{{"get", "q"}, {"get"}, {"nosuch"}, {"--bogus"}, {"put", "q", "v", "-p", "1"}, {"get", "-w", "-1s", "q"}} {
		got := s.run("", append([]string{"-o", "json"}, line...)...)
		var e struct {
			Error *string
			Code  *int
			Hint  *string
		}
		if err := json.Unmarshal([]byte(got.stderr), &e); err != nil || e.Error == nil || e.Hint == nil || e.Code == nil || *e.Code != got.code {
			t.Errorf("zkq %v: exit %d, stderr %q: %v", line, got.code, got.stderr, err)
		}
		if got.stdout != "" || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("zkq %v: %+v", line, got)
		}
	}
}

func TestPutReadsItsInput(t *testing.T) {
	for _, tt := range []struct {
		name, stdin string
		flags       []string
		want        []string
	}{
		{"all of stdin", "a\nb\n", nil, []string{"a\nb\n"}},
		{"empty stdin", "", nil, []string{""}},
		{"lines", "a\nb\nc\n", []string{"-l"}, []string{"a", "b", "c"}},
		{"last line without its end", "a\nb", []string{"-l"}, []string{"a", "b"}},
		{"empty lines", "\n\na\n\n", []string{"-l"}, []string{"", "", "a", ""}},
		{"carriage returns", "a\r\nb\r\n", []string{"-l"}, []string{"a\r", "b\r"}},
		{"no lines", "", []string{"-l"}, nil},
		{"null", "a\nb\x00c\x00", []string{"-0"}, []string{"a\nb", "c"}},
		{"null without its end", "a\x00b", []string{"--null"}, []string{"a", "b"}},
		{"atomic", "a\nb\n", []string{"-l", "--atomic"}, []string{"a", "b"}},
		{"many lines", strings.Repeat("x\n", 3000), []string{"-l"}, strings.Split(strings.Repeat("x ", 2999)+"x", " ")},
		{"long lines", strings.Repeat("y", 700_000) + "\n" + strings.Repeat("z", 700_000) + "\n", []string{"-l"}, []string{strings.Repeat("y", 700_000), strings.Repeat("z", 700_000)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newShell(t)
			got := s.run(tt.stdin, append(append([]string{"put"}, tt.flags...), "q")...)
			if got.code != exitDone || strings.Count(got.stdout, "\n") != len(tt.want) {
				t.Fatalf("exit %d, %d names, stderr %q; want %d names", got.code, strings.Count(got.stdout, "\n"), got.stderr, len(tt.want))
			}
			for i, want := range tt.want {
				if i > 50 {
					break
				}
				s.expect(exitDone, want, "", "get", "--raw", "q")
			}
		})
	}
}

func TestTooLongLineTellsHowFarThePutCame(t *testing.T) {
	s := newShell(t)
	got := s.run("a\n"+strings.Repeat("x", zkq.MaxValue+1)+"\nb\n", "put", "-l", "q")
	if got.code != exitFailed || strings.Count(got.stdout, "\n") != 1 || strings.Contains(got.stderr, "usage:") || !strings.Contains(got.stderr, "entry 2") || !strings.Contains(got.stderr, "the limit is 1044480") || !strings.Contains(got.stderr, "first entry was put") {
		t.Fatalf("exit %d, stderr %q", got.code, got.stderr)
	}
	s.expect(exitDone, "a\n", "", "get", "-n", "9", "q")
	s.expect(exitUsage, "", strings.Repeat("x", zkq.MaxValue+1)+"\nb\n", "put", "-l", "q")
	s.expect(exitUsage, "", "a\n"+strings.Repeat("x", zkq.MaxValue+1)+"\n", "put", "--atomic", "-l", "q")
	s.expect(exitNothing, "", "", "get", "q")
}

func TestAllByteValuesSurvive(t *testing.T) {
	var all strings.Builder
	for i := range 256 {
		all.WriteByte(byte(i))
	}
	for _, layout := range []string{"locking", "plain"} {
		s := newShell(t)
		s.env = append(s.env, "ZKQ_LAYOUT="+layout)
		s.run(all.String(), "put", "q")
		s.expect(exitDone, all.String(), "", "peek", "--raw", "q")
		var e struct {
			Base64 []byte `json:"value_base64"`
		}
		if got := s.run("", "-o", "json", "peek", "q"); json.Unmarshal([]byte(got.stdout), &e) != nil || string(e.Base64) != all.String() {
			t.Errorf("%s: %q", layout, got.stdout)
		}
		s.expect(exitDone, all.String(), "", "get", "--raw", "q")
	}
}

func TestConsumeExitCodes(t *testing.T) {
	for _, tt := range []struct {
		cmd  string
		code int
		left string // get afterwards prints it
	}{
		{"exit 0", exitDone, ""},
		{"exit 1", exitSome, "v\n"},
		{"exit 65", exitSome, ""},
		{"exit 75", exitSome, "v\n"},
		{"kill -9 $$", exitSome, "v\n"},
	} {
		s := newShell(t)
		s.run("", "put", "q", "v")
		s.expect(tt.code, "", "", "consume", "-n", "1", "--backoff", "0", "q", "--", "sh", "-c", tt.cmd)
		if tt.left == "" {
			s.expect(exitNothing, "", "", "get", "q")
		} else {
			s.expect(exitDone, tt.left, "", "get", "q")
		}
	}
}

func TestConsumeTellsCommandWhatItWorksOn(t *testing.T) {
	s := newShell(t)
	name := strings.TrimSpace(s.run("", "put", "-p", "7", "/q", "v").stdout)
	s.env = append(s.env, "ZKQ_COORDINATOR=local:here")
	got := s.run("", "consume", "-n", "1", "q", "--", "sh", "-c", `echo "$ZKQ_COORDINATOR $ZKQ_LAYOUT $ZKQ_QUEUE $ZKQ_NAME $ZKQ_PRIORITY $ZKQ_DELIVERIES $ZKQ_FAILURES" "$ZKQ_TOKEN"`)
	dir, _ := filepath.Abs("here")
	f := strings.Fields(got.stdout)
	if want := fmt.Sprintf("local:%s locking q %s 7 1 0", dir, name); len(f) != 8 || strings.Join(f[:7], " ") != want || strings.Trim(f[7], "0123456789") != "" {
		t.Fatalf("CMD saw %q, want %q and a token", got.stdout, want)
	}
}

// One leading failure: the entry comes back, and with --drain the consumer waits
// for it.
func TestDrainWaitsForWhatItGaveBack(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "q", "v")
	mark := filepath.Join(t.TempDir(), "tried")
	s.expect(exitSome, "v", "", "consume", "--drain", "q", "--", "sh", "-c", `test -e "$0" || { : >"$0"; exit 1; }; cat`, mark)
	s.expect(exitNothing, "", "", "get", "q")
}

func TestHaltStopsAfterFailures(t *testing.T) {
	s := newShell(t)
	s.run("a\nb\nc\nd\n", "put", "-l", "q")
	got := s.run("", "consume", "--halt", "2", "--drain", "q", "--", "sh", "-c", "cat; exit 1")
	if got.code != exitSome || got.stdout != "ab" {
		t.Fatalf("%+v", got)
	}
}

func TestJobLogHasALineForEachAttempt(t *testing.T) {
	s := newShell(t)
	s.run("0\n3\n75\n65\n", "put", "-l", "q")
	file := filepath.Join(t.TempDir(), "log")
	s.expect(exitSome, "", "", "consume", "-n", "4", "--joblog", file, "q", "--", "sh", "-c", "exit $(cat)")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		exit    int
		outcome string
	}{{0, "done"}, {3, "failed"}, {75, "put_back"}, {65, "dead"}}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines: %s", len(lines), b)
	}
	for i, line := range lines {
		var a attempt
		if err := json.Unmarshal([]byte(line), &a); err != nil || a.Exit == nil || *a.Exit != want[i].exit || a.Outcome != want[i].outcome || a.Queue != "q" || a.Deliveries != 1 || a.Token == 0 {
			t.Errorf("line %d: %s: %v", i, line, err)
		}
	}
}

func TestGroupedOutputIsNotMixed(t *testing.T) {
	s := newShell(t)
	s.run("1\n2\n3\n4\n", "put", "-l", "q")
	got := s.run("", "consume", "-j", "4", "-n", "4", "q", "--", "sh", "-c", `n=$(cat); for i in 1 2 3 4 5 6 7 8; do echo "$n"; done`)
	lines := strings.Fields(got.stdout)
	if got.code != exitDone || len(lines) != 32 {
		t.Fatalf("%+v", got)
	}
	for i := 0; i < 32; i += 8 {
		for _, l := range lines[i : i+8] {
			if l != lines[i] {
				t.Fatalf("the commands' output is mixed: %q", lines)
			}
		}
	}
	big := fmt.Sprintf("head -c %d /dev/zero", 3<<20)
	s.run("", "put", "q", "v")
	if got := s.run("", "consume", "-j", "2", "-n", "1", "q", "--", "sh", "-c", big); got.code != exitDone || len(got.stdout) != 3<<20 {
		t.Fatalf("exit %d, %d bytes, %s", got.code, len(got.stdout), got.stderr)
	}
}

// CMD's output cannot be kept until it ends: then it is not done either.
func TestOutputThatCannotBeKeptIsNotDone(t *testing.T) {
	for _, status := range []int{0, 1} {
		s := newShell(t)
		s.run("", "put", "q", "v")
		t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
		got := s.expect(exitFailed, "", "", "consume", "-j", "2", "-n", "1", "q", "--", "sh", "-c",
			fmt.Sprintf("trap '' PIPE; head -c %d /dev/zero; exit %d", 3<<20, status))
		if !strings.Contains(got.stderr, "pass on what sh printed") || !strings.Contains(got.stderr, "missing") || !strings.Contains(got.stderr, "1 released, 0 done") {
			t.Errorf("CMD's status %d: stderr %q", status, got.stderr)
		}
		s.expect(exitDone, "v\n", "", "get", "q")
	}
}

// Output beyond zkq's own that cannot be written is not done either.
func TestOutputThatCannotBePassedOnIsNotDone(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "q", "v")
	var stderr bytes.Buffer
	p := newProgram([]string{"consume", "-n", "1", "q", "--", "sh", "-c", "echo x"}, strings.NewReader(""), &brokenAfter{}, &stderr, s.env)
	p.open = func(context.Context, target, openOptions) (coord.Coordinator, error) {
		return s.store.Open(coordtest.Options{}), nil
	}
	if code := p.run(context.Background()); code != exitFailed {
		t.Errorf("exit %d, stderr %q", code, stderr.String())
	}
	s.expect(exitDone, "v\n", "", "get", "q")
}

// A write that fails gives back what was not shown.
func TestBrokenOutputReleasesWhatWasNotWritten(t *testing.T) {
	for _, verb := range []string{"get", "consume"} {
		s := newShell(t)
		s.run("a\nb\nc\n", "put", "-l", "q")
		var stderr bytes.Buffer
		w := &brokenAfter{n: 1}
		p := newProgram([]string{verb, "-n", "3", "q"}, strings.NewReader(""), w, &stderr, s.env)
		p.open = func(context.Context, target, openOptions) (coord.Coordinator, error) {
			return s.store.Open(coordtest.Options{}), nil
		}
		if code := p.run(context.Background()); code != exitFailed {
			t.Errorf("%s: exit %d, stderr %q", verb, code, stderr.String())
		}
		s.expect(exitDone, "b\nc\n", "", "get", "-n", "3", "q")
	}
}

type brokenAfter struct{ n int }

func (w *brokenAfter) Write(b []byte) (int, error) {
	if w.n--; w.n < 0 {
		return 0, os.ErrClosed
	}
	return len(b), nil
}

func TestControlCharactersNeverReachATerminal(t *testing.T) {
	var b bytes.Buffer
	o := newOutput(&b)
	o.terminal = true
	for _, raw := range []bool{false, true} {
		b.Reset()
		if err := o.value(entryRecord{}, []byte("a\x1b[31mb\u009bc\x7f\xff\r\tü"), raw); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSuffix(b.String(), "\n"); got != `a\x1b[31mb\xc2\x9bc\x7f\xff\x0d`+"\tü" {
			t.Errorf("raw %v: %q", raw, got)
		}
	}
	b.Reset()
	tab := o.table("name", "holder")
	tab.row(nil, "x", "evil\x1b]0;\n")
	tab.row(nil, "y", "")
	tab.end()
	if got := b.String(); got != "NAME  HOLDER\nx     evil\\x1b]0;\\x0a\ny     -\n" {
		t.Errorf("table: %q", got)
	}
	b.Reset()
	o.json = true
	o.value(entryRecord{}, []byte("\u009b\x7f<"), false)
	if got := b.String(); !strings.Contains(got, `"value":"\u009b\u007f<"`) {
		t.Errorf("JSON: %q", got)
	}
}

func TestTargets(t *testing.T) {
	env := environment{"HOME": "/home/u"}
	for url, want := range map[string]string{
		"":                              "local:/home/u/.local/share/zkq",
		"local:":                        "local:/home/u/.local/share/zkq",
		"local:/x/../y":                 "local:/y",
		"etcd://h":                      "etcd://h:2379",
		"etcd://h1:1,h2/p/q/":           "etcd://h1:1,h2:2379/p/q",
		"zk://h":                        "zk://h:2181",
		"zks://[::1]:3,[fe80::1]/c":     "zks://[::1]:3,[fe80::1]:2181/c",
		"etcds://a.example.org:2379/":   "etcds://a.example.org:2379",
		"etcd://127.0.0.1:2379/a b/ü-x": "etcd://127.0.0.1:2379/a b/ü-x",
	} {
		got, err := parseTarget(url, env)
		if err != nil || got.String() != want {
			t.Errorf("%q: %v, %v; want %s", url, got, err, want)
		}
	}
	if got, _ := parseTarget("", environment{"HOME": "/h", "XDG_DATA_HOME": "/data"}); got.String() != "local:/data/zkq" {
		t.Errorf("with XDG_DATA_HOME: %v", got)
	}
	if got, _ := parseTarget("", environment{"HOME": "/h", "XDG_DATA_HOME": "relative"}); got.String() != "local:/h/.local/share/zkq" {
		t.Errorf("with a relative XDG_DATA_HOME: %v", got)
	}
	if _, err := parseTarget("", environment{}); err == nil {
		t.Error("without HOME: no error")
	}
}

func TestCredentialsAreCheckedBeforeAnythingIsContacted(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, tt := range []struct {
		url  string
		env  []string
		want string
	}{
		{"etcd://h", []string{"ZKQ_USER=u"}, "go together"},
		{"etcd://h", []string{"ZKQ_PASSWORD_FILE=x"}, "go together"},
		{"etcd://h", []string{"ZKQ_USER=u", "ZKQ_PASSWORD_FILE=" + dir + "/missing"}, "no such file"},
		{"etcd://h", []string{"ZKQ_USER=u", "ZKQ_PASSWORD_FILE=" + file("empty", "\n")}, "is empty"},
		{"etcd://h", []string{"ZKQ_CA_FILE=" + file("ca", "x")}, "does not use TLS"},
		{"zk://h", []string{"ZKQ_KEY_FILE=" + file("key", "x")}, "does not use TLS"},
		{"etcds://h", []string{"ZKQ_CA_FILE=" + file("ca", "x")}, "no certificate"},
		{"etcds://h", []string{"ZKQ_CERT_FILE=x"}, "go together"},
		{"zks://h", []string{"ZKQ_CERT_FILE=" + file("ca", "x"), "ZKQ_KEY_FILE=" + file("key", "x")}, "PEM"},
	} {
		s := newShell(t)
		s.env = append(s.env, tt.env...)
		got := s.run("", "-c", tt.url, "stat")
		if got.code != exitUsage || !strings.Contains(got.stderr, tt.want) || s.opens > 0 {
			t.Errorf("%s %v: %+v", tt.url, tt.env, got)
		}
	}
}
