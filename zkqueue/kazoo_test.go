package zkqueue_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"testing"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/testneed"
	"github.com/zkq/zkq/zkqueue"
)

// kazooPuts is a Python program that fills a simple and a locking queue and then holds an
// entry.
const kazooPuts = `
import sys
from kazoo.client import KazooClient
c = KazooClient(hosts=sys.argv[1])
c.start()
q = c.Queue(sys.argv[2] + "/simple")
q.put(b"job")
q.put(b"", priority=5)
l = c.LockingQueue(sys.argv[2] + "/locking")
l.put(b"job")
l.put_all([b"", b"x"], priority=5)
assert l.get(10) == b"", "the most urgent"
print("held", flush=True)
sys.stdin.read()
`

func TestLayoutIsKazoos(t *testing.T) {
	python := "/usr/bin/python3"
	if exec.Command(python, "-c", "import kazoo").Run() != nil {
		python = "python3"
		if exec.Command(python, "-c", "import kazoo").Run() != nil {
			testneed.Missing(t, "kazoo", "make deps")
		}
	}
	addresses := servers.Single(t).Addresses()
	root := chroot(t)
	cmd := exec.Command(python, "-c", kazooPuts, addresses[0], root+"/kazoo")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if line := make([]byte, 5); true {
		if _, err := out.Read(line); err != nil {
			t.Fatalf("kazoo: %v: %s", err, complaints.String())
		}
	}

	s := session(t, open(t, zkqueue.Config{Servers: addresses, Chroot: root + "/zkq"}))
	commit(t, s, coord.CreateSequential("/simple/entry-100-", []byte("job")))
	commit(t, s, coord.CreateSequential("/simple/entry-005-", nil))
	commit(t, s, coord.CreateSequential("/locking/entries/entry-100-", []byte("job")))
	commit(t, s, coord.CreateSequential("/locking/entries/entry-005-", nil), coord.CreateSequential("/locking/entries/entry-005-", []byte("x")))
	commit(t, s, coord.CreateEphemeral("/locking/taken/entry-005-0000000001", []byte("0123456789abcdef0123456789abcdef")))

	z := plain(t)
	for _, path := range []string{
		"/simple", "/simple/entry-100-0000000000", "/simple/entry-005-0000000001",
		"/locking", "/locking/entries", "/locking/taken", "/locking/entries/entry-100-0000000000",
		"/locking/entries/entry-005-0000000001", "/locking/entries/entry-005-0000000002",
		"/locking/taken/entry-005-0000000001",
	} {
		theirs, ours := describe(t, z, root+"/kazoo"+path), describe(t, z, root+"/zkq"+path)
		if theirs != ours {
			t.Errorf("%s\n kazoo: %s\n zkq:   %s", path, theirs, ours)
		}
	}
}

// describe returns what other clients can see of a node, except for what differs on
// purpose: the version of a lock, and its session.
func describe(t *testing.T, z *zk.Conn, path string) string {
	t.Helper()
	value, stat, err := z.Get(path)
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return ""
	}
	acl, _, err := z.GetACL(path)
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	if stat.EphemeralOwner != 0 {
		return fmt.Sprintf("ephemeral, %d bytes, ACL %v", len(value), acl)
	}
	return fmt.Sprintf("%#v at version %d with %d children, ACL %v", value, stat.Version, stat.NumChildren, acl)
}
