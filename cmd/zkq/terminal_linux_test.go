package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// onTerminal runs a zkq whose three streams are a terminal, and returns what came to be seen there.
func onTerminal(t *testing.T, coordinator string, args ...string) (seen []byte, code int) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := newProcess(t, coordinator, "zkq", args...)
	p.stdin.Close()
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = terminal, terminal, terminal
	p.start(t)
	terminal.Close()
	shown := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(screen) // ends with an error when no process has the terminal open any more
		shown <- b
	}()
	p.cmd.Wait()
	return <-shown, p.cmd.ProcessState.ExitCode()
}

// screen is what stands on a terminal that was sent this: lines, each of which a carriage return begins
// again.
func screen(seen []byte) []string {
	lines, column := []string{""}, 0
	for _, b := range seen {
		last := &lines[len(lines)-1]
		switch {
		case b == '\r':
			column = 0
		case b == '\n':
			lines, column = append(lines, ""), 0
		case column < len(*last):
			*last = (*last)[:column] + string(b) + (*last)[column+1:]
			column++
		default:
			*last += string(b)
			column++
		}
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}

// What a command prints stands there whole, on lines of its own, and the status below it.
func TestStatusStandsBelowWhatCommandsPrint(t *testing.T) {
	coordinator := "local:" + shortDir(t)
	if _, stderr, code := zkqAt(t, coordinator, "put", "jobs", "1", "2", "3", "4", "5", "6"); code != 0 {
		t.Fatal(stderr)
	}
	seen, code := onTerminal(t, coordinator, "consume", "-j", "2", "--drain", "--retries", "1", "jobs", "--", "sh", "-c",
		`read v; echo "$v begins" >&2; sleep 0.3; echo "out $v"; test "$v" = 5 && exit 1; printf "$v says " >&2; sleep 0.3; echo "goodbye" >&2`)
	if code != exitSome {
		t.Errorf("exit %d", code)
	}
	for i := 0; i < len(seen); i++ {
		if c := seen[i]; c < 0x20 && !strings.ContainsRune("\r\n", rune(c)) {
			t.Fatalf("byte %#x was sent to the terminal", c)
		}
	}
	var want []string
	for v := '1'; v <= '6'; v++ {
		want = append(want, fmt.Sprintf("%c begins", v), fmt.Sprintf("out %c", v))
	}
	lines := screen(seen)
	for _, w := range want {
		// Another process may have begun the line.
		if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasSuffix(line, w) }) {
			t.Errorf("no line ends in %q", w)
		}
	}
	n := len(lines)
	if n < 3 || lines[n-1] != "" || !strings.HasPrefix(lines[n-2], "zkq: consume jobs at ") || !strings.HasSuffix(lines[n-2], ": 1 dead, 5 done") {
		t.Fatalf("the terminal ends in %q", lines[max(0, n-3):])
	}
	if !regexp.MustCompile(`^consume 5 of 6 done, 0 running, 1 dead, [0-9.]+/s$`).MatchString(lines[n-3]) {
		t.Errorf("the status is %q", lines[n-3])
	}
	for _, line := range lines[:n-3] {
		if strings.Contains(line, "consume") || strings.Contains(line, "running") {
			t.Errorf("a status was left behind: %q", line)
		}
	}
	for _, part := range []string{"\rconsume 0 of 6 done, 2 running, 0.0/s", "\rconsume 2 of 6 done, 2 running, "} {
		if !bytes.Contains(seen, []byte(part)) {
			t.Errorf("it never showed %q", part)
		}
	}
	if t.Failed() {
		t.Logf("%q", lines)
	}
}

// One CMD at a time has a status line as well as several.
func TestOneJobHasAStatusLineOnATerminal(t *testing.T) {
	coordinator := "local:" + shortDir(t)
	if _, stderr, code := zkqAt(t, coordinator, "put", "jobs", "1", "2"); code != 0 {
		t.Fatal(stderr)
	}
	seen, code := onTerminal(t, coordinator, "consume", "--drain", "jobs", "--", "sh", "-c", `read v; printf "out $v"; sleep 0.5; echo " ends"`)
	if code != exitDone {
		t.Errorf("exit %d", code)
	}
	lines := screen(seen)
	n := len(lines)
	if n != 4 || lines[0] != "out 1 ends" || lines[1] != "out 2 ends" || !strings.HasPrefix(lines[2], "consume 2 of 2 done, 0 running, ") || lines[3] != "" {
		t.Errorf("the terminal shows %q", lines)
	}
	if !bytes.Contains(seen, []byte("\rconsume 1 of 2 done, ")) {
		t.Errorf("it never showed that one is done: %q", seen)
	}
}

// Whatever the terminal's width.
func TestStatusTakesOneLine(t *testing.T) {
	var w bytes.Buffer
	s := &status{w: &w, width: func() int { return 20 }, begun: time.Now()}
	s.mu.Lock()
	s.draw()
	s.clear()
	s.mu.Unlock()
	s.start()
	s.mu.Lock()
	s.draw()
	s.mu.Unlock()
	for _, line := range strings.Split(w.String(), "\r") {
		if len(line) > 19 {
			t.Errorf("%q is longer than the terminal is wide", line)
		}
	}
	if got := screen(w.Bytes()); len(got) != 1 || got[0] != "consume 0 done, 1 r" {
		t.Errorf("the screen shows %q", got)
	}
}

// control is the first control character in what a terminal was sent, other than the ends of lines and tabs.
func control(seen []byte) (at int, found bool) {
	for i := 0; i < len(seen); {
		r, size := utf8.DecodeRune(seen[i:])
		switch {
		case r == utf8.RuneError && size == 1, r == 0x7f, r >= 0x80 && r <= 0x9f, r < 0x20 && !strings.ContainsRune("\r\n\t", r):
			return i, true
		}
		i += size
	}
	return 0, false
}

func TestHostileDataReachesNoTerminalAndStopsNobody(t *testing.T) {
	const escapes = "\x1b[2J\x1b]0;owned\a\u009b31m\x00\xff\xfe\r\b"
	onEvery(t, func(t *testing.T, b backend) {
		c := b.open(t)
		defer c.Close()
		s, err := c.Session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		q := zkq.NewLockingQueue(c, "jobs")
		defer q.Close()
		var names []string
		values := []string{escapes, "\x00zkq\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f{}", "\x00zkq\x01\x02[]x", strings.Repeat("\x1b", 1000), "good"}
		put := func(v string) {
			t.Helper()
			name, err := q.Put(t.Context(), []byte(v))
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		for _, v := range values {
			put(v)
		}
		put("a stranger's") // held below by a lock that is none
		nodes := map[string]string{
			"/jobs/taken/" + names[5]:    escapes,
			"/jobs/taken/entry-100-gone": escapes,
			"/jobs/attempts/" + names[0]: escapes,

			"/jobs/dead/1-x":                       escapes,
			"/jobs/broken/x":                       escapes,
			"/jobs/dead/0000000000001-" + names[0]: escapes,
			// An envelope that says it is longer than it is, and one of nothing.
			"/jobs/entries/entry-100-0000000009": "\x00zkq\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02",
			"/jobs/entries/entry-100-0000000008": "\x00zkq\x01",
		}
		for _, name := range []string{"garbage", "entry-1000-0000000001", "entry-100--2147483648", "entry-99999999999999999999-1", "entry-" + strings.Repeat("9", 999), "entry-100-99999999999"} {
			nodes["/jobs/entries/"+name] = escapes
		}
		for path, value := range nodes {
			if _, err := s.Commit(t.Context(), coord.Create(path, []byte(value))); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		b.strange(t, "/jobs/entries/entry-100-\x1b[31m", "/jobs/entries/\x1b]0;owned\a", "/jobs/entries/\xff\xfe", "/jobs/taken/\x1b[31m",
			"/evil\x1b[31m/entries/entry-100-0000000001", "/\xff\xfe/entry-100-0000000001", "/a b/../entry-100-0000000001")

		for _, line := range [][]string{
			{"ls", "jobs"},
			{"-o", "json", "ls", "jobs"},
			{"stat", "jobs"},
			{"stat"},
			{"-o", "json", "stat"},
			{"doctor"},
			{"--log-level", "trace", "peek", "jobs"},
			{"peek", "--raw", "jobs"},
			{"-o", "json", "peek", "jobs"},
			{"get", "jobs"},
			{"get", "-n", "9", "--raw", "jobs"},
			{"ls", "--state", "dead", "jobs"},
			{"release", "--force", "jobs", names[5]},
			{"consume", "--drain", "jobs"},
			{"put", "jobs", escapes[:4]},
			{"purge", "--yes", "jobs"},
			{"ls", "jobs"},
		} {
			seen, code := onTerminal(t, b.past, line...)
			if code != exitDone {
				t.Errorf("zkq %s: exit %d: %q", quoteLine(line), code, seen)
			}
			if i, found := control(seen); found {
				t.Errorf("zkq %s shows byte %#x as it is: …%q", quoteLine(line), seen[i], seen[max(0, i-40):min(len(seen), i+20)])
			}
			if line[0] == "stat" && len(line) == 1 && !bytes.Contains(seen, []byte("jobs ")) {
				t.Errorf("zkq stat does not name the queue: %q", seen)
			}
		}
		for _, name := range []string{"garbage", "entry-100--2147483648"} {
			if _, err := s.Get(t.Context(), "/jobs/entries/"+name); err != nil {
				t.Errorf("%s, which is not ours, is gone: %v", name, err)
			}
		}
	})
}

// strange creates nodes whose names only etcd's other clients can make: ZooKeeper refuses them.
func (b backend) strange(t *testing.T, paths ...string) {
	t.Helper()
	where, err := parseTarget(b.past, environment{})
	if err != nil {
		t.Fatal(err)
	}
	endpoints := where.hosts
	switch where.scheme {
	case "zk":
		return
	case "local":
		endpoints = []string{"unix://" + where.dir + "/sock"}
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop(), DialTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, path := range paths {
		if _, err := c.Put(t.Context(), where.prefix+path, "\x1b[31m"); err != nil {
			t.Fatal(err)
		}
	}
}
