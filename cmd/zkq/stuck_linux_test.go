package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// full waits until a pipe's reader, which does not read, has as much waiting as the pipe
// takes.
func full(t *testing.T, r *os.File) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		n, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		if n >= 60_000 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %d bytes came", n)
		}
	}
}

// No process reads what zkq writes. The first signal ends it when the grace is over, and the
// second at once; what was not written is back in the queue.
func TestSignalEndsAConsumerWhoseOutputNobodyReads(t *testing.T) {
	for _, tt := range []struct {
		name    string
		grace   string
		signals int
		code    int
		args    []string
	}{
		{"its own", "300ms", 1, exitSome, []string{"jobs", "--", "cat"}},
		{"collected", "300ms", 1, exitSome, []string{"-j", "2", "jobs", "--", "cat"}},
		{"values", "300ms", 1, exitSome, []string{"jobs"}},
		{"own at once", "1h", 2, 143, []string{"jobs", "--", "sh", "-c", "trap '' TERM; cat"}},
		{"collected at once", "1h", 2, 143, []string{"-j", "2", "jobs", "--", "cat"}},
		{"values at once", "1h", 2, 143, []string{"jobs"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			where := "local:" + shortDir(t)
			value := strings.Repeat("v", 300_000)
			producer := startZkq(t, where, "put", "-l", "jobs")
			if _, err := producer.stdin.Write([]byte(value + "\n" + value + "\n" + value + "\n")); err != nil {
				t.Fatal(err)
			}
			producer.stdin.Close()
			if _, code := producer.end(); code != exitDone {
				t.Fatal(producer.stderr.String())
			}
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			p := newProcess(t, where, "zkq", append([]string{"--log-level", "info", "consume", "--grace", tt.grace}, tt.args...)...)
			p.stdin.Close()
			p.cmd.Stdout = w
			p.start(t)
			w.Close()
			full(t, r)
			for n := range tt.signals {
				if n > 0 {
					p.says(t, "takes no more")
				}
				if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			if _, code := p.end(); code != tt.code {
				t.Errorf("exit %d, want %d: %s", code, tt.code, &p.stderr)
			}
			if !strings.Contains(p.stderr.String(), "released, 0 done") {
				t.Errorf("stderr: %s", &p.stderr)
			}
			if out, _, _ := zkqAt(t, where, "stat", "jobs"); !strings.HasPrefix(out, "jobs\t3\t0\t0\t0\t3\t") {
				t.Errorf("left: %s", out)
			}
		})
	}
}

// A named pipe without a reader cannot even be opened.
func TestSecondSignalEndsAConsumerThatCannotBegin(t *testing.T) {
	where := "local:" + shortDir(t)
	fifo := t.TempDir() + "/log"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	p := startZkq(t, where, "--log-level", "trace", "consume", "--joblog", fifo, "jobs", "--", "true")
	p.stdin.Close()
	sent := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(sent)
		for { // the first ones may come before the test has asked for them
			p.cmd.Process.Signal(syscall.SIGINT)
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	_, code := p.end()
	close(done)
	<-sent
	if ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus); code != 130 && ws.Signal() != syscall.SIGINT {
		t.Errorf("exit %d, %v", code, ws)
	}
}
