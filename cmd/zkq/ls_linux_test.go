package main

import (
	"regexp"
	"strings"
	"testing"
)

// On a terminal of 80 columns a row of ls is a line, whatever the entry's state, and the
// name that it shows is one that the verbs take.
func TestLsFitsTheTerminal(t *testing.T) {
	onEvery(t, func(t *testing.T, b backend) {
		run := func(want int, args ...string) string {
			t.Helper()
			stdout, stderr, code := zkqAt(t, b.past, args...)
			if code != want {
				t.Fatalf("zkq %v: exit %d, want %d: %s", args, code, want, stderr)
			}
			return stdout
		}
		run(exitDone, "put", "-p", "1", "jobs", "dies")
		run(exitSome, "consume", "-n", "1", "jobs", "--", "sh", "-c", "exit 65")
		run(exitDone, "put", "-p", "2", "jobs", "rests")
		run(exitSome, "consume", "-n", "1", "--backoff", "1h", "jobs", "--", "false")
		run(exitDone, "put", "-p", "3", "jobs", "worked on")
		run(exitDone, "put", "-p", "4", "jobs", strings.Repeat("long ", 100))
		run(exitDone, "put", "--delay", "50h", "jobs", "later")
		worker := startZkq(t, b.past, "consume", "-n", "1", "jobs", "--", "sh", "-c", "echo begun; exec sleep 60")
		if line, err := worker.stdout.ReadString('\n'); line != "begun\n" {
			t.Fatalf("%q, %v: %s", line, err, worker.stderr.String())
		}
		for _, args := range [][]string{{"ls", "jobs"}, {"ls", "--values", "jobs"}} {
			seen, code := onTerminal(t, b.past, args...)
			lines := strings.Split(strings.TrimSuffix(strings.ReplaceAll(string(seen), "\r\n", "\n"), "\n"), "\n")
			if code != exitDone || len(lines) != 6 {
				t.Fatalf("exit %d: %q", code, lines)
			}
			for i, pattern := range []string{
				`^NAME +PRI +STATE +AGE +TRIES +FAILS +SIZE +DETAIL( +VALUE)?$`,
				`^\S+ +2 +delayed +\d+s +1 +1 +5 +due in`,
				`^\S+ +3 +held +\d+s +1 +0 +9 +(for|by) `,
				`^\S+ +4 +ready +\d+s +0 +0 +500 +-`,
				`^\S+ +100 +delayed +\S+ +0 +0 +5 +due in 2d`,
				`^\S+ +1 +dead +\d+s +1 +1 +4 +died`,
			} {
				if !regexp.MustCompile(pattern).MatchString(lines[i]) {
					t.Errorf("zkq %v: line %d is %q, want %s", args, i, lines[i], pattern)
				}
				if width := textWidth(lines[i]); width > 80 {
					t.Errorf("zkq %v: %d columns: %q", args, width, lines[i])
				}
			}
			dead, _, _ := strings.Cut(lines[5], " ")
			if got := run(exitDone, "peek", "jobs", dead); got != "dies\n" {
				t.Errorf("peek at %s shows %q", dead, got)
			}
		}
		seen, _ := onTerminal(t, b.past, "ls", "--full", "--state", "delayed,dead", "jobs")
		for name := range strings.SplitSeq(strings.TrimSpace(run(exitDone, "ls", "--state", "delayed,dead", "jobs")), "\n") {
			name, _, _ = strings.Cut(name, "\t")
			if !strings.Contains(string(seen), name+"  ") {
				t.Errorf("ls --full does not show %s: %q", name, seen)
			}
		}
	})
}
