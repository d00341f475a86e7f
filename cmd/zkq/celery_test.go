package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/zkq/zkq/internal/testneed"
)

// kombu is what Celery's ZooKeeper transport does to a queue, in the same calls of
// kazoo: each message is an entry of a plain Queue, JSON, with kombu's priority of 0 to 9
// turned round. Each line of input is an order.
const kombu = `
import json, os, sys
from kazoo.client import KazooClient
from kazoo.recipe.queue import Queue
c = KazooClient(sys.argv[1])
c.start()
q = Queue(c, sys.argv[2])
len(q)
for order in sys.stdin:
    order = json.loads(order)
    if order["do"] == "put":
        q.put(json.dumps(order["message"]).encode(), priority=9 - order["priority"])
        print("put")
    else:
        m = q.get()
        print(json.dumps(json.loads(m.decode()) if m is not None else None))
    sys.stdout.flush()
`

// kazooPython is a python that has kazoo.
func kazooPython(t *testing.T) string {
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(python, "-c", "import kazoo").Run() == nil {
			return python
		}
	}
	testneed.Missing(t, "kazoo", "make deps")
	return ""
}

// Messages that Celery's transport puts are seen, counted and taken by zkq, and one that zkq
// puts is handed to Celery. The layout is found by itself, also when the queue is drained.
func TestQueuesOfCelery(t *testing.T) {
	python := kazooPython(t)
	servers := zooKeepers.Single(t).Addresses()
	at, root := place("zk", servers)+"celery", fmt.Sprintf("/zkqtest%dcelery", os.Getpid())
	p := newProcess(t, at, python, "-c", kombu, strings.Join(servers, ","), root+"/celery")
	p.start(t)
	order := func(what map[string]any) string {
		t.Helper()
		b, err := json.Marshal(what)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.stdin.Write(append(b, '\n')); err != nil {
			t.Fatal(err)
		}
		line, err := p.stdout.ReadString('\n')
		if err != nil {
			rest, _ := io.ReadAll(p.stdout)
			t.Fatalf("%v: %s%s%s", err, line, rest, p.stderr.String())
		}
		return strings.TrimSuffix(line, "\n")
	}
	run := func(want int, args ...string) string {
		t.Helper()
		stdout, stderr, code := zkqAt(t, at, args...)
		if code != want {
			t.Fatalf("zkq %v: exit %d, want %d: %s", args, code, want, stderr)
		}
		return stdout
	}
	message := func(task string, priority int) map[string]any {
		return map[string]any{
			"body": "W1sxLCAyXSwge30sIHt9XQ==", "content-encoding": "utf-8", "content-type": "application/json",
			"headers":    map[string]any{"lang": "py", "task": task, "id": task},
			"properties": map[string]any{"priority": priority, "body_encoding": "base64", "delivery_tag": task},
		}
	}
	for task, priority := range map[string]int{"default": 0, "urgent": 9, "middling": 3} {
		order(map[string]any{"do": "put", "priority": priority, "message": message(task, priority)})
	}
	if got := run(exitDone, "stat", "celery"); !strings.HasPrefix(got, "celery\t3\t0\t0\t0\t3\t") {
		t.Errorf("stat: %q", got)
	}
	var priorities []string
	for line := range strings.Lines(run(exitDone, "ls", "celery")) {
		priorities = append(priorities, strings.Split(line, "\t")[1])
	}
	if got := strings.Join(priorities, " "); got != "0 6 9" {
		t.Errorf("ls shows the priorities %s", got)
	}
	if got := run(exitDone, "peek", "celery"); !strings.Contains(got, `"urgent"`) {
		t.Errorf("peek: %q", got)
	}
	if got := run(exitDone, "get", "celery"); !strings.Contains(got, `"urgent"`) {
		t.Errorf("get: %q", got)
	}
	if got := order(map[string]any{"do": "get"}); !strings.Contains(got, `"middling"`) {
		t.Errorf("kombu gets %q", got)
	}

	value, err := json.Marshal(message("ours", 9))
	if err != nil {
		t.Fatal(err)
	}
	run(exitUsage, "put", "celery", string(value)) // a queue of another layout
	run(exitDone, "--layout", "plain", "put", "-p", "0", "celery", string(value))
	// kazoo works off the listing that it has before it sees what is more urgent.
	for _, want := range []string{`"default"`, `"ours"`, "null"} {
		if got := order(map[string]any{"do": "get"}); !strings.Contains(got, want) {
			t.Errorf("kombu gets %q, want %s", got, want)
		}
	}

	// A get that waits on the drained queue waits for kazoo's entries.
	waiting := startZkq(t, at, "get", "-w", "30s", "celery")
	waiting.stdin.Close()
	order(map[string]any{"do": "put", "priority": 0, "message": message("late", 0)})
	if got, code := waiting.end(); code != exitDone || !strings.Contains(got, `"late"`) {
		t.Errorf("exit %d: %q, %s", code, got, waiting.stderr.String())
	}
	run(exitNothing, "get", "celery")
	run(exitDone, "wait", "celery")
}
