package integration_test

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testneed"
)

//go:embed onequeue.py
var kazooProgram string

// kazoo is a process of its own with one of the real kazoo's queues.
type kazoo struct {
	t       testing.TB
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan answer
	errors  *bytes.Buffer
	end     func()
}

type answer struct {
	Bytes []byte // nil is kazoo's None
	Bool  bool
	Int   int64
	Text  string
	Error string
}

type command struct {
	Act      string   `json:"act"`
	Value    []byte   `json:"value"`
	Values   [][]byte `json:"values"`
	Priority int      `json:"priority"`
	Timeout  float64  `json:"timeout"`
}

// python is one that has kazoo.
var python = sync.OnceValue(func() string {
	for _, p := range []string{os.Getenv("ZKQ_TEST_PYTHON"), "python3", "/usr/bin/python3"} {
		if p != "" && exec.Command(p, "-c", "import kazoo").Run() == nil {
			return p
		}
	}
	return ""
})

func needKazoo(t testing.TB) {
	t.Helper()
	if python() == "" {
		testneed.Missing(t, "kazoo", "make deps")
	}
}

// kazooSession is how long kazoo's locks outlive a process that died.
const kazooSession = 2 * time.Second

// kazoo starts a process with kazoo's queue of that kind, Queue or LockingQueue.
func (b *bench) kazoo(kind string) *kazoo {
	b.Helper()
	return b.kazooBy(kind, b.servers)
}

// kazooBy reaches the servers at other addresses.
func (b *bench) kazooBy(kind string, addresses []string) *kazoo {
	b.Helper()
	needKazoo(b)
	cmd := exec.Command(python(), "-c", kazooProgram, strings.Join(addresses, ","), kind, b.chroot+"/"+queueName, "2")
	k := &kazoo{t: b, cmd: cmd, answers: make(chan answer, 4), errors: new(bytes.Buffer)}
	cmd.Stderr = k.errors
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	k.in = in
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(k.answers)
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			var a answer
			if err := json.Unmarshal(line, &a); err != nil {
				a.Error = err.Error()
			}
			k.answers <- a
		}
	}()
	k.end = sync.OnceFunc(func() {
		in.Close()
		for range k.answers { // the process ends with its stdin
		}
		<-ended
		cmd.Wait()
	})
	b.Cleanup(func() {
		kill := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		defer kill.Stop()
		k.end()
	})
	if a := k.answer(); a.Text != "ready" {
		b.Fatalf("kazoo says %+v", a)
	}
	return k
}

// send does not wait for the answer.
func (k *kazoo) send(c command) {
	k.t.Helper()
	line, err := json.Marshal(c)
	if err != nil {
		k.t.Fatal(err)
	}
	if _, err := k.in.Write(append(line, '\n')); err != nil {
		k.t.Fatalf("kazoo: %v", err)
	}
}

// answer is the next one, whatever it says.
func (k *kazoo) answer() answer {
	k.t.Helper()
	select {
	case a, ok := <-k.answers:
		if !ok {
			k.cmd.Wait()
			k.t.Fatalf("kazoo ended: %s", k.errors.String())
		}
		return a
	case <-time.After(3 * time.Minute):
		k.t.Fatal("no answer from kazoo for three minutes")
		return answer{}
	}
}

// call is one act, which must not raise.
func (k *kazoo) call(c command) answer {
	k.t.Helper()
	k.send(c)
	a := k.answer()
	if a.Error != "" {
		k.t.Fatalf("kazoo: %s raised %s", c.Act, a.Error)
	}
	return a
}

func (k *kazoo) put(value []byte, priority int) {
	k.t.Helper()
	k.call(command{Act: "put", Value: value, Priority: priority})
}

func (k *kazoo) putAll(values [][]byte, priority int) {
	k.t.Helper()
	k.call(command{Act: "put_all", Values: values, Priority: priority})
}

// get is nil where kazoo's is None: nothing within the time.
func (k *kazoo) get(most time.Duration) []byte {
	k.t.Helper()
	return k.call(command{Act: "get", Timeout: most.Seconds()}).Bytes
}

// wait returns when kazoo's get has found nothing, has its watches, and waits. What the get
// returns is the next answer.
func (k *kazoo) wait() {
	k.t.Helper()
	if a := k.call(command{Act: "waiting_get", Timeout: 20}); a.Text != "waits" {
		k.t.Fatalf("kazoo did not wait: %+v", a)
	}
}

// want gets an entry and demands its value.
func (k *kazoo) want(value string) {
	k.t.Helper()
	if got := k.get(20 * time.Second); got == nil || string(got) != value {
		k.t.Fatalf("kazoo got %.40q (None: %v), want %.40q", got, got == nil, value)
	}
}

// nothing demands that kazoo sees nothing to take.
func (k *kazoo) nothing() {
	k.t.Helper()
	if got := k.get(200 * time.Millisecond); got != nil {
		k.t.Fatalf("kazoo got %q, want None", got)
	}
}

// says is an act that answers True or False.
func (k *kazoo) says(act string, want bool) {
	k.t.Helper()
	if got := k.call(command{Act: act}).Bool; got != want {
		k.t.Fatalf("kazoo's %s is %v, want %v", act, got, want)
	}
}

func (k *kazoo) len() int {
	k.t.Helper()
	return int(k.call(command{Act: "len"}).Int)
}

// slow begins kazoo's consume or release and stops it where a pause of its process would
// hurt most: it has seen that it holds the lock, and has not yet sent what it concludes
// from that. The returned function lets it go on and is its answer.
func (k *kazoo) slow(finish string) func() bool {
	k.t.Helper()
	if a := k.call(command{Act: "slow_" + finish}); !a.Bool {
		k.t.Fatalf("before its %s kazoo saw no lock of its own", finish)
	}
	return func() bool {
		k.t.Helper()
		k.send(command{})
		a := k.answer()
		if a.Error != "" {
			k.t.Fatalf("kazoo: %s raised %s", finish, a.Error)
		}
		return a.Bool
	}
}

// kill is kill -9.
func (k *kazoo) kill() {
	k.cmd.Process.Kill()
	k.end()
}
