package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue/embedded"
)

// The test binary is also the other processes: with roleEnv set it plays a part,
// speaks in lines on stdout and leaves in order when stdin ends or SIGTERM comes.
const (
	roleEnv = "ZKQ_EMBEDDED_TEST_ROLE"
	argEnv  = "ZKQ_EMBEDDED_TEST_ARG"
	dirEnv  = "ZKQ_EMBEDDED_TEST_DIR"
)

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		goleak.VerifyTestMain(m)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := roles[role](ctx, os.Getenv(dirEnv), os.Getenv(argEnv)); err != nil {
		fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
	fmt.Println("end")
	os.Exit(0)
}

var roles = map[string]func(ctx context.Context, dir, arg string) error{
	// join opens the store and waits.
	"join": func(ctx context.Context, dir, _ string) error {
		c, err := open(ctx, dir)
		if err != nil {
			return err
		}
		_, self := c.Owner()
		fmt.Println("open", self)
		<-ctx.Done()
		return c.Close()
	},
	// create creates a node, and says so at once.
	"create": func(ctx context.Context, dir, arg string) error {
		c, err := open(ctx, dir)
		if err != nil {
			return err
		}
		s, err := c.Session(ctx)
		if err == nil {
			_, err = s.Commit(ctx, coord.Create(arg, nil))
		}
		if err == nil {
			fmt.Println("created", arg)
		}
		return errors.Join(err, c.Close())
	},
	// files opens the store with a limit of open files.
	"files": func(ctx context.Context, dir, arg string) error {
		n, err := strconv.ParseUint(arg, 10, 64)
		if err == nil {
			err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n})
		}
		if err != nil {
			return err
		}
		c, err := open(ctx, dir)
		if err == nil {
			return c.Close()
		}
		hint := ""
		if h := (*embedded.StoreError)(nil); errors.As(err, &h) {
			hint = h.Hint()
		}
		return fmt.Errorf("%w: %s", err, hint)
	},
	// put is a one-shot command.
	"put": func(ctx context.Context, dir, arg string) error {
		c, err := open(ctx, dir)
		if err != nil {
			return err
		}
		s, err := c.Session(ctx)
		if err != nil {
			return err
		}
		if _, err := s.Commit(ctx, coord.CreateSequential("/q/entries/entry-100-", []byte(arg))); err != nil {
			return err
		}
		return c.Close()
	},
	// hold holds a lock.
	"hold": func(ctx context.Context, dir, arg string) error {
		c, err := open(ctx, dir)
		if err != nil {
			return err
		}
		s, err := c.Session(ctx)
		if err != nil {
			return err
		}
		if _, err := s.Commit(ctx, coord.CreateEphemeral(arg, nil)); err != nil {
			return err
		}
		fmt.Println("held")
		<-ctx.Done()
		return c.Close()
	},
	// write creates nodes one after the other, in one session, and says of each
	// what became of it.
	"write": func(ctx context.Context, dir, arg string) error {
		c, err := open(ctx, dir)
		if err != nil {
			return err
		}
		s, err := c.Session(ctx)
		if err != nil {
			return err
		}
		fmt.Println("open")
		for i := 0; ctx.Err() == nil; i++ {
			path := fmt.Sprintf("/w/%s-%06d", arg, i)
			began := time.Now()
			_, err := s.Commit(context.WithoutCancel(ctx), coord.Create(path, nil))
			switch {
			case err == nil:
				fmt.Println("wrote", path, time.Since(began).Milliseconds())
			case errors.Is(err, coord.ErrUnknown):
				fmt.Println("unknown", path, time.Since(began).Milliseconds())
			default:
				return fmt.Errorf("create %s: %w", path, err)
			}
			time.Sleep(2 * time.Millisecond)
		}
		return c.Close()
	},
	// alone checks that no other process runs the store while this one does.
	"alone": func(ctx context.Context, dir, arg string) error {
		for range 3 {
			c, err := open(ctx, dir)
			if err != nil {
				return err
			}
			runtime.GC()
			if _, self := c.Owner(); self {
				witness, err := os.OpenFile(arg, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return fmt.Errorf("another owner: %w", err)
				}
				for range 5 {
					runtime.GC()
				}
				time.Sleep(20 * time.Millisecond)
				if err := errors.Join(witness.Close(), os.Remove(arg)); err != nil {
					return err
				}
				fmt.Println("owned")
			}
			if err := c.Close(); err != nil {
				return err
			}
		}
		return nil
	},
	// parent runs the store and a child process that outlives it.
	"parent": func(ctx context.Context, dir, _ string) error {
		c, err := open(ctx, dir)
		if err != nil {
			return err
		}
		child := exec.Command("sleep", "600")
		if err := child.Start(); err != nil {
			return err
		}
		fmt.Println("open", child.Process.Pid)
		<-ctx.Done()
		child.Process.Kill()
		child.Wait()
		return c.Close()
	},
	"serve": func(ctx context.Context, dir, _ string) error {
		fmt.Println("open")
		return embedded.Serve(ctx, embedded.Config{
			Dir:            dir,
			ConnectTimeout: 5 * time.Second,
			Serving:        func() { fmt.Println("serving") },
		})
	},
}

func open(ctx context.Context, dir string) (*embedded.Coordinator, error) {
	return embedded.Open(ctx, embedded.Config{
		Dir:            dir,
		ConnectTimeout: 2 * time.Minute, // many processes on few cores
		SessionTimeout: longSession,
		Warn:           func(s string) { fmt.Fprintln(os.Stderr, "warn", s) },
	})
}

// longSession is a session timeout that a busy machine keeps. A process that ends is noticed sooner.
const longSession = time.Minute

// process is another process.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.Closer
	lines chan string
}

func start(t *testing.T, role, dir, arg string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, dirEnv+"="+dir, argEnv+"="+arg)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, in: in, lines: make(chan string, 100_000)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
		cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	return p
}

// expect returns what follows the word on the next line, which must begin with it.
func (p *process) expect(word string) string {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		rest, found := strings.CutPrefix(line, word)
		if !ok || !found {
			p.t.Fatalf("process %d said %q (%v), want %q", p.pid(), line, ok, word)
		}
		return strings.TrimSpace(rest)
	case <-time.After(patience):
		p.t.Fatalf("process %d did not say %q within %v", p.pid(), word, patience)
	}
	return ""
}

// patience bounds what should take no time at all.
const patience = 2 * time.Minute

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	if sig == syscall.SIGSTOP { // its threads stop one by one, on a busy machine late
		eventually(p.t, patience, "every thread has stopped", p.stands)
	}
}

// stands says whether every thread of the process is stopped, where the system
// tells.
func (p *process) stands() bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.pid()))
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if _, after, ok := strings.Cut(string(b), ") "); err == nil && ok && !strings.HasPrefix(after, "T") {
			return false
		}
	}
	return true
}

// rest lets the process leave in order and returns the lines before its "end".
func (p *process) rest() []string {
	p.t.Helper()
	p.in.Close()
	return p.all()
}

func (p *process) all() []string {
	p.t.Helper()
	var lines []string
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("process %d ended without an end: %q", p.pid(), tail(lines))
			}
			if line == "end" {
				return lines
			}
			if strings.HasPrefix(line, "error") {
				p.t.Fatalf("process %d: %s", p.pid(), line)
			}
			lines = append(lines, line)
		case <-deadline:
			p.t.Fatalf("process %d did not end within %v", p.pid(), patience)
		}
	}
}

// killed returns the lines of a process that was killed.
func (p *process) killed() []string {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	var lines []string
	for line := range p.lines {
		lines = append(lines, line)
	}
	return lines
}

// ended returns the lines of a process that ends, however it does.
func (p *process) ended() []string {
	p.t.Helper()
	var lines []string
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				return lines
			}
			lines = append(lines, line)
		case <-deadline:
			p.t.Fatalf("process %d did not end within %v", p.pid(), patience)
		}
	}
}

// contains reports whether text contains all the words.
func contains(text string, words ...string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

func tail(lines []string) []string { return lines[max(0, len(lines)-5):] }

// newDir names a directory that is not there yet.
func newDir(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "zkq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	return parent + "/q"
}

func session(t *testing.T, dir string) (*embedded.Coordinator, coord.Session) {
	t.Helper()
	c, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	s, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(time.Millisecond)
	}
}
