package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord/coordtest"
)

// shortDir is for a unix socket, whose path must be short.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "zq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// logged runs consume with a job log, and returns its lines.
func (s *shell) logged(code int, args ...string) []attempt {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "log")
	if got := s.run("", append([]string{"consume", "--joblog", file}, args...)...); got.code != code {
		s.t.Fatalf("zkq consume %s: exit %d, want %d; stderr %q", quoteLine(args), got.code, code, got.stderr)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	var as []attempt
	for line := range strings.Lines(string(b)) {
		var a attempt
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		as = append(as, a)
	}
	return as
}

func TestCommandThatTakesTooLongHasFailed(t *testing.T) {
	for _, tt := range []struct{ cmd, reason string }{
		{"exec sleep 30", "ran longer than 200ms: signal: terminated"},
		{"trap 'exit 0' TERM; while :; do sleep 0.05; done", "ran longer than 200ms: exit status 0"},
		{"trap '' TERM; while :; do sleep 0.05; done", "ran longer than 200ms: signal: killed"},
	} {
		s := newShell(t)
		s.run("", "put", "q", "v")
		as := s.logged(exitSome, "--timeout", "200ms", "-n", "1", "q", "--", "sh", "-c", tt.cmd)
		if len(as) != 1 || as[0].Outcome != outcomeFailed || as[0].Reason != tt.reason || as[0].Seconds < 0.2 {
			t.Errorf("%s: %+v", tt.cmd, as)
		}
		if out := s.run("", "-o", "json", "ls", "q").stdout; !strings.Contains(out, `"failures":1,"reason":"ran longer than 200ms: `) {
			t.Errorf("%s: %s", tt.cmd, out)
		}
	}
}

func TestCommandInTimeIsDone(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "q", "v")
	if as := s.logged(exitDone, "--timeout", "20s", "-n", "1", "q", "--", "cat"); len(as) != 1 || as[0].Outcome != outcomeDone || as[0].Reason != "" {
		t.Errorf("%+v", as)
	}
}

func TestMemoryIsLimitedForAllThatCommandStarts(t *testing.T) {
	if runtime.GOOS != "linux" {
		s := newShell(t)
		s.expect(exitUsage, "", "", "consume", "--memory-limit", "1GB", "q", "--", "cat")
		return
	}
	const most = "ulimit -d"
	for _, cmd := range []string{most, "sh -c '" + most + "'", "(" + most + ")"} {
		s := newShell(t)
		s.run("", "put", "q", "v")
		s.expect(exitDone, "65536\n", "", "consume", "--memory-limit", "64MiB", "-n", "1", "q", "--", "sh", "-c", cmd)
	}
	hog := `x=$(head -c 200000000 /dev/zero | tr '\0' x); exit 0`
	s := newShell(t)
	s.run("", "put", "q", "v")
	if as := s.logged(exitSome, "--memory-limit", "64MiB", "-n", "1", "q", "--", "sh", "-c", hog); len(as) != 1 || as[0].Outcome != outcomeFailed {
		t.Errorf("%+v", as)
	}
	// What it reads, prints and exits with is as ever.
	s = newShell(t)
	s.run("", "put", "q", "v")
	s.expect(exitSome, "v", "", "consume", "--memory-limit", "1GB", "-n", "1", "q", "--", "sh", "-c", "cat; exit 3")
	s = newShell(t)
	s.run("", "put", "q", "v")
	got := s.run("", "consume", "--memory-limit", "1GB", "-n", "1", "q", "--", "sh", "-c", "kill -9 $$")
	if got.code != exitSome || !strings.Contains(s.run("", "-o", "json", "ls", "q").stdout, "signal: killed") {
		t.Errorf("%+v", got)
	}
}

func TestCommandThatCannotBeStartedUnderALimitEndsConsume(t *testing.T) {
	file := filepath.Join(t.TempDir(), "no-program")
	if err := os.WriteFile(file, []byte("\x7fELF is what programs begin with"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := newShell(t)
	s.run("", "put", "q", "v")
	for _, flags := range [][]string{nil, {"--memory-limit", "1GB"}} {
		if runtime.GOOS != "linux" && flags != nil {
			continue
		}
		got := s.run("", append(append([]string{"consume", "-n", "1"}, flags...), "q", "--", file)...)
		if got.code != exitFailed || !strings.Contains(got.stderr, "start ") || !strings.Contains(got.stderr, "1 released") {
			t.Errorf("%q: %+v", flags, got)
		}
	}
	s.expect(exitDone, "v\n", "", "get", "q")
}

func TestRestDoublesUpToAMinute(t *testing.T) {
	for _, tt := range []struct {
		backoff time.Duration
		n       int
		want    time.Duration
	}{
		{time.Second, 1, time.Second},
		{time.Second, 2, 2 * time.Second},
		{time.Second, 6, 32 * time.Second},
		{time.Second, 7, time.Minute},
		{time.Second, 1_000_000, time.Minute},
		{time.Hour, 1, time.Hour},
		{time.Hour, 5, time.Hour},
		{0, 3, 0},
	} {
		c := &consumer{backoff: tt.backoff}
		differ := map[time.Duration]bool{}
		for range 100 {
			d := c.restAfter(tt.n)
			differ[d] = true
			if d < tt.want || d > tt.want+tt.want/10 {
				t.Errorf("--backoff %v: after failure %d it rests %v, want %v and up to a tenth more", tt.backoff, tt.n, d, tt.want)
			}
		}
		if tt.want > 0 && len(differ) < 2 {
			t.Errorf("--backoff %v: what fails together is tried together", tt.backoff)
		}
	}
}

// What was read ahead is worked on in order, by as many as may, and counts for -n.
func TestReadAheadHoldsMoreAndWorksOnThemInOrder(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "q", "1", "2", "3", "4", "5", "6", "7")
	got := s.run("", "consume", "--read-ahead", "3", "-n", "5", "q", "--", "sh", "-c", "cat; echo")
	if got.code != exitDone || got.stdout != "1\n2\n3\n4\n5\n" {
		t.Fatalf("%+v", got)
	}
	s.expect(exitDone, "6\n7\n", "", "consume", "--drain", "--read-ahead", "1000", "q")
}

// A consumer that stops gives back the entries that it read ahead, and no delivery of them counts.
func TestReadAheadIsGivenBackUncounted(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "q", "1", "2", "3", "4")
	as := s.logged(exitSome, "--read-ahead", "9", "--halt", "1", "--backoff", "0", "q", "--", "false")
	if len(as) != 1 {
		t.Errorf("%d attempts after a failure that should have stopped it", len(as))
	}
	out := s.run("", "-o", "json", "ls", "q").stdout
	if strings.Count(out, `"state":"ready"`) != 4 || strings.Count(out, `"failures":0`) != 3 || strings.Count(out, `"failures":1`) != 1 {
		t.Errorf("the queue holds %s", out)
	}
	// That they were taken before is no failure of theirs.
	s.expect(exitDone, "", "", "consume", "--retries", "2", "--drain", "q", "--", "true")
}

// As after a full disk: a line was not written whole.
func TestJobLogGoesOnBehindAnUnfinishedLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte("{}\n{\"start"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newShell(t)
	s.run("", "put", "q", "1", "2")
	for range 2 {
		s.expect(exitDone, "", "", "consume", "-n", "1", "--joblog", file, "q", "--", "true")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) != 5 || lines[1] != `{"start` || lines[4] != "" {
		t.Fatalf("the log is %q", lines)
	}
	for _, line := range lines[2:4] {
		var a attempt
		if err := json.Unmarshal([]byte(line), &a); err != nil || a.Outcome != outcomeDone {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestJobLogThatCannotBeWrittenIsRefusedBeforeAnythingIsTaken(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "q", "v")
	opens := s.opens
	got := s.run("", "consume", "-n", "1", "--joblog", filepath.Join(t.TempDir(), "no", "log"), "q", "--", "true")
	if got.code != exitFailed || s.opens != opens || !strings.Contains(got.stderr, "no such file") {
		t.Errorf("%+v, after %d contacts", got, s.opens-opens)
	}
}

func TestWhatCommandPrintsIsForwarded(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "-p", "7", "q", "a")
	s.run("", "put", "-p", "8", "q", "b")
	s.expect(exitDone, "", "", "consume", "-j", "2", "--drain", "--forward", "next/step", "q", "--", "sh", "-c", `printf '%s-1' "$(cat)"`)
	out := s.run("", "-o", "json", "get", "-n", "9", "next/step").stdout
	if strings.Count(out, "\n") != 2 || !strings.Contains(out, `"priority":7,`) || !strings.Contains(out, `"value":"a-1"`) || !strings.Contains(out, `"value":"b-1"`) {
		t.Errorf("forwarded was %s", out)
	}
	s.expect(exitNothing, "", "", "get", "q")

	// Nothing printed is an empty entry, and without a command the value goes on as it is.
	s.run("", "put", "q", "c")
	s.expect(exitDone, "", "", "consume", "--drain", "--forward", "next", "q", "--", "true")
	s.run("d\n", "put", "q")
	s.expect(exitDone, "", "", "consume", "--drain", "--forward", "next", "q")
	s.expect(exitDone, "d\n", "", "get", "--raw", "-n", "2", "next")
}

func TestWhatFailedIsNotForwarded(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "q", "v")
	for _, cmd := range []string{"echo x; exit 1", "echo x; exit 75", "head -c 1044481 /dev/zero", "echo x; kill -9 $$"} {
		s.expect(exitSome, "", "", "consume", "-n", "1", "--backoff", "0", "--forward", "next", "q", "--", "sh", "-c", cmd)
	}
	as := s.logged(exitSome, "-n", "1", "--forward", "next", "--retries", "4", "q", "--", "sh", "-c", "head -c 2000000 /dev/zero")
	if len(as) != 1 || as[0].Outcome != outcomeDead || !strings.HasPrefix(as[0].Reason, "CMD printed 2000000 bytes, and an entry holds at most 1044480") {
		t.Errorf("%+v", as)
	}
	s.expect(exitNothing, "", "", "get", "next")
	s.run("", "requeue", "--all", "q")
	s.expect(exitDone, "", "", "consume", "-n", "1", "--forward", "next", "q", "--", "head", "-c", "1044480", "/dev/zero")
	if got := s.run("", "get", "--raw", "next"); len(got.stdout) != 1044480 {
		t.Errorf("%d bytes were forwarded", len(got.stdout))
	}
}

// The entry is held until the next queue has room, and given back if consume is to end before.
func TestForwardWaitsForRoom(t *testing.T) {
	s := newShell(t)
	c := s.store.Open(coordtest.Options{})
	defer c.Close()
	next := zkq.NewLockingQueue(c, "next")
	defer next.Close()
	if err := next.Create(t.Context(), zkq.QueueConfig{MaxEntries: 1}); err != nil {
		t.Fatal(err)
	}
	s.run("", "put", "q", "a", "b")
	done := make(chan outcome)
	go func() { done <- s.run("", "consume", "--drain", "--forward", "next", "q", "--", "cat") }()
	for _, want := range []string{"a", "b"} {
		h, err := next.Take(t.Context())
		if err != nil || string(h.Value) != want {
			t.Fatalf("%+v, %v", h, err)
		}
		if err := h.Consume(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-done; got.code != exitDone || got.stdout != "" {
		t.Errorf("%+v", got)
	}
}
