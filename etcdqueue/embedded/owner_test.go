package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue/embedded"
)

func TestTwentyProcessesPutAtOnceOnAFreshDirectory(t *testing.T) {
	const processes = 20
	for round := range 5 {
		dir := newDir(t)
		var all []*process
		for i := range processes {
			all = append(all, start(t, "put", dir, strconv.Itoa(i)))
		}
		for _, p := range all {
			p.all()
		}
		_, s := session(t, dir)
		l, err := s.List(t.Context(), "/q/entries", coord.ListOptions{Values: true, Fresh: true})
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]int)
		for _, n := range l.Nodes {
			seen[string(n.Value)]++
		}
		for i := range processes {
			if n := seen[strconv.Itoa(i)]; n != 1 {
				t.Errorf("round %d: entry %d is there %d times", round, i, n)
			}
		}
		if len(l.Nodes) != processes {
			t.Errorf("round %d: %d entries, want %d", round, len(l.Nodes), processes)
		}
	}
}

func TestNoTwoProcessesRunTheStore(t *testing.T) {
	dir := newDir(t)
	var all []*process
	for range 20 {
		all = append(all, start(t, "alone", dir, filepath.Dir(dir)+"/witness"))
	}
	owned := 0
	for _, p := range all {
		owned += len(p.all())
	}
	if owned < 2 {
		t.Errorf("the store changed hands %d times: nothing was tested", owned)
	}
}

func TestWritersGoOnWhenOwnerAfterOwnerIsKilled(t *testing.T) {
	dir := newDir(t)
	first := start(t, "join", dir, "")
	first.expect("open")
	living := map[int]*process{first.pid(): first}
	for i := range 4 {
		w := start(t, "write", dir, fmt.Sprint("p", i))
		w.expect("open")
		living[w.pid()] = w
	}
	wrote := make(map[string]bool)
	unknown := 0
	var slowest time.Duration
	count := func(line string) {
		var word, path string
		var ms int
		if n, _ := fmt.Sscan(line, &word, &path, &ms); n != 3 {
			t.Fatalf("a writer said %q", line)
		}
		slowest = max(slowest, time.Duration(ms)*time.Millisecond)
		if word == "wrote" {
			wrote[path] = true
		} else {
			unknown++
		}
	}
	for len(living) > 1 {
		var owner *process
		eventually(t, patience, "one of the processes runs the store", func() bool {
			b, _ := os.ReadFile(dir + "/lock")
			pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
			owner = living[pid]
			return owner != nil
		})
		delete(living, owner.pid())
		for _, line := range owner.killed() {
			count(line)
		}
		for _, w := range living {
			for range 20 { // they go on
				count(w.expect(""))
			}
		}
	}
	for _, w := range living {
		for _, line := range w.rest() {
			count(line)
		}
	}
	t.Logf("%d writes, %d outcomes unknown, the slowest took %v", len(wrote), unknown, slowest)
	if slowest > patience/2 {
		t.Errorf("a write took %v", slowest)
	}
	if unknown > 4*3 { // each of four kills may leave one of each writer open
		t.Errorf("%d outcomes unknown", unknown)
	}
	_, s := session(t, dir)
	l, err := s.List(t.Context(), "/w", coord.ListOptions{Fresh: true})
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	for _, n := range l.Nodes {
		have[n.Path] = true
	}
	for path := range wrote {
		if !have[path] {
			t.Errorf("%s was acknowledged and is gone", path)
		}
	}
}

func TestKilledOwnersAreReplacedWithinMoments(t *testing.T) {
	dir := newDir(t)
	owner := start(t, "join", dir, "")
	if owner.expect("open") != "true" {
		t.Fatal("alone, and not the owner")
	}
	c, s := session(t, dir)
	for round := range 3 {
		next := start(t, "join", dir, "")
		next.expect("open")
		before, _ := c.Owner()
		if _, err := s.Commit(t.Context(), coord.Create(fmt.Sprintf("/a/%d", round), nil)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		signals, err := s.Watch(ctx, "/a")
		if err != nil {
			t.Fatal(err)
		}
		drain(signals)
		owner.killed()
		began := time.Now()
		path := fmt.Sprintf("/a/%d-after", round)
		for {
			_, err := s.Commit(ctx, coord.Create(path, nil))
			if err == nil || errors.Is(err, coord.ErrExist) {
				break
			}
			if !errors.Is(err, coord.ErrUnknown) {
				t.Fatal(err)
			}
		}
		took := time.Since(began)
		t.Logf("first write %v after kill -9", took)
		if took > patience/2 {
			t.Errorf("the first write after kill -9 of the owner took %v", took)
		}
		select {
		case <-signals:
		case <-time.After(patience):
			t.Error("the watch did not survive")
		}
		cancel()
		select {
		case <-s.Done():
			t.Fatal("the session was lost")
		default:
		}
		after, self := c.Owner()
		if after == before {
			t.Fatalf("still owned by %d", before)
		}
		if self {
			return // this process cannot be killed; what follows would test nothing new
		}
		owner = next
	}
}

func TestDeadHoldersLockIsGoneThoughNobodyLivedMeanwhile(t *testing.T) {
	dir := newDir(t)
	holder := start(t, "hold", dir, "/q/taken/e")
	holder.expect("held")
	holder.killed()
	_, s := session(t, dir)
	if n, err := s.Get(t.Context(), "/q/taken/e"); !errors.Is(err, coord.ErrNotExist) {
		t.Errorf("right after Open the dead process's lock reads %+v, %v", n, err)
	}
}

func TestDeadHoldersLockGoesSoonWhileAnOwnerLives(t *testing.T) {
	dir := newDir(t)
	_, s := session(t, dir)
	holder := start(t, "hold", dir, "/q/taken/e")
	holder.expect("held")
	if _, err := s.Get(t.Context(), "/q/taken/e"); err != nil {
		t.Fatal(err)
	}
	holder.killed()
	eventually(t, longSession/2, "the dead process's lock is gone", func() bool {
		_, err := s.Get(t.Context(), "/q/taken/e")
		return errors.Is(err, coord.ErrNotExist)
	})
}

func TestLivingHoldersLockStaysWhileOwnersComeAndGo(t *testing.T) {
	dir := newDir(t)
	holder := start(t, "hold", dir, "/q/taken/e")
	holder.expect("held")
	for i := range 5 {
		p := start(t, "put", dir, strconv.Itoa(i))
		p.all()
	}
	_, s := session(t, dir)
	time.Sleep(1200 * time.Millisecond) // longer than a sweep's interval
	if _, err := s.Get(t.Context(), "/q/taken/e"); err != nil {
		t.Error(err)
	}
	holder.rest()
	if _, err := s.Get(t.Context(), "/q/taken/e"); !errors.Is(err, coord.ErrNotExist) {
		t.Errorf("the holder left in order and its lock reads %v", err)
	}
}

func TestStoppedOwnerIsNamedWithinTheConnectTimeout(t *testing.T) {
	dir := newDir(t)
	owner := start(t, "join", dir, "")
	owner.expect("open")
	owner.signal(syscall.SIGSTOP)
	for _, timeout := range []time.Duration{100 * time.Millisecond, 3 * time.Second} {
		began := time.Now()
		_, err := embedded.Open(t.Context(), embedded.Config{Dir: dir, ConnectTimeout: timeout})
		took := time.Since(began)
		var stopped *embedded.StoppedOwnerError
		if !errors.As(err, &stopped) || stopped.PID != owner.pid() || !errors.Is(err, coord.ErrUnreachable) {
			t.Fatalf("timeout %v: %v", timeout, err)
		}
		if !strings.Contains(err.Error(), strconv.Itoa(owner.pid())) {
			t.Errorf("the error does not name the owner: %v", err)
		}
		if took > timeout+patience/2 {
			t.Errorf("told after %v, the connect timeout is %v", took, timeout)
		}
	}
	owner.signal(syscall.SIGCONT)
	c, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal("after the owner went on:", err)
	}
	c.Close()
}

func TestChildOfTheOwnerDoesNotKeepTheLock(t *testing.T) {
	dir := newDir(t)
	parent := start(t, "parent", dir, "")
	child, err := strconv.Atoi(parent.expect("open"))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(child, syscall.SIGKILL)
	parent.killed()
	if err := syscall.Kill(child, 0); err != nil {
		t.Fatal("the child is gone, nothing is tested:", err)
	}
	c, _ := session(t, dir)
	if _, self := c.Owner(); !self {
		t.Error("the store still has an owner")
	}
}

func TestServeTakesOverAndEndsWithItsContext(t *testing.T) {
	dir := newDir(t)
	c, s := session(t, dir)
	server := start(t, "serve", dir, "")
	server.expect("open")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), "/x"); !errors.Is(err, coord.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	eventually(t, patience, "serve runs the store", func() bool {
		pid, _ := c.Owner()
		return pid == server.pid()
	})
	_, s2 := session(t, dir)
	if _, err := s2.Commit(t.Context(), coord.Create("/x", nil)); err != nil {
		t.Error(err)
	}
	server.signal(syscall.SIGTERM)
	server.all()
	if _, err := s2.Get(t.Context(), "/x"); err != nil {
		t.Error("after serve ended:", err)
	}
}

func TestServeSaysThatItServesOnceItDoes(t *testing.T) {
	dir := newDir(t)
	first := start(t, "serve", dir, "")
	first.expect("open")
	first.expect("serving")
	began := make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		// Longer than the connect timeout: an owner that lives is waited for.
		ended <- embedded.Serve(ctx, embedded.Config{Dir: dir, ConnectTimeout: 100 * time.Millisecond, Serving: func() { close(began) }})
	}()
	select {
	case <-began:
		t.Error("it serves beside the owner")
	case err := <-ended:
		t.Fatal("beside the owner:", err)
	case <-time.After(500 * time.Millisecond):
	}
	first.signal(syscall.SIGTERM)
	first.all()
	select {
	case <-began:
	case <-time.After(patience):
		t.Error("it did not take over")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestServeNamesAStoppedOwner(t *testing.T) {
	dir := newDir(t)
	owner := start(t, "join", dir, "")
	owner.expect("open")
	owner.signal(syscall.SIGSTOP)
	defer owner.signal(syscall.SIGCONT)
	for _, timeout := range []time.Duration{100 * time.Millisecond, 3 * time.Second} {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := embedded.Serve(ctx, embedded.Config{Dir: dir, ConnectTimeout: timeout, Serving: func() { t.Error("it serves") }})
		cancel()
		var stopped *embedded.StoppedOwnerError
		if !errors.As(err, &stopped) || stopped.PID != owner.pid() {
			t.Fatalf("timeout %v: %v", timeout, err)
		}
		if took := time.Since(began); took > timeout+patience/2 {
			t.Errorf("told after %v, the connect timeout is %v", took, timeout)
		}
	}
}

func TestTwoCoordinatorsOfOneProcessShareTheStore(t *testing.T) {
	dir := newDir(t)
	a, sa := session(t, dir)
	b, sb := session(t, dir)
	if _, self := a.Owner(); !self {
		t.Error("the first is not the owner")
	}
	if _, err := sb.Commit(t.Context(), coord.CreateEphemeral("/x", nil)); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal("second Close:", err)
	}
	if _, err := sb.Get(t.Context(), "/x"); err != nil {
		t.Fatal(err)
	}
	if pid, self := b.Owner(); pid != os.Getpid() || !self {
		t.Errorf("owner is %d, %v", pid, self)
	}
	if _, err := sa.Get(t.Context(), "/x"); !errors.Is(err, coord.ErrClosed) {
		t.Errorf("on the closed one: %v", err)
	}
}

func drain(signals <-chan struct{}) {
	select {
	case <-signals:
	default:
	}
}
