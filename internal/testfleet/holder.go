package testfleet

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/zkq/zkq"
)

// holderVariable is the environment variable with the configuration of a holder process.
const holderVariable = "ZKQ_TEST_FLEET_HOLDER"

// Holder is a process that holds an entry.
type Holder struct {
	Name string // of the entry
	cmd  *exec.Cmd
}

// holderConfig is the configuration of a holder process.
type holderConfig struct {
	Place
	Queue string
}

// Hold starts a process that takes an entry and keeps it. It returns when the entry is taken. The
// process ends with the test at the latest.
func Hold(t testing.TB, p Place, queue string) *Holder {
	t.Helper()
	config, err := json.Marshal(holderConfig{p, queue})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holderVariable+"="+string(config))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe() // the process ends when it is closed
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &Holder{cmd: cmd}
	t.Cleanup(func() {
		stdin.Close()
		h.Kill()
	})
	late := time.AfterFunc(60*time.Second, func() { cmd.Process.Kill() })
	defer late.Stop()
	name := bufio.NewScanner(stdout)
	if !name.Scan() {
		t.Fatal("a holder did not take an entry within 60 s")
	}
	h.Name = name.Text()
	return h
}

// Kill kills the process.
func (h *Holder) Kill() {
	if h.cmd != nil {
		h.cmd.Process.Kill()
		h.cmd.Wait()
		h.cmd = nil
	}
}

func holderMain(config string) int {
	var h holderConfig
	err := json.Unmarshal([]byte(config), &h)
	if err == nil {
		err = h.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (h *holderConfig) run() error {
	c, err := Open(context.Background(), h.Place)
	if err != nil {
		return err
	}
	defer c.Close()
	q := zkq.NewLockingQueue(c, h.Queue)
	defer q.Close()
	held, err := q.Take(context.Background())
	if err != nil {
		return err
	}
	fmt.Println(held.Name)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
