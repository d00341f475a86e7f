package embedded

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/zkq/zkq/coord"
)

// halfMade makes the data of a store whose first process was killed before etcd
// elected itself: the log names no member that may vote. etcd never elects itself on it.
func halfMade(t *testing.T, data string, entries ...*raftpb.Entry) {
	t.Helper()
	member := filepath.Join(data, "member")
	if err := os.MkdirAll(filepath.Join(member, "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	metadata, err := proto.Marshal(&pb.Metadata{NodeID: proto.Uint64(7), ClusterID: proto.Uint64(8)})
	if err != nil {
		t.Fatal(err)
	}
	log, err := wal.Create(nil, filepath.Join(member, "wal"), metadata)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(log.Save(&raftpb.HardState{Term: proto.Uint64(1)}, entries), log.Close()); err != nil {
		t.Fatal(err)
	}
}

// request is an entry of etcd's log with a request.
func request(t *testing.T, index uint64, r *pb.InternalRaftRequest) *raftpb.Entry {
	t.Helper()
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return &raftpb.Entry{Term: proto.Uint64(1), Index: &index, Data: b}
}

func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "zkq") // a socket's name is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// etcd's clock ticks every ten seconds here, and etcd elects itself by its clock only after a tick. A start that is over
// before was told to. A machine that needs so long for everything else gets further attempts.
func TestAStoreElectsItselfBeforeItsClockTicks(t *testing.T) {
	data := filepath.Join(shortDir(t), "data")
	const tick = 10 * time.Second
	start := func(p timing, within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		s, err := startServer(ctx, data, p)
		if err == nil {
			err = s.close()
		}
		return err
	}
	if err := start(creatingTiming, time.Minute); err != nil {
		t.Fatal(err)
	}
	var errs []error
	for range 3 {
		err := start(timing{tick, 5 * tick}, tick-time.Second)
		if err == nil {
			return
		}
		errs = append(errs, err)
	}
	t.Error(errors.Join(errs...))
}

func TestHalfMadeStoreIsMadeAnew(t *testing.T) {
	for name, damage := range map[string]func(*testing.T, directory){
		"by this version":                      func(t *testing.T, d directory) { halfMade(t, d.newData()) },
		"by an older one":                      func(t *testing.T, d directory) { halfMade(t, d.data()) },
		"by an older one, and then by this":    func(t *testing.T, d directory) { halfMade(t, d.data()); halfMade(t, d.newData()) },
		"with a file where the data should be": func(t *testing.T, d directory) { writeFile(t, d.newData(), "x") },
		"without a log": func(t *testing.T, d directory) {
			halfMade(t, d.data())
			if err := os.RemoveAll(filepath.Join(d.data(), "member", "wal")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := directory{shortDir(t)}
			damage(t, d)
			c, err := Open(t.Context(), Config{Dir: d.path, ConnectTimeout: 2 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s, err := c.Session(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Commit(t.Context(), coord.Create("/x", nil)); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(d.newData()); err == nil {
				t.Error("what was half made is still there")
			}
		})
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A store is made anew only where it is certain that nothing was ever stored in it.
func TestStoreInDoubtIsNotMadeAnew(t *testing.T) {
	put := &pb.InternalRaftRequest{ID: 1, Put: &pb.PutRequest{Key: []byte("/q"), Value: []byte("x")}}
	version := &pb.InternalRaftRequest{ID: 2, Alarm: &pb.AlarmRequest{}}
	segment := func(data string) string { return filepath.Join(data, "member", "wal", firstSegment) }
	for name, c := range map[string]struct {
		entries []*raftpb.Entry
		change  func(t *testing.T, data string)
	}{
		"a put":                       {entries: []*raftpb.Entry{request(t, 1, put)}},
		"a put behind etcd's own":     {entries: []*raftpb.Entry{{Term: proto.Uint64(1), Index: proto.Uint64(1)}, request(t, 2, put)}},
		"a request that is not known": {entries: []*raftpb.Entry{request(t, 1, version)}},
		"a snapshot": {change: func(t *testing.T, data string) {
			writeFile(t, filepath.Join(data, "member", "snap", "0000000000000002-0000000000000005.snap"), "")
		}},
		"a second segment": {change: func(t *testing.T, data string) {
			writeFile(t, filepath.Join(data, "member", "wal", "0000000000000001-0000000000000009.wal"), "")
		}},
		"a log that etcd repaired": {change: func(t *testing.T, data string) { writeFile(t, segment(data)+".broken", "") }},
		"a log of zeros": {change: func(t *testing.T, data string) {
			writeFile(t, segment(data), string(make([]byte, 4096)))
		}},
		"something behind the log's end": {change: func(t *testing.T, data string) {
			f, err := os.OpenFile(segment(data), os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt([]byte{1}, 1<<20)
			}
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}},
		"a damaged log": {entries: []*raftpb.Entry{request(t, 1, put)}, change: func(t *testing.T, data string) {
			b, err := os.ReadFile(segment(data))
			if err != nil {
				t.Fatal(err)
			}
			b[16] ^= 0xff
			writeFile(t, segment(data), string(b))
		}},
		"a database that cannot be read": {change: func(t *testing.T, data string) {
			writeFile(t, filepath.Join(data, "member", "snap", "db"), "garbage")
		}},
	} {
		data := filepath.Join(t.TempDir(), "data")
		halfMade(t, data, c.entries...)
		if c.change != nil {
			c.change(t, data)
		} else if len(c.entries) == 0 {
			t.Fatal("nothing to test")
		}
		if isUnused(data) {
			t.Errorf("%s: taken for a store that was never used", name)
		}
	}
	data := filepath.Join(t.TempDir(), "data")
	halfMade(t, data)
	if !isUnused(data) {
		t.Error("what was only half made is not recognised")
	}
}

// The database holds what was stored, even if the log were gone.
func TestStoreWithEntriesIsNotMadeAnewWithoutItsLog(t *testing.T) {
	d := directory{shortDir(t)}
	c, err := Open(t.Context(), Config{Dir: d.path, ConnectTimeout: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(d.data(), "member", "wal")); err != nil {
		t.Fatal(err)
	}
	if isUnused(d.data()) {
		t.Error("taken for a store that was never used")
	}
}

func TestStartThatComesToNothingEndsWithItsContext(t *testing.T) {
	d := directory{shortDir(t)}
	halfMade(t, d.data(), request(t, 1, &pb.InternalRaftRequest{ID: 1, Put: &pb.PutRequest{Key: []byte("/q")}}))
	before, began := 2*time.Second, time.Now()
	_, err := Open(t.Context(), Config{Dir: d.path, ConnectTimeout: before})
	if !errors.Is(err, coord.ErrUnreachable) {
		t.Errorf("opened a store that cannot elect itself: %v", err)
	}
	if took := time.Since(began); took > before+2*time.Minute { // it used to be for ever
		t.Errorf("returned after %v, the connect timeout is %v", took, before)
	}
	for given := time.Now(); ; time.Sleep(10 * time.Millisecond) { // it no longer tries
		lock, err := lockFile(d.lock())
		if err == nil {
			lock.release()
			break
		}
		if time.Since(given) > electionTimeout/2 {
			t.Fatalf("%v after Open: %v", electionTimeout/2, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, Config{Dir: d.path}) }()
	time.AfterFunc(100*time.Millisecond, cancel)
	select {
	case <-ended:
	case <-time.After(2 * time.Minute):
		t.Error("Serve does not end with its context")
	}
}

func TestSocketThatCannotBeMadeIsAnError(t *testing.T) {
	d := directory{shortDir(t)}
	if err := os.Mkdir(d.sock(), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(d.sock(), "x"), "")
	for range 2 {
		_, err := Open(t.Context(), Config{Dir: d.path, ConnectTimeout: 2 * time.Minute})
		if why := (*os.PathError)(nil); !errors.As(err, &why) || why.Path != d.sock() {
			t.Errorf("got %v", err)
		}
	}
}
