package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// crowd starts zkq n times with the same arguments. Each waits for its standard input.
func crowd(t *testing.T, where string, n int, args ...string) []*zkqProcess {
	t.Helper()
	all := make([]*zkqProcess, n)
	for i := range all {
		all[i] = startZkq(t, where, args...)
	}
	return all
}

func TestTwentyProcessesThatPutOneKeyLeaveOneEntry(t *testing.T) {
	onEvery(t, func(t *testing.T, b backend) {
		all := crowd(t, b.past, 20, "put", "--unique", "invoice 7", "crowd")
		for i, p := range all {
			fmt.Fprint(p.stdin, i)
		}
		for _, p := range all {
			p.stdin.Close()
		}
		put, refused := "", []string{}
		for _, p := range all {
			switch out, code := p.end(); {
			case code == exitDone && put == "":
				put = strings.TrimSpace(out)
			case code == exitExists && out == "":
				refused = append(refused, p.stderr.String())
			default:
				t.Errorf("exit %d, %q, %q", code, out, &p.stderr)
			}
		}
		for _, said := range refused {
			if !strings.Contains(said, put) {
				t.Errorf("%q does not name %s, which stands", said, put)
			}
		}
		if out, _, _ := zkqAt(t, b.past, "ls", "crowd"); len(refused) != 19 || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, put+"\t") {
			t.Errorf("%s was put, %d were refused, there are %q", put, len(refused), out)
		}
	})
}

func TestSixteenProcessesNeverExceedAnExactBound(t *testing.T) {
	onEvery(t, func(t *testing.T, b backend) {
		const most = 50
		if _, stderr, code := zkqAt(t, b.past, "create", "--max-entries", fmt.Sprint(most), "crowded"); code != exitDone {
			t.Fatal(stderr)
		}
		all := crowd(t, b.past, 16, "put", "-l", "crowded")
		for i := range 8 { // some of them travel together
			for _, p := range all {
				fmt.Fprintln(p.stdin, i)
			}
		}
		put, full := 0, 0
		for _, p := range all {
			p.stdin.Close()
		}
		for _, p := range all {
			out, code := p.end()
			put += strings.Count(out, "\n")
			switch code {
			case exitFull:
				full++
			case exitDone:
			default:
				t.Errorf("exit %d: %s", code, &p.stderr)
			}
		}
		there := func() int {
			out, stderr, _ := zkqAt(t, b.past, "stat", "crowded")
			fields := strings.Split(strings.TrimSpace(out), "\t")
			n, err := strconv.Atoi(fields[min(len(fields)-1, 5)])
			if err != nil {
				t.Fatalf("%q, %q", out, stderr)
			}
			return n
		}
		if n := there(); n != put || n > most || full == 0 {
			t.Errorf("%d entries, of %d that were put; %d of 16 producers were told that %d are all", n, put, full, most)
		}
		// What room is left is there for single puts, and no more.
		for n := put; n <= most; n++ {
			want := exitDone
			if n == most {
				want = exitFull
			}
			if _, stderr, code := zkqAt(t, b.past, "put", "crowded", "x"); code != want {
				t.Fatalf("with %d entries: exit %d, want %d: %s", n, code, want, stderr)
			}
		}
		if n := there(); n != most {
			t.Errorf("%d entries, want %d", n, most)
		}
	})
}
