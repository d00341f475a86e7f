package simulation

import (
	"os"
	"os/exec"
	"regexp"
	"testing"
	"testing/synctest"
	"time"
)

// A panic in one of the queue's own goroutines ends the program before a test can report the seed.
func TestPanicOfASimulationNamesItsSeed(t *testing.T) {
	if os.Getenv("ZKQ_TEST_PANIC") != "" {
		inSeed(4711, func() {
			synctest.Test(t, func(*testing.T) {
				go func() {
					go func() { panic("somewhere in the queue") }()
					time.Sleep(time.Hour)
				}()
				time.Sleep(time.Hour)
			})
		})
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "ZKQ_TEST_PANIC=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !regexp.MustCompile(`(?s)panic: somewhere in the queue.*goroutine \d+ [^\n]*"?seed"?: ?"?4711`).Match(out) {
		t.Errorf("%v, and not a word of the seed:\n%s", err, out)
	}
}
