package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
)

// secret is in every place where a password can be, and must be in no output.
const secret = "c4n4ry"

// FuzzCLIArgs runs the command, on a coordinator in memory or one that cannot be
// reached, with any words and any coordinator's URL: it ends, with a code of the
// contract, says why in one or a few printable lines, and tells no secret. The
// words are separated by NUL, as no argument can contain it.
func FuzzCLIArgs(f *testing.F) {
	for _, line := range []string{
		"", "help", "--version", "put jobs v", "put -l jobs", "put -0 -p 0 jobs", "put --atomic -l jobs", "put jobs -p 1 v", "put -- jobs -v", "put -p 1000 jobs v",
		"get jobs", "get -n 3 -w 1s --raw jobs", "get -w forever nothing", "--layout plain get jobs", "--layout=plain stat", "consume --drain jobs", "consume -j 1000 -n 7 -w 1m jobs",
		"consume --halt 1 jobs -- false", "consume jobs true", "ls jobs", "ls --state held,ready -n 1 jobs", "-o json ls jobs", "-o json stat", "stat jobs nothing", "peek jobs",
		"peek jobs entry-100-0000000000", "wait --timeout 1s jobs", "rm jobs entry-100-0000000000", "rm --force jobs entry-100-0000000001", "purge jobs", "purge --yes --state held jobs",
		"release --force jobs entry-100-0000000001", "doctor", "completion bash", "__complete put ", "--log-level trace --log-json get jobs", "--progress always put -l jobs",
		"-c zk://h:1,[::1]:2/x doctor", "-c zk://u:c4n4ry@h get jobs", "--coordinator=zks://u:c4n4ry@h,h2/p@q get jobs", "-c ftp://u:c4n4ry@h stat", "get jobs -c zk://u:c4n4ry@h", "get -c zk://u:c4n4ry@h jobs", "-c zk://u:c4n4ry@h", "zk://u:c4n4ry@h", "get zk://u:c4n4ry@h", "get jobs zk://u:c4n4ry@h",
		"--session-timeout 0 stat", "--connect-timeout 99999999h stat", "pu jobs v", "put --prioriti 1 jobs v", "put -p1 jobs v", "put a\x1b[2Jb v", "put \xff v", "-- put jobs v",
	} {
		f.Add(strings.ReplaceAll(line, " ", "\x00"), "a\nb\n\nc", "", true)
	}
	for _, url := range []string{"zk://u:c4n4ry@h", "etcd://u:c4n4ry/x@h/p", "zks://h,u:c4n4ry@h2", "local:x", "zk:u:c4n4ry@h", "etcds://h:99999", "//u:c4n4ry@h", "ftp://u:c4n4ry@h"} {
		f.Add("get\x00jobs", "", url, false)
	}

	dir := f.TempDir()
	f.Setenv("PATH", "") // so that consume finds no CMD
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(secret+"\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	// The goroutine that hands signals out belongs to no bubble.
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGPIPE)
	signal.Stop(ch)

	f.Fuzz(func(t *testing.T, line, stdin, url string, reached bool) {
		args := strings.Split(line, "\x00")
		if touchesFiles(args) || len(line) > 4096 || strings.ContainsRune(url, 0) {
			return
		}
		env := []string{"HOME=" + dir, "ZKQ_USER=u", "ZKQ_PASSWORD_FILE=" + password, "ZKQ_COORDINATOR=" + withSecret(url)}
		var stdout, stderr bytes.Buffer
		var code int
		synctest.Test(t, func(t *testing.T) {
			store := furnished(t)
			p := newProgram(args, strings.NewReader(stdin), &stdout, &stderr, env)
			p.open = func(_ context.Context, _ target, o openOptions) (coord.Coordinator, error) {
				if !reached {
					return nil, coord.ErrUnreachable
				}
				return store.Open(coordtest.Options{Timeout: o.sessionTimeout}), nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			code = p.run(ctx)
		})
		if code < exitDone || code > exitUnknown {
			t.Errorf("exit %d", code)
		}
		if code != exitDone && stderr.Len() == 0 {
			t.Errorf("exit %d, and not a word why", code)
		}
		told := stdout.String() + stderr.String()
		given := passwords.ReplaceAllString(line, "") + passwords.ReplaceAllString(url, "") + stdin
		if strings.Contains(told, secret) && !strings.Contains(given, secret) {
			t.Errorf("the secret is told: %q", told)
		}
		if i := raw(stderr.String()); i >= 0 && !strings.Contains(line, "progress") {
			t.Errorf("stderr has raw bytes at %d: %q", i, stderr.String())
		}
		if slices.Contains(args, "json") && code == exitUsage && json.Valid([]byte(`"`+line+`"`)) {
			for said := range strings.Lines(stderr.String()) {
				if wantsJSON(args, newEnvironment(env)) && !json.Valid([]byte(said)) {
					t.Errorf("not JSON: %q", said)
				}
			}
		}
	})
}

// touchesFiles keeps the fuzzer away from this machine's files and programs, and
// from the embedded store.
func touchesFiles(args []string) bool {
	path := slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "/") })
	for _, a := range args {
		switch {
		case a == "serve", strings.Contains(a, "bench"), strings.Contains(a, "joblog"):
			return true
		case path && (a == "--" || strings.HasPrefix(a, "-") && strings.Contains(a, "file")):
			return true
		}
	}
	return false
}

// withSecret puts user information into a URL that has a place for it.
func withSecret(url string) string {
	before, after, ok := strings.Cut(url, "//")
	if !ok || strings.Contains(url, secret) {
		return url
	}
	return before + "//user:" + secret + "@" + after
}

// passwords are what stands in a URL in the place of a password. What zkq was told
// elsewhere it may repeat. None of them reaches from one argument into the next.
var passwords = regexp.MustCompile(`://[^@/:\s"'\x00]*:` + secret + `[^@\s"'\x00]*@`)

// raw is where bytes begin that a terminal would take for more than text, or -1.
func raw(s string) int {
	for i, r := range s {
		if r != '\n' && unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control) || r == utf8.RuneError && !strings.HasPrefix(s[i:], "\ufffd") {
			return i
		}
	}
	return -1
}

// furnished is a store with a queue in which an entry is held and one is foreign.
func furnished(t *testing.T) *coordtest.Store {
	store := coordtest.NewStore()
	c := store.Open(coordtest.Options{})
	t.Cleanup(func() { c.Close() })
	q := zkq.NewLockingQueue(c, "jobs")
	t.Cleanup(func() { q.Close() })
	for _, v := range []string{"one", "\x1b[31mtwo", "three", ""} {
		if _, err := q.Put(t.Context(), []byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), coord.Create("/jobs/entries/foreign \u202e", []byte(secret[:3]))); err != nil {
		t.Fatal(err)
	}
	return store
}

// FuzzLines: the pieces of an input are those between the ends, however the bytes
// arrive, and an error of the input loses none before it.
func FuzzLines(f *testing.F) {
	for _, s := range []string{"", "\n", "a", "a\n", "a\nb", "\n\n", "a\r\nb\r\n", "\xef\xbb\xbfa\n", "a\x00b\x00", "\x00\n\x00", strings.Repeat("x", 300) + "\ny"} {
		f.Add([]byte(s), true, uint8(0), uint8(0))
		f.Add([]byte(s), false, uint8(1), uint8(2))
		f.Add([]byte(s), true, uint8(3), uint8(0))
	}
	broken := errors.New("broken")
	f.Fuzz(func(t *testing.T, b []byte, lines bool, step, fault uint8) {
		end := byte(0)
		if lines {
			end = '\n'
		}
		r := &slow{rest: b, step: int(step), err: io.EOF}
		want := bytes.Split(b, []byte{end})
		last := want[len(want)-1]
		want = want[:len(want)-1]
		if fault > 0 {
			r.err = broken
		}
		if len(last) > 0 && fault == 0 {
			want = append(want, last)
		}
		in := newDelimitedInput(r, end)
		for i, w := range want {
			before, ready := r.reads, in.ready()
			got, err := in.next()
			if err != nil || !bytes.Equal(got, w) {
				t.Fatalf("piece %d of %q: %q, %v; want %q", i, b, got, err, w)
			}
			if ready && r.reads != before {
				t.Fatalf("piece %d of %q was ready and had to be read", i, b)
			}
		}
		got, err := in.next()
		if fault > 0 && !errors.Is(err, broken) || fault == 0 && err != io.EOF {
			t.Fatalf("behind %q: %q, %v", b, got, err)
		}
		if fault == 0 && (in.count != len(want) || in.read != int64(len(b))) {
			t.Fatalf("%d pieces of %d bytes in %q", in.count, in.read, b)
		}
	})
}

// slow is a reader that gives a few bytes at a time.
type slow struct {
	rest  []byte
	step  int // 0: all that fits
	err   error
	reads int
}

func (r *slow) Read(b []byte) (int, error) {
	r.reads++
	if len(r.rest) == 0 {
		return 0, r.err
	}
	if r.step > 0 {
		b = b[:min(len(b), r.step)]
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// FuzzDSN: a coordinator's URL is refused, or leads to addresses and a place that
// its driver takes, and is the same when it is written again. What stands where
// user information stands is never repeated.
func FuzzDSN(f *testing.F) {
	for _, url := range []string{
		"", "local:", "local:x", "local:/a/../b", "local:~", "local:~/x", "zk://h", "zk://h:1,[::1]:2/a/b", "zks://h/", "etcd://127.0.0.1:2379/p", "etcds://a,b,c/p/", "etcd://h:0", "etcd://h:+1",
		"etcd://h:65536", "etcd://::1", "etcd://[::1]", "etcd://a:b]", "etcd://[a", "etcd://h//", "etcd://h/../x", "etcd://h/a?b", "etcd://,", "etcd:h", "http://h", "h:1", "zk://h/p@q", "zk://h/zookeeper", "zk://[fe80::1%eth0]:1",
	} {
		f.Add(url, "")
		f.Add(url, "/")
	}
	f.Add("zk://h", "/x,y:z")
	f.Add("etcd://h", "]/[")
	env := newEnvironment([]string{"HOME=/nonexistent"})
	f.Fuzz(func(t *testing.T, url, more string) {
		if tt, err := parseTarget(url, env); err == nil {
			checkTarget(t, url, tt)
		}
		if before, after, ok := strings.Cut(url, "//"); ok && !strings.HasPrefix(before, "local:") && !strings.Contains(before, "/") && !strings.Contains(before+after, secret) {
			url = before + "//user:" + secret + more + "@" + after
			if tt, err := parseTarget(url, env); err == nil {
				t.Errorf("%q was taken for %v", url, tt)
			} else if strings.Contains(err.Error(), secret) {
				t.Errorf("%q is refused as %v", url, err)
			}
		}
	})
}

func checkTarget(t *testing.T, url string, tt target) {
	if again, err := parseTarget(tt.String(), newEnvironment(nil)); err != nil || again.String() != tt.String() {
		t.Fatalf("%q is %q, and that is %q, %v", url, tt, again, err)
	}
	if tt.scheme == "local" {
		if !filepath.IsAbs(tt.dir) {
			t.Fatalf("%q is the directory %q", url, tt.dir)
		}
		return
	}
	if tt.prefix != "" && coord.CheckPath(tt.prefix) != nil {
		t.Fatalf("%q has the prefix %q", url, tt.prefix)
	}
	for _, h := range tt.hosts {
		host, _, err := net.SplitHostPort(h)
		if err != nil || host == "" || raw(h) >= 0 {
			t.Fatalf("%q has the address %q: %v", url, h, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, err := openCoordinator(ctx, tt, openOptions{})
	if err == nil {
		c.Close()
	}
	if err == nil || errors.Is(err, coord.ErrInvalid) {
		t.Fatalf("%q, which is %v, is refused by its driver: %v", url, tt, err)
	}
}
