package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// A consumer without a terminal tells each failure and each death.
func TestEachFailureAndDeathIsTold(t *testing.T) {
	s := newShell(t)
	s.run("", "put", "q", "v")
	got := s.run("", "consume", "--drain", "--retries", "2", "--backoff", "10ms", "q", "--", "sh", "-c", "exit 3")
	lines := strings.Split(strings.TrimSpace(got.stderr), "\n")
	if got.code != exitSome || len(lines) != 3 {
		t.Fatalf("%+v", got)
	}
	for i, want := range [][]string{
		{"[WARN]  zkq: entry failed: ", "queue=q", "entry=entry-100-", `reason="exit status 3"`, "failures=1", "rests=1"},
		{"[ERROR] zkq: entry is dead: ", "queue=q", "entry=entry-100-", `reason="exit status 3"`, "failures=2"},
		{"zkq: consume q at "},
	} {
		for _, part := range want {
			if !strings.Contains(lines[i], part) {
				t.Errorf("line %d is %q, and lacks %q", i, lines[i], part)
			}
		}
	}
	s.run("", "put", "q", "v")
	if got := s.run("", "--log-level", "off", "consume", "-n", "1", "q", "--", "false"); strings.Contains(got.stderr, "WARN") {
		t.Errorf("%+v", got)
	}
}

func TestLevelsTellWhatTheySay(t *testing.T) {
	s := newShell(t)
	if got := s.run("", "--log-level", "debug", "put", "q", "a", "b"); !strings.Contains(got.stderr, "[DEBUG] zkq: put: queue=q entries=2") {
		t.Errorf("put says %q", got.stderr)
	}
	s.run("", "put", "q", "c")
	if got := s.run("", "--log-level", "debug", "get", "q"); !strings.Contains(got.stderr, "claimed: queue=q entry=") || !strings.Contains(got.stderr, "removed: queue=q entry=") {
		t.Errorf("get says %q", got.stderr)
	}
	got := s.run("", "--log-level", "info", "consume", "--drain", "q", "--", "true")
	for _, want := range []string{"[INFO]  zkq: consumer started: queue=q jobs=1 command=true", "draining", `consumer stopped: queue=q entries="2 done"`} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("consume says %q, and not %q", got.stderr, want)
		}
	}
	if strings.Contains(got.stderr, "DEBUG") {
		t.Errorf("consume says %q", got.stderr)
	}
	s.run("", "put", "q", "d")
	got = s.run("", "--log-level", "debug", "--log-json", "consume", "--drain", "q", "--", "true")
	told := map[string]bool{}
	for line := range strings.Lines(got.stderr) {
		var l struct {
			Message string `json:"@message"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		told[l.Message] = true
	}
	for _, want := range []string{"session begins", "claimed", "entry done", "consumer stopped"} {
		if !told[want] {
			t.Errorf("it told %v, and not %q", told, want)
		}
	}
}

// Only entries that fail are left, and a drain without --retries would wait for ever:
// it says so, once.
func TestDrainSaysOnceWhatItWaitsFor(t *testing.T) {
	for n, want := range map[int]string{1: "draining: 1 entry keeps failing; --retries N gives up", 2: "draining: 2 entries keep failing; --retries N gives up"} {
		s := newShell(t)
		s.run(strings.Repeat("v\n", n), "put", "-l", "q")
		got := s.run("", "consume", "--drain", "--halt", fmt.Sprint(3*n), "--backoff", "300ms", "q", "--", "false")
		if got.code != exitSome || strings.Count(got.stderr, "keep") != 1 || !strings.Contains(got.stderr, want) {
			t.Errorf("%d: %+v", n, got)
		}
	}
	s := newShell(t)
	s.run("", "put", "q", "v")
	if got := s.run("", "consume", "--drain", "--retries", "2", "--backoff", "200ms", "q", "--", "false"); strings.Contains(got.stderr, "keep") {
		t.Errorf("with --retries it says %q", got.stderr)
	}
	// One that was put back on purpose does not fail.
	began := time.Now()
	s.run("", "put", "q", "v")
	if got := s.run("", "consume", "--drain", "--backoff", "200ms", "--halt", "1", "q", "--", "sh", "-c", "test $ZKQ_DELIVERIES -gt 1 || exit 75"); got.code != exitSome || strings.Contains(got.stderr, "keep") {
		t.Errorf("after %v: %+v", time.Since(began), got)
	}
}
