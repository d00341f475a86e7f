package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// roleVariable says what else this program is to be: etcd, NATS, or what slows a server's disk.
const roleVariable = "ZKQ_BENCH_ROLE"

// process is a server of one of the systems, with a directory of its own.
type process struct {
	system
	address string
	dir     string
	syncs   string // where what slows its disk counts the syncs; "" without
	args    []string
	env     []string
	cmd     *exec.Cmd
	exited  chan struct{}
}

// system is how a server is run.
type system struct {
	name   string
	how    func(port int, dir string) (command, error)
	serves func(ctx context.Context, address string) error // says why not yet
}

// errMissing says that this machine lacks a system.
var errMissing = errors.New("not on this machine")

// command is how a server is started: the arguments, and the role of a process that is this program.
type command struct {
	args []string
	role string
	from string // Debian's package
	as   string // the user it must run as when we are root
}

// start runs a server on a port of the kernel's choice until stop.
func (b *bench) start(ctx context.Context, slow bool, y system) (*process, error) {
	var err error
	for range 3 { // another process may have taken the port between this look and the server's
		var s *process
		if s, err = b.place(slow, y); err == nil {
			err = s.launch(ctx)
		}
		if err == nil {
			b.servers = append(b.servers, s)
			return s, nil
		}
		if s != nil {
			s.stop()
		}
		if errors.Is(err, errMissing) || ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("%s: %w", y.name, err)
}

// place chooses port and directory, and puts the command line together.
func (b *bench) place(slow bool, y system) (*process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.dir, y.name+"-")
	if err != nil {
		return nil, err
	}
	s := &process{system: y, address: fmt.Sprintf("127.0.0.1:%d", port), dir: dir, env: os.Environ()}
	c, err := y.how(port, dir)
	if err != nil {
		return s, err
	}
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	args := c.args
	if c.role != "" {
		args = append([]string{self}, c.args...)
		s.env = append(s.env, roleVariable+"="+c.role)
	}
	if args[0], err = exec.LookPath(args[0]); err != nil {
		return s, fmt.Errorf("%w: %s: make bench-deps", errMissing, c.from)
	}
	if c.as != "" && os.Geteuid() == 0 {
		setpriv, err := exec.LookPath("setpriv")
		if err != nil {
			return s, fmt.Errorf("%w: setpriv: make bench-deps", errMissing)
		}
		args = append([]string{setpriv, "--reuid=" + c.as, "--regid=" + c.as, "--clear-groups", "--pdeathsig=KILL", "--"}, args...)
	}
	if slow {
		s.syncs = filepath.Join(dir, "syncs")
		args = append([]string{self, s.syncs, slowSync.String()}, args...)
		s.env = append(s.env, slowVariable+"=supervisor")
	}
	s.args = args
	return s, nil
}

// launch runs the process and returns when it serves.
func (s *process) launch(ctx context.Context) error {
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.args[0], s.args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env, log, log
	cmd.SysProcAttr = diesWithParent()
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := s.serves(try, s.address)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("ended: %s", s.log())
		case <-ctx.Done():
			return fmt.Errorf("does not serve: %w: %s", err, s.log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// restart kills the server and runs it again with what it has on its disk.
func (s *process) restart(ctx context.Context) error {
	s.kill()
	return s.launch(ctx)
}

// stop ends the process at once and removes what it wrote.
func (s *process) stop() {
	s.kill()
	os.RemoveAll(s.dir)
}

func (s *process) kill() {
	if s.exited == nil {
		return
	}
	if s.syncs != "" { // what stands beside it ends it
		s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.exited:
		case <-time.After(5 * time.Second):
		}
	}
	s.cmd.Process.Kill()
	<-s.exited
}

// synced is how often the server has synced its files, where that is counted.
func (s *process) synced() int {
	b, err := os.ReadFile(s.syncs)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(string(bytes.TrimSpace(b)))
	return n
}

func (s *process) log() string {
	b, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(b[max(0, len(b)-2048):])
}

// stop ends all servers.
func (b *bench) stop() {
	for _, s := range b.servers {
		s.stop()
	}
	b.servers = nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func diesWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
