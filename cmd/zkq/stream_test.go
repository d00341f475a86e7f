package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// A write that blocks is given up after hurry, and those that wait for it and come
// later fail at once.
func TestHurriedWriteIsGivenUp(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := newStream(w)
	written := make(chan error)
	for range 2 {
		go func() {
			_, err := s.Write(make([]byte, 1<<20))
			written <- err
		}()
	}
	select {
	case err := <-written:
		t.Fatalf("a write of more than a pipe holds returned %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	s.hurry()
	for range 2 {
		select {
		case err := <-written:
			if !errors.Is(err, errStuck) {
				t.Errorf("a blocked write returned %v", err)
			}
		case <-time.After(2 * time.Minute):
			r.Close() // so that the test ends
			t.Fatal("a write is still blocked")
		}
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, errStuck) {
		t.Errorf("a later write returned %v", err)
	}
	r.Close() // ends the write that was given up
	w.Close()
}

// A stream that is read takes what comes after hurry, too.
func TestHurriedWriteIsWritten(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := newStream(w)
	s.hurry()
	if n, err := s.Write([]byte("last words")); n != 10 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	w.Close()
	b := make([]byte, 20)
	if n, err := r.Read(b); string(b[:n]) != "last words" {
		t.Errorf("%q, %v", b[:n], err)
	}
}

// runInto runs zkq with a file as its standard output.
func (s *shell) runInto(stdout *os.File, args ...string) (code int, stderr string) {
	s.t.Helper()
	var said strings.Builder
	p := newProgram(args, strings.NewReader(""), stdout, &said, s.env)
	p.open = func(context.Context, target, openOptions) (coord.Coordinator, error) {
		return s.store.Open(coordtest.Options{}), nil
	}
	code = p.run(context.Background())
	return code, said.String()
}

func brokenPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { w.Close() })
	return w
}

// The reader of zkq's own output has gone: a CMD that dies of it has not failed.
func TestBrokenPipeOfCommandIsNoFailure(t *testing.T) {
	for _, cmd := range []string{"yes", "trap '' PIPE; echo x || exit 3"} {
		for _, jobs := range [][]string{{"-j", "1"}, {"-j", "2", "--ungroup"}} {
			s := newShell(t)
			s.run("", "put", "q", "1", "2", "3", "4", "5")
			line := append(append([]string{"consume", "--drain", "--retries", "1"}, jobs...), "q", "--", "sh", "-c", cmd)
			code, stderr := s.runInto(brokenPipe(t), line...)
			if code != exitFailed || !strings.Contains(stderr, "the reader of the output went away") || strings.Contains(stderr, "dead") {
				t.Errorf("%q %q: exit %d, %q", jobs, cmd, code, stderr)
			}
			if out := s.run("", "stat", "q").stdout; !strings.HasPrefix(out, "q\t5\t0\t0\t0\t5\t") {
				t.Errorf("%q %q: left %q", jobs, cmd, out)
			}
		}
	}
	// What CMD says about the entry counts, and one that succeeds is done.
	s := newShell(t)
	s.run("", "put", "q", "1")
	if code, stderr := s.runInto(brokenPipe(t), "consume", "-n", "1", "q", "--", "sh", "-c", "exit 65"); code != exitSome {
		t.Errorf("exit %d, %q", code, stderr)
	}
	s.run("", "put", "q", "2")
	if code, stderr := s.runInto(brokenPipe(t), "consume", "-n", "1", "q", "--", "true"); code != exitDone {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestLookingCommandsEndSilentlyWithoutAReader(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "q", "v")
	for _, line := range []string{"ls q", "-o json ls q", "stat", "peek q", "workers", "help", "--help", "help ls", "version", "--version", "completion zsh", ""} {
		if code, stderr := s.runInto(brokenPipe(t), strings.Fields(line)...); code != exitDone || strings.Contains(stderr, "went away") {
			t.Errorf("zkq %s: exit %d, %q", line, code, stderr)
		}
	}
	for _, line := range []string{"get q", "put q w", "purge --yes q"} {
		if code, stderr := s.runInto(brokenPipe(t), strings.Fields(line)...); code != exitFailed || !strings.Contains(stderr, "the reader of the output went away") {
			t.Errorf("zkq %s: exit %d, %q", line, code, stderr)
		}
	}
	// A broken pipe to the coordinator is another thing.
	s.fail = syscall.EPIPE
	if got := s.run("", "ls", "q"); got.code == exitDone || strings.Contains(got.stderr, "went away") {
		t.Errorf("%+v", got)
	}
}

// A batch of a stream shrinks to what there is room for, in order.
func TestStreamFillsABoundedQueueInOrder(t *testing.T) {
	s := newShell(t)
	s.run("", "create", "--max-entries", "3", "q")
	got := s.run("1\n2\n3\n4\n5\n", "put", "-l", "q")
	if got.code != exitFull || strings.Count(got.stdout, "\n") != 3 || !strings.Contains(got.stderr, "(the first 3 entries were put)") {
		t.Errorf("%+v", got)
	}
	if got := s.run("", "put", "q", "x", "y"); got.code != exitFull || got.stdout != "" || !strings.Contains(got.stderr, "(nothing was put)") {
		t.Errorf("%+v", got)
	}
	for _, more := range [][]string{nil, {"-w", "forever"}} {
		line := append(append([]string{"put"}, more...), "--atomic", "-l", "q")
		if got := s.run("1\n2\n3\n4\n", line...); got.code != exitUsage || !strings.Contains(got.stderr, "4 entries, the limit is 3") {
			t.Errorf("%+v", got)
		}
	}
	s.expect(exitDone, "1\n2\n3\n", "", "get", "-n", "3", "q")
	var lines strings.Builder
	for i := range 200 {
		lines.WriteString(strings.Repeat("v", i) + "\n")
	}
	done := make(chan outcome)
	go func() { done <- s.run("", "consume", "-n", "200", "q") }()
	if got := s.run(lines.String(), "put", "-w", "forever", "-l", "q"); got.code != exitDone || strings.Count(got.stdout, "\n") != 200 {
		t.Errorf("exit %d, %q", got.code, got.stderr)
	}
	if got := <-done; got.stdout != lines.String() {
		t.Errorf("out came %d bytes of %d, or in another order", len(got.stdout), lines.Len())
	}
}

func TestDrainOfAPausedQueueSaysWhatItLeaves(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "q", "a", "b")
	s.run("", "pause", "q")
	got := s.expect(exitNothing, "", "", "consume", "--drain", "q")
	if !strings.Contains(got.stderr, "the queue is paused, and 2 entries are ready (0 done)\nzkq: hint: zkq resume q ends the pause\n") {
		t.Errorf("stderr is %q", got.stderr)
	}
	got = s.expect(exitDone, "", "", "consume", "-w", "500ms", "q")
	if strings.Count(got.stderr, "queue is paused: nothing is handed out until it is resumed") != 1 {
		t.Errorf("stderr is %q", got.stderr)
	}
	if got := s.expect(exitNothing, "", "", "get", "-w", "10ms", "q"); !strings.Contains(got.stderr, "paused") {
		t.Errorf("stderr is %q", got.stderr)
	}
	s.run("", "resume", "q")
	s.expect(exitDone, "a\nb\n", "", "consume", "--drain", "q")
}

func TestWaitFailsOnDeadWhereAsked(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "q", "v")
	s.run("", "consume", "-n", "1", "q", "--", "sh", "-c", "exit 65")
	s.expect(exitDone, "", "", "wait", "q")
	if got := s.expect(exitSome, "", "", "wait", "--fail-on-dead", "q"); !strings.Contains(got.stderr, "1 entry is dead") {
		t.Errorf("%q", got.stderr)
	}
	s.run("", "put", "q", "v")
	s.expect(exitNothing, "", "", "wait", "--fail-on-dead", "--timeout", "0", "q")
}
