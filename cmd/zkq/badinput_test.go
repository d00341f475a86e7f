package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testetcd"
	"github.com/zkq/zkq/internal/testneed"
	"github.com/zkq/zkq/internal/testrace"
	"github.com/zkq/zkq/internal/testtls"
	"github.com/zkq/zkq/internal/testzk"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// backend is a place on one coordinator. By is a URL that leads there; reached reports whether a client used it.
type backend struct {
	by, past string
	reached  func() bool
}

// onEvery runs a test on the embedded store, on etcd and on ZooKeeper, beside each other.
func onEvery(t *testing.T, test func(t *testing.T, b backend)) {
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		dir, err := os.MkdirTemp("", "zq") // a unix socket's path must be short
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		test(t, backend{"local:" + dir, "local:" + dir, func() bool {
			_, err := os.Stat(filepath.Join(dir, "sock"))
			return err == nil
		}})
	})
	onBoth(t, func(t *testing.T, l link, by, past string) {
		dials := 0
		test(t, backend{by + "/bad" + t.Name()[4:8], past + "/bad" + t.Name()[4:8], func() bool {
			before := dials
			dials = l.Dials()
			return dials > before
		}})
	})
}

// nodes are what stands at the backend: each with its value and the fence, which moves with every write.
func (b backend) nodes(t *testing.T) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := b.open(t)
	defer c.Close()
	s, err := c.Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, dir := range []string{"/", "/jobs", "/jobs/entries", "/jobs/taken", "/jobs/broken", "/jobs/attempts", "/plain"} {
		for _, values := range []bool{false, true} {
			l, err := s.List(ctx, dir, coord.ListOptions{Values: values, Fresh: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range l.Nodes {
				found[n.Path] = fmt.Sprintf("%x %q", n.Fence, n.Value)
			}
		}
	}
	return found
}

func (b backend) open(t *testing.T) coord.Coordinator {
	t.Helper()
	where, err := parseTarget(b.past, environment{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := openCoordinator(t.Context(), where, openOptions{sessionTimeout: 30 * time.Second, connectTimeout: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (b backend) put(t *testing.T, queue string) {
	t.Helper()
	if _, stderr, code := zkqAt(t, b.past, "put", queue, "x\n"); code != 0 {
		t.Fatalf("put: exit %d, %q", code, stderr)
	}
}

// wellSaid demands one line with the error, perhaps one with a hint, and with wrong usage one with the usage.
func wellSaid(t *testing.T, code int, stderr string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	good := strings.HasPrefix(lines[0], "zkq: ") && !strings.HasPrefix(lines[0], "zkq: hint: ")
	rest := lines[1:]
	if len(rest) > 0 && strings.HasPrefix(rest[0], "zkq: hint: ") {
		rest = rest[1:]
	}
	if code == exitUsage {
		good = good && len(rest) == 1 && strings.HasPrefix(rest[0], "usage: zkq ")
	} else {
		good = good && len(rest) == 0
	}
	if !good {
		t.Errorf("stderr is %q, want the error, a hint at most, and with exit 2 the usage", stderr)
	}
}

func TestRefusedCommandsChangeNothing(t *testing.T) {
	onEvery(t, func(t *testing.T, b backend) {
		holder := b.open(t)
		defer holder.Close()
		q := zkq.NewLockingQueue(holder, "jobs")
		defer q.Close()
		plain := zkq.NewQueue(holder, "plain")
		defer plain.Close()
		var names []string
		for range 3 {
			name, err := q.Put(t.Context(), []byte("v"))
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		held, gone := names[0], names[2]
		for range 2 {
			if _, err := q.Take(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.Remove(t.Context(), gone, false); err != nil {
			t.Fatal(err)
		}
		if _, err := plain.Put(t.Context(), []byte("v")); err != nil {
			t.Fatal(err)
		}
		before := b.nodes(t)
		dir := t.TempDir()
		for _, tt := range []struct {
			line []string
			code int
			says string
		}{
			{[]string{"put", "a//b", "v"}, exitUsage, "empty segment at byte 2"},
			{[]string{"put", "-p", "1000", "jobs", "v"}, exitUsage, `"1000": allowed are 0 to 999`},
			{[]string{"put", "-p", "1", "-p", "2", "jobs", "v"}, exitUsage, "-p is given twice"},
			{[]string{"put", "-l", "-l", "jobs"}, exitUsage, "-l is given twice"},
			{[]string{"--progress", "auto", "--progress=never", "stat", "jobs"}, exitUsage, "--progress is given twice"},
			{[]string{"get", "-w", "1s", "--wait", "2s", "jobs"}, exitUsage, "two forms"},
			{[]string{"put", "-p"}, exitUsage, "needs an argument"},
			{[]string{"get", "-w", "-1s", "jobs"}, exitUsage, `"-1s"`},
			{[]string{"--session-timeout", "25h", "stat", "jobs"}, exitUsage, "timeout"},
			{[]string{"putt", "jobs", "v"}, exitUsage, `unknown command "putt"`},
			{[]string{"get", "--rawr", "jobs"}, exitUsage, "unknown flag --rawr"},
			{[]string{"put", "jobs", "v", "-p", "1"}, exitUsage, "-p stands after an argument"},
			{[]string{"purge", "jobs"}, exitUsage, "--yes"},
			{[]string{"put", "plain", "v"}, exitUsage, "other layout"},
			{[]string{"--layout", "locking", "get", "plain"}, exitUsage, "other layout"},
			{[]string{"--layout", "plain", "put", "jobs", "v"}, exitUsage, "other layout"},
			{[]string{"--layout", "plain", "consume", "plain"}, exitUsage, "locking layout"},
			{[]string{"put", "--file", filepath.Join(dir, "missing"), "jobs"}, exitFailed, "no such file"},
			{[]string{"put", "--file", dir, "jobs"}, exitFailed, "is a directory"},
			{[]string{"rm", "jobs", held}, exitFailed, "is held"},
			{[]string{"rm", "jobs", gone}, exitNothing, gone},
			{[]string{"peek", "jobs", gone}, exitNothing, gone},
			{[]string{"peek", "jobs", "x"}, exitUsage, "entry-PPP"},
			{[]string{"release", "--force", "jobs", gone}, exitNothing, gone},
			{[]string{"get", "jobs"}, exitNothing, "nothing there"},
			{[]string{"get", "-w", "100ms", "jobs"}, exitNothing, "nothing came in time"},
			{[]string{"peek", "jobs"}, exitNothing, "nothing there"},
			{[]string{"wait", "--timeout", "0", "jobs"}, exitNothing, "2 entries are left"},
		} {
			stdout, stderr, code := zkqAt(t, b.past, tt.line...)
			if code != tt.code || stdout != "" || !strings.Contains(stderr, tt.says) {
				t.Errorf("zkq %s: exit %d, %q, %q; want exit %d, nothing, %q", quoteLine(tt.line), code, stdout, stderr, tt.code, tt.says)
			}
			wellSaid(t, code, stderr)
			if strings.HasPrefix(tt.line[0], "pu") || tt.line[0] == "rm" || code != tt.code {
				if after := b.nodes(t); !maps.Equal(before, after) {
					t.Fatalf("zkq %s: changed %v to %v", quoteLine(tt.line), before, after)
				}
			}
		}
		if after := b.nodes(t); !maps.Equal(before, after) {
			t.Fatalf("changed %v to %v", before, after)
		}
	})
}

// The null device is a stream like any other, however it was opened: Python's DEVNULL
// and daemon(3) open it for reading and writing.
func TestNullDeviceOpenForBothIsNoClosedStream(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	where := "local:" + shortDir(t)
	for _, args := range [][]string{{"put", "jobs"}, {"put", "jobs", "x"}, {"peek", "jobs"}, {"get", "jobs"}, {"consume", "--drain", "jobs"}} {
		p := newProcess(t, where, "zkq", args...)
		p.stdin.Close()
		p.cmd.Stdin, p.cmd.Stdout = null, null
		p.start(t)
		if _, code := p.end(); code != exitDone {
			t.Errorf("zkq %s: exit %d, %s", quoteLine(args), code, &p.stderr)
		}
	}
	if out, _, _ := zkqAt(t, where, "stat", "jobs"); !strings.HasPrefix(out, "jobs\t0\t0\t0\t0\t0\t") {
		t.Errorf("left: %s", out)
	}
}

func TestFullStandardOutputLosesNothing(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		testneed.Missing(t, "full disk", "Linux has /dev/full")
	}
	onEvery(t, func(t *testing.T, b backend) {
		if _, stderr, code := zkqAt(t, b.past, "put", "jobs", "a", "b"); code != 0 {
			t.Fatal(code, stderr)
		}
		for _, line := range []string{"zkq get jobs", "zkq get -n 5 --raw jobs", "zkq consume --drain jobs", "zkq consume -n 2 --backoff 0 jobs -- cat /dev/stdin /dev/null", "zkq peek jobs", "zkq ls jobs", "zkq stat jobs"} {
			p := startCommand(t, b.past, "sh", "-c", line+" >/dev/full")
			p.stdin.Close()
			_, code := p.end()
			if want := "no space left on device"; strings.Contains(line, "cat") {
				if code != exitSome { // CMD failed, and said why itself
					t.Errorf("%s: exit %d, %q", line, code, &p.stderr)
				}
			} else if code != exitFailed || !strings.Contains(p.stderr.String(), want) {
				t.Errorf("%s: exit %d, %q", line, code, &p.stderr)
			}
		}
		if out, stderr, code := zkqAt(t, b.past, "get", "-n", "5", "jobs"); code != 0 || out != "a\nb\n" {
			t.Errorf("get: exit %d, %q, %q", code, out, stderr)
		}
	})
}

// TestSignalsEndEveryCommand sends the first signal to commands that wait, and finds the queue as it was.
func TestSignalsEndEveryCommand(t *testing.T) {
	signals := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}
	if testrace.Enabled { // zkq takes a second to start and to end
		signals = signals[:1]
	}
	onEvery(t, func(t *testing.T, b backend) {
		for _, signal := range signals {
			for _, c := range []struct {
				line []string
				code int
			}{
				{[]string{"get", "-w", "forever", "empty"}, 128 + int(signal)},
				{[]string{"--layout", "plain", "get", "-w", "1h", "none"}, 128 + int(signal)},
				{[]string{"put", "-l", "jobs"}, 128 + int(signal)},
				{[]string{"put", "jobs"}, 128 + int(signal)},
				{[]string{"wait", "jobs"}, 128 + int(signal)},
				{[]string{"consume", "work"}, exitDone},
				{[]string{"consume", "-j", "3", "work", "--", "cat"}, exitDone},
				{[]string{"serve"}, exitDone},
			} {
				if c.line[0] == "serve" && b.by != b.past {
					continue
				}
				if c.line[0] == "wait" {
					b.put(t, "jobs")
				}
				b.reached()
				p := startZkq(t, b.by, c.line...)
				if c.line[0] == "consume" { // a signal that comes before it could consume ends it like the others
					b.put(t, "work")
					if line, err := p.stdout.ReadString('\n'); line != "x\n" {
						t.Fatalf("zkq %s: %q, %v: %s", quoteLine(c.line), line, err, &p.stderr)
					}
				}
				for end := time.Now().Add(3 * time.Minute); !b.reached(); time.Sleep(5 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("zkq %s did not reach its coordinator: %s", quoteLine(c.line), &p.stderr)
					}
				}
				p.cmd.Process.Signal(signal)
				stdout, code := p.end()
				if c.code == exitDone && c.line[0] == "consume" {
					stdout = strings.TrimPrefix(stdout, "\n") // after the value
				}
				if code != c.code || stdout != "" {
					t.Errorf("%v of zkq %s: exit %d, want %d; %q, %q", signal, quoteLine(c.line), code, c.code, stdout, &p.stderr)
				}
				if code > 128 {
					wellSaid(t, code, p.stderr.String())
				}
			}
		}
	})
}

// TestUselessConnectionsExitWith5 has each way in which a server is there and cannot be used.
func TestUselessConnectionsExitWith5(t *testing.T) {
	const secret = "correct-horse-battery"
	ca, other := testtls.NewAuthority(t, "ca"), testtls.NewAuthority(t, "other")
	local := net.IPv4(127, 0, 0, 1)
	ca.Leaf(t, "server", local)
	ca.Leaf(t, "elsewhere", net.IPv4(127, 9, 9, 9))
	ca.LeafUntil(t, "late", time.Now().Add(-time.Hour), local)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	for scheme, server := range map[string]string{"etcd": etcdServer(t).Endpoints()[0], "zk": zooKeepers.Single(t).Addresses()[0]} {
		silent := listen(t, func(net.Conn) {})
		dead := listen(t, func(net.Conn) {})
		dead.close()
		front := func(name string) string { return tlsFront(t, ca.Pair(t, name), server).address }
		good := front("server")
		for _, c := range []struct {
			what, scheme, address string
			env                   []string
			says                  string
		}{
			{"nobody there", scheme, dead.address, nil, "refused"},
			{"nobody there, with TLS", scheme + "s", dead.address, nil, "refused"},
			{"no answer", scheme, silent.address, nil, "no answer"},
			{"no answer, with TLS", scheme + "s", silent.address, nil, ""},
			{"wrong authority", scheme + "s", good, []string{"ZKQ_CA_FILE=" + other.File("other", "crt")}, "unknown authority"},
			{"wrong host", scheme + "s", front("elsewhere"), []string{"ZKQ_CA_FILE=" + ca.File("ca", "crt")}, "127.9.9.9"},
			{"expired", scheme + "s", front("late"), []string{"ZKQ_CA_FILE=" + ca.File("ca", "crt")}, "expired"},
			{"plain text to TLS", scheme, good, nil, map[string]string{"etcd": "TLS", "zk": "closed the connection"}[scheme]},
			{"TLS to plain text", scheme + "s", server, []string{"ZKQ_CA_FILE=" + ca.File("ca", "crt")}, "TLS"},
		} {
			t.Run(scheme+", "+c.what, func(t *testing.T) {
				t.Parallel()
				p := newProcess(t, c.scheme+"://"+c.address+"/x", "zkq", "--connect-timeout", "8s", "put", "jobs", "v")
				p.cmd.Env = append(p.cmd.Env, "ZKQ_USER=ann", "ZKQ_PASSWORD_FILE="+password)
				p.cmd.Env = append(p.cmd.Env, c.env...)
				begun := time.Now()
				p.start(t)
				stdout, code := p.end()
				if took := time.Since(begun); took > time.Minute {
					t.Errorf("took %v", took)
				}
				stderr := p.stderr.String()
				if code != exitUnreachable || stdout != "" || !strings.Contains(stderr, c.says) || !strings.Contains(stderr, c.address) {
					t.Errorf("exit %d, %q, %q; want exit 5, nothing, %q and the address", code, stdout, stderr, c.says)
				}
				wellSaid(t, code, stderr)
				if strings.Contains(stderr, secret) {
					t.Errorf("the password shows: %q", stderr)
				}
			})
		}
	}
}

func TestWrongPasswordsExitWith5AndMissingRightsWith1(t *testing.T) {
	const secret = "correct-horse-battery"
	dir := t.TempDir()
	for name, text := range map[string]string{"right": secret, "wrong": secret + "!"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	guarded := testetcd.StartFor(t, 1, testetcd.Options{})
	admin := guarded.Client(t)
	for _, err := range []error{
		second(admin.RoleAdd(t.Context(), "root")),
		second(admin.UserAdd(t.Context(), "root", "root")),
		second(admin.UserGrantRole(t.Context(), "root", "root")),
		second(admin.RoleAdd(t.Context(), "ours")),
		second(admin.RoleGrantPermission(t.Context(), "ours", "/ours/", "/ours0", clientv3.PermissionType(clientv3.PermReadWrite))),
		second(admin.UserAdd(t.Context(), "ann", secret)),
		second(admin.UserGrantRole(t.Context(), "ann", "ours")),
		second(admin.AuthEnable(t.Context())),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		what, prefix, user, password string
		code                         int
	}{
		{"right", "/ours", "ann", "right", exitDone},
		{"a wrong password", "/ours", "ann", "wrong", exitUnreachable},
		{"an unknown user", "/ours", "bob", "right", exitUnreachable},
		{"another's prefix", "/theirs", "ann", "right", exitFailed},
	} {
		p := newProcess(t, "etcd://"+guarded.Endpoints()[0]+c.prefix, "zkq", "put", "jobs", "v")
		p.cmd.Env = append(p.cmd.Env, "ZKQ_USER="+c.user, "ZKQ_PASSWORD_FILE="+filepath.Join(dir, c.password))
		p.start(t)
		stdout, code := p.end()
		stderr := p.stderr.String()
		if code != c.code || (stdout != "") != (c.code == exitDone) || strings.Contains(stderr, secret) {
			t.Errorf("%s: exit %d, %q, %q; want exit %d", c.what, code, stdout, stderr, c.code)
		}
		if code != exitDone {
			wellSaid(t, code, stderr)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// listening is a server of the test's own.
type listening struct {
	address string
	close   func()
}

// listen gives each connection to serve, until the test ends.
func listen(t *testing.T, serve func(net.Conn)) listening {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	var conns []net.Conn
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			all.Go(func() { serve(c) })
		}
	})
	end := func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	}
	t.Cleanup(end)
	return listening{l.Addr().String(), end}
}

// tlsFront puts TLS before a real server.
func tlsFront(t *testing.T, cert tls.Certificate, server string) listening {
	return listen(t, func(c net.Conn) {
		defer c.Close()
		encrypted := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
		if encrypted.Handshake() != nil {
			return
		}
		up, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		var back sync.WaitGroup
		back.Go(func() {
			io.Copy(up, encrypted)
			up.Close()
		})
		io.Copy(encrypted, up)
		c.Close()
		back.Wait()
	})
}

var (
	_ link = (*testetcd.Link)(nil)
	_ link = (*testzk.Link)(nil)
)
