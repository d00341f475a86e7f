package testzk

import (
	"encoding/binary"
	"fmt"
	"hash/adler32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/internal/testcoord"
)

type quietLog struct{}

func (quietLog) Printf(string, ...any) {}

func TestLogTellsWhatWasCommittedAndByWhom(t *testing.T) {
	var servers Servers
	defer servers.Stop()
	cluster := servers.Ensemble(t)
	conn := func() *zk.Conn {
		c, events, err := zk.Connect(cluster.Addresses(), 30*time.Second, zk.WithLogger(quietLog{}))
		if err != nil {
			t.Fatal(err)
		}
		for e := range events {
			if e.State == zk.StateHasSession {
				break
			}
		}
		return c
	}
	c, other := conn(), conn()
	defer c.Close()
	acl := zk.WorldACL(zk.PermAll)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Create("/log", []byte("a"), 0, acl))
	must(c.Create("/log/s-", []byte{}, zk.FlagSequence, acl))
	must(c.Multi(&zk.SetDataRequest{Path: "/log", Data: []byte("b"), Version: 0},
		&zk.CreateRequest{Path: "/log/e", Data: []byte("lock"), Acl: acl, Flags: zk.FlagEphemeral}))
	if _, err := c.Multi(&zk.DeleteRequest{Path: "/log/e", Version: 0}, &zk.SetDataRequest{Path: "/log", Data: []byte("never"), Version: 77}); err == nil {
		t.Fatal("a transaction with a wrong version was applied")
	}
	must(other.Create("/log/other", []byte{}, zk.FlagEphemeral, acl))
	ended := other.SessionID()
	other.Close()
	must(c.Multi(&zk.DeleteRequest{Path: "/log/s-0000000000", Version: -1}, &zk.DeleteRequest{Path: "/log/e", Version: 0}))

	txns, err := cluster.Log(0)
	if err != nil {
		t.Fatal(err)
	}
	who := map[int64]string{c.SessionID(): "c", ended: "other"}
	var got []string
	for _, x := range txns {
		var line strings.Builder
		for _, c := range x.Changes {
			if strings.HasPrefix(c.Path, "/log") {
				fmt.Fprintf(&line, " %s %s=%s", []string{"", "create", "set", "delete"}[c.Kind], c.Path, c.Data)
				if c.Ephemeral {
					line.WriteString("*")
				}
			}
		}
		if line.Len() > 0 {
			if x.Ended {
				line.WriteString(" ended")
			}
			got = append(got, who[x.Session]+line.String())
		}
	}
	want := []string{
		"c create /log=a",
		"c create /log/s-0000000000=",
		"c set /log=b create /log/e=lock*",
		"other create /log/other=*",
		"other delete /log/other= ended",
		"c delete /log/s-0000000000= delete /log/e=",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if later, err := cluster.Log(txns[2].Zxid); err != nil || len(later) != len(txns)-3 || later[0].Zxid != txns[3].Zxid {
		t.Errorf("after the third: %d transactions, %v; want %d", len(later), err, len(txns)-3)
	}

	files, _ := filepath.Glob(filepath.Join(cluster.Members[0].dir, "data", "version-2", "log.*"))
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	whole, _ := parseLog(b)
	for n := 16; n < len(b); n += 7 {
		part, err := parseLog(b[:n])
		if err != nil || len(part) > len(whole) {
			t.Fatalf("the first %d bytes: %d transactions, %v; want some of the first %d", n, len(part), err, len(whole))
		}
	}
	if _, err := parseLog([]byte("ZKSN\x00\x00\x00\x02 a snapshot")); err == nil {
		t.Error("a snapshot passes for a log")
	}
}

func TestCutOffLeaderIsReplaced(t *testing.T) {
	c := StartFor(t, 3, Options{Peers: true})
	old, err := c.Leader()
	if err != nil {
		t.Fatal(err)
	}
	for _, deaf := range []bool{false, true} {
		c.CutOff(old, deaf)
		testcoord.Eventually(t, patience, "another member leads", func() bool {
			leader, err := c.Leader()
			return err == nil && leader != old
		})
		c.HealPeers()
		if err := c.Start(); err != nil { // waits until all serve
			t.Fatal(err)
		}
		testcoord.Eventually(t, patience, "a member leads", func() bool {
			old, err = c.Leader()
			return err == nil
		})
	}
}

// write writes a log of transactions that create nodes of their zxids' names, and snapshots of the names given.
func write(t *testing.T, dir string, zxids []int64, snapshots ...string) {
	t.Helper()
	dir = filepath.Join(dir, "data", "version-2")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	text := func(b []byte, s string) []byte {
		return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	log := append([]byte("ZKLG\x00\x00\x00\x02"), make([]byte, 8)...)
	for _, zxid := range zxids {
		txn := make([]byte, 8+4) // whose it is, and its number
		txn = binary.BigEndian.AppendUint64(txn, uint64(zxid))
		txn = binary.BigEndian.AppendUint64(txn, 0) // when
		txn = binary.BigEndian.AppendUint32(txn, txnCreate)
		txn = text(text(txn, nodeOf(zxid)), "value")
		txn = append(txn, 0, 0, 0, 0 /* access control */, 0 /* ephemeral */, 0, 0, 0, 0 /* the parent's version */)
		log = binary.BigEndian.AppendUint64(log, uint64(adler32.Checksum(txn)))
		log = binary.BigEndian.AppendUint32(log, uint32(len(txn)))
		log = append(append(log, txn...), 'B')
	}
	files := map[string][]byte{fmt.Sprintf("log.%x", zxids[0]): append(log, make([]byte, 100)...)}
	for _, name := range snapshots {
		files[name] = nil
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// nodeOf is the node that a transaction creates: the seventh and eighth of every epoch the same.
func nodeOf(zxid int64) string {
	if n := zxid & (1<<32 - 1); n > 6 {
		return fmt.Sprintf("/%x", n)
	}
	return fmt.Sprintf("/%x", zxid)
}

func TestWhatWasProposedInVainIsNotInTheLog(t *testing.T) {
	const e1, e2 = int64(1) << 32, int64(2) << 32
	for _, c := range []struct {
		name  string
		write func(t *testing.T, a, b, c string)
		want  []int64 // nil: an error
	}{
		{"a majority has it", func(t *testing.T, a, b, c string) {
			write(t, a, []int64{e1 + 1, e1 + 2})
			write(t, b, []int64{e1 + 1, e1 + 2, e2 + 1})
			write(t, c, []int64{e1 + 1, e2 + 1})
		}, []int64{e1 + 1, e1 + 2, e2 + 1}},
		{"one has it, and a snapshot of its own", func(t *testing.T, a, b, c string) {
			write(t, a, []int64{e1 + 1, e1 + 2, e1 + 3, e2 + 1}, "snapshot.100000003")
			write(t, b, []int64{e1 + 1, e2 + 1}, "snapshot.100000001")
			write(t, c, []int64{e1 + 1, e2 + 1})
		}, []int64{e1 + 1, e2 + 1}},
		{"one has it, and another a snapshot with it", func(t *testing.T, a, b, c string) {
			write(t, a, []int64{e1 + 1, e1 + 2, e1 + 3, e2 + 1})
			write(t, b, []int64{e1 + 1, e2 + 1}, "snapshot.100000002")
			write(t, c, []int64{e1 + 1, e2 + 1})
		}, []int64{e1 + 1, e1 + 2, e2 + 1}},
		{"a majority has it, and it was not there in the next epoch", func(t *testing.T, a, b, c string) {
			first := []int64{e1 + 1, e1 + 2, e1 + 3, e1 + 4, e1 + 5, e1 + 6, e1 + 7, e1 + 8}
			second := []int64{e2 + 1, e2 + 2, e2 + 3, e2 + 4, e2 + 5, e2 + 6, e2 + 7, e2 + 8}
			write(t, a, slices.Concat(first, second))
			write(t, b, slices.Concat(first, second))
			write(t, c, slices.Concat(first[:3], second))
		}, []int64{e1 + 1, e1 + 2, e1 + 3, e1 + 4, e1 + 5, e1 + 6, e2 + 1, e2 + 2, e2 + 3, e2 + 4, e2 + 5, e2 + 6, e2 + 7, e2 + 8}},
		{"something is missing", func(t *testing.T, a, b, c string) {
			write(t, a, []int64{e1 + 1, e1 + 3})
			write(t, b, []int64{e1 + 1, e1 + 3})
			write(t, c, []int64{e1 + 1})
		}, nil},
		{"the beginning of an epoch is missing", func(t *testing.T, a, b, c string) {
			write(t, a, []int64{e1 + 1, e2 + 2})
			write(t, b, []int64{e1 + 1, e2 + 2})
			write(t, c, []int64{e1 + 1})
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			cluster := &Cluster{}
			for i := range 3 {
				cluster.Members = append(cluster.Members, &Member{number: i, dir: filepath.Join(dir, fmt.Sprint(i))})
			}
			c.write(t, cluster.Members[0].dir, cluster.Members[1].dir, cluster.Members[2].dir)
			txns, err := cluster.Log(0)
			var got []int64
			for _, x := range txns {
				got = append(got, x.Zxid)
				if want := nodeOf(x.Zxid); x.Changes[0].Path != want {
					t.Errorf("%q was created, want %q", x.Changes[0].Path, want)
				}
			}
			if !slices.Equal(got, c.want) || (err != nil) != (c.want == nil) {
				t.Errorf("%x, %v; want %x", got, err, c.want)
			}
		})
	}
}
