package main

import (
	"strings"
	"testing"
	"time"
)

// awaitStat waits until the counts of a queue are as wanted: ready, held, delayed, dead and total.
func awaitStat(t *testing.T, where, queue, counts string) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		out, stderr, _ := zkqAt(t, where, "stat", queue)
		if strings.HasPrefix(out, queue+"\t"+counts+"\t") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("stat: %q, want %q; %s", out, counts, stderr)
		}
	}
}

// A drain waits for an entry that failed and rests. An outage begins: the drain cannot tell whether
// entries are left, and ends. The entry is as it was.
func TestAnOutageEndsADrain(t *testing.T) {
	onBoth(t, func(t *testing.T, l link, by, past string) {
		if _, stderr, code := zkqAt(t, past, "put", "drained", "x"); code != exitDone {
			t.Fatalf("put: exit %d, %s", code, stderr)
		}
		p := startZkq(t, by, "--session-timeout", "6s", "--connect-timeout", "6s", "consume", "--drain", "--backoff", "1h", "drained", "--", "false")
		p.says(t, "keeps failing")
		l.Cut()
		stdout, code := p.end()
		if code != exitUnreachable || stdout != "" {
			t.Errorf("exit %d, printed %q; %s", code, stdout, &p.stderr)
		}
		for _, says := range []string{"zkq: consume drained at " + by, l.Addresses()[0], "1 failed, 0 done"} {
			if !strings.Contains(p.stderr.String(), says) {
				t.Errorf("stderr does not say %q: %s", says, &p.stderr)
			}
		}
		awaitStat(t, past, "drained", "0\t0\t1\t0\t1")
	})
}

// Without --drain, a consumer waits until the outage is over, and takes what was put meanwhile.
func TestAConsumerGoesOnAfterAnOutage(t *testing.T) {
	onBoth(t, func(t *testing.T, l link, by, past string) {
		put := func(value string) {
			t.Helper()
			if _, stderr, code := zkqAt(t, past, "put", "outlived", value); code != exitDone {
				t.Fatalf("put: exit %d, %s", code, stderr)
			}
		}
		p := startZkq(t, by, "--session-timeout", "6s", "--connect-timeout", "6s", "consume", "-n", "2", "outlived")
		prints := func(value string) {
			t.Helper()
			if line, err := p.stdout.ReadString('\n'); line != value+"\n" {
				t.Fatalf("it printed %q (%v), want %q: %s", line, err, value, &p.stderr)
			}
		}
		put("before")
		prints("before")
		awaitStat(t, past, "outlived", "0\t0\t0\t0\t0") // it has finished the entry
		l.Cut()
		p.says(t, "no new session") // the session is over, and none can be had
		put("meanwhile")
		l.Heal()
		prints("meanwhile")
		if stdout, code := p.end(); code != exitDone || stdout != "" {
			t.Errorf("exit %d, printed %q; %s", code, stdout, &p.stderr)
		}
	})
}
