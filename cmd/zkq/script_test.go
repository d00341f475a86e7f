package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts run real zkq processes. Those in testdata/script, one for each verb,
// run on every coordinator; those in testdata/local are about the embedded store.
//
// Besides testscript's commands there are:
//
//	exits N zkq …      run it, and demand this exit code; stdout and stderr can be asked for after it
//	spawn NAME zkq …   run it in the background; output goes to NAME.out and NAME.err
//	send NAME SIGNAL   send it a signal: INT, TERM, KILL, STOP, CONT
//	ended NAME N       wait until it has ended, and demand this exit code
//	until CMD …        repeat a command until it succeeds, three minutes at the most
//	nothing FILE       demand that a file is empty or not there

func TestScriptsOnTheEmbeddedStore(t *testing.T) {
	for _, dir := range []string{"testdata/script", "testdata/local"} {
		runScripts(t, dir, func(e *testscript.Env) error {
			// A unix socket's path must be short.
			dir, err := os.MkdirTemp("", "zq")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(dir) })
			e.Setenv("STORE", dir)
			e.Setenv("ZKQ_COORDINATOR", "local:"+dir)
			e.Setenv("ZKQ_SESSION_TIMEOUT", longSession)
			return nil
		})
	}
}

func TestScriptsOnEtcd(t *testing.T) {
	runScripts(t, "testdata/script", onServers("etcd", etcdServer(t).Endpoints()))
}

func TestScriptsOnZooKeeper(t *testing.T) {
	runScripts(t, "testdata/script", onServers("zk", zooKeepers.Single(t).Addresses()))
}

// longSession is a session timeout that a busy machine keeps. Where a script kills a process, what
// that held comes back after its session, so it asks for a shorter one.
const longSession = "30s"

var scripts atomic.Int64

// onServers gives each script a place of its own.
func onServers(scheme string, addresses []string) func(*testscript.Env) error {
	return func(e *testscript.Env) error {
		e.Setenv("ZKQ_COORDINATOR", fmt.Sprintf("%s://%s/zkqtest%d-%d", scheme, strings.Join(addresses, ","), os.Getpid(), scripts.Add(1)))
		e.Setenv("ZKQ_SESSION_TIMEOUT", longSession)
		return nil
	}
}

func runScripts(t *testing.T, dir string, place func(*testscript.Env) error) {
	if _, err := exec.LookPath("bash"); err != nil && os.Getenv("CI") == "true" {
		t.Fatal("the scripts ask bash how it completes: ", err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("TMPDIR", os.TempDir())
			e.Setenv(goRace, quickExit)
			name, value, _ := strings.Cut(patience, "=")
			e.Setenv(name, value)
			if err := place(e); err != nil {
				return err
			}
			running := map[string]*exec.Cmd{}
			e.Values[spawned{}] = running
			e.Defer(func() {
				for _, cmd := range running {
					cmd.Process.Kill()
					cmd.Wait()
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"spawn":   spawn,
			"send":    send,
			"ended":   ended,
			"until":   until,
			"nothing": empty,
		},
	})
}

// patience has a zkq on a busy machine not give up on a coordinator that is there.
const patience = "ZKQ_CONNECT_TIMEOUT=2m"

// Under the race detector a process would sleep for a second before it exits.
const goRace, quickExit = "GORACE", "atexit_sleep_ms=0"

type spawned struct{}

func need(ts *testscript.TestScript, neg bool, args []string, n int, usage string) {
	if neg || len(args) < n {
		ts.Fatalf("usage: %s", usage)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "exits N CMD …")
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if err != nil {
		code = -1
		if x, ok := err.(*exec.ExitError); ok {
			code = x.ExitCode()
		}
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit %d, want %s", code, args[0])
	}
}

func spawn(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "spawn NAME CMD …")
	path, err := exec.LookPath(args[1])
	ts.Check(err)
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "WORK", "STORE", "ZKQ_COORDINATOR", "ZKQ_SESSION_TIMEOUT", "ZKQ_CONNECT_TIMEOUT", goRace} {
		if v := ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	stdout, err := os.Create(ts.MkAbs(args[0] + ".out"))
	ts.Check(err)
	defer stdout.Close()
	stderr, err := os.Create(ts.MkAbs(args[0] + ".err"))
	ts.Check(err)
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	ts.Check(cmd.Start())
	ts.Value(spawned{}).(map[string]*exec.Cmd)[args[0]] = cmd
	pid := []byte(strconv.Itoa(cmd.Process.Pid))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pid"), pid, 0o600))
}

func process(ts *testscript.TestScript, name string) *exec.Cmd {
	cmd := ts.Value(spawned{}).(map[string]*exec.Cmd)[name]
	if cmd == nil {
		ts.Fatalf("nothing runs as %s", name)
	}
	return cmd
}

func send(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "send NAME SIGNAL")
	signals := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT}
	ts.Check(process(ts, args[0]).Process.Signal(signals[args[1]]))
}

func ended(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "ended NAME N")
	cmd := process(ts, args[0])
	overdue := time.AfterFunc(5*time.Minute, func() { cmd.Process.Kill() })
	cmd.Wait()
	delete(ts.Value(spawned{}).(map[string]*exec.Cmd), args[0])
	if !overdue.Stop() {
		ts.Fatalf("%s did not end", args[0])
	}
	code := cmd.ProcessState.ExitCode()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		code = -int(ws.Signal())
	}
	if strconv.Itoa(code) != args[1] {
		stderr, _ := os.ReadFile(ts.MkAbs(args[0] + ".err"))
		ts.Fatalf("%s: exit %d, want %s\n%s", args[0], code, args[1], stderr)
	}
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "until CMD …")
	deadline := time.Now().Add(3 * time.Minute)
	for {
		err := ts.Exec(args[0], args[1:]...)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("until %s: still %v", strings.Join(args, " "), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func empty(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "nothing FILE")
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	if err == nil && len(bytes.TrimSpace(b)) > 0 {
		ts.Fatalf("%s holds %q", args[0], b)
	}
}

// Every verb has a script.
func TestEveryVerbHasAScript(t *testing.T) {
	for _, v := range verbs() {
		if v.hidden {
			continue
		}
		if found, _ := filepath.Glob("testdata/*/" + v.name + ".txtar"); len(found) != 1 {
			t.Errorf("%s has the scripts %q", v.name, found)
		}
	}
}
