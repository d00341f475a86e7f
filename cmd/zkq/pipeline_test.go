package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Consumers of three queues pass on what their commands print, and are killed all the while: each value that goes in
// comes out once.
func TestPipelineOfKilledConsumersYieldsEachOutputOnce(t *testing.T) {
	const inputs, kills = 60, 12
	stages := []string{"first", "second", "third", "out"}
	onEvery(t, func(t *testing.T, b backend) {
		f := newFleet(t, b.past)
		start := func(i int) *member {
			return f.start("-j", "2", "--forward", stages[i+1], stages[i], "--", "sh", "-c", `sleep 0.02; printf '%s %s' "$(cat)" $ZKQ_QUEUE`)
		}
		var running []*member
		for i := range 6 {
			running = append(running, start(i%3))
		}
		producer := startZkq(t, b.past, "put", "-l", stages[0])
		var want []string
		for i := range inputs {
			want = append(want, fmt.Sprint(i, " first second third"))
			fmt.Fprintln(producer.stdin, i)
			if i%(inputs/kills) > 0 {
				continue
			}
			before := len(f.attempts(f.all()...))
			f.until("they get on", func() bool { return len(f.attempts(f.all()...)) > before })
			at := rand.N(len(running))
			f.send(running[at], syscall.SIGKILL)
			running[at].end()
			running[at] = start(at % 3)
		}
		producer.stdin.Close()
		if _, code := producer.end(); code != 0 {
			t.Fatalf("put: exit %d, %s", code, &producer.stderr)
		}
		for _, stage := range stages[:3] {
			f.zkq("wait", "--timeout", "90s", stage)
		}
		for _, m := range running {
			f.leaveAnyhow(m)
		}
		got := strings.Split(strings.TrimSuffix(f.zkq("get", "-n", "1000", stages[3]), "\n"), "\n")
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%d came out of %d: %q", len(got), inputs, got)
		}
	})
}
