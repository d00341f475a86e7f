package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// subreaper becomes the command that its arguments are, as a process to which the
// kernel gives orphans: as PID 1 of a container is.
func subreaper() {
	path, err := exec.LookPath(os.Args[1])
	if err == nil {
		if err = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err == nil {
			err = syscall.Exec(path, os.Args[1:], os.Environ())
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func init() { commands["subreaper"] = subreaper }

// Processes that CMDs leave behind become children of a zkq that is PID 1. They end
// as zombies unless it waits for them, and that must take no CMD's exit status away.
func TestOrphansAreReaped(t *testing.T) {
	const entries = 20
	f := newFleet(t, "local:"+shortDir(t))
	f.zkq("put", "jobs", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19", "20")
	log := filepath.Join(f.dir, "log")
	p := newProcess(t, f.where, "subreaper", "zkq", "consume", "-j", "4", "--joblog", log, "jobs", "--", "sh", "-c",
		`(sh -c 'echo $$ >>orphans; exec sleep 0.1' >/dev/null 2>&1 &); exit 0`)
	p.cmd.Dir = f.dir
	p.stdin.Close()
	p.start(t)
	defer func() {
		if t.Failed() {
			t.Logf("it said: %s", &p.stderr)
		}
	}()
	f.until("all are done", func() bool { return len(f.attempts(log)) == entries })
	f.until("all orphans began", func() bool { return len(f.lines("orphans")) == entries })
	f.until("no orphan is left", func() bool {
		for _, pid := range f.lines("orphans") {
			if stat, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil && strings.Contains(string(stat), fmt.Sprintf(" %d ", p.cmd.Process.Pid)) {
				return false
			}
		}
		return true
	})
	for _, a := range f.attempts(log) {
		if a.Outcome != outcomeDone || a.Exit == nil {
			t.Errorf("%+v", a)
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, code := p.end(); code != exitDone {
		t.Errorf("exit %d: %s", code, &p.stderr)
	}
}
