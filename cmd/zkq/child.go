package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// child is a running CMD, in a process group of its own.
type child struct {
	cmd   *exec.Cmd
	done  chan struct{}    // closed when it has ended
	state *os.ProcessState // how it ended; read it after done is closed
	err   error            // of copying its input or output; read it after done is closed
}

// outputAfter is how long zkq reads the output after CMD has ended. Processes that CMD
// started may still have its standard output open.
const outputAfter = time.Second

// startChild starts cmd with a value on its standard input and a memory limit in bytes;
// 0 means no limit. One thread stays locked until the child ends. Linux sends the
// child its parent-death signal when the *thread* that started it ends.
func startChild(cmd *exec.Cmd, value []byte, memory uint64) (*child, error) {
	ownGroup(cmd)
	cmd.Stdin = bytes.NewReader(value)
	cmd.WaitDelay = outputAfter
	c := &child{cmd: cmd, done: make(chan struct{})}
	if memory > 0 {
		c.stopAtStart()
	}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := startKnown(func() (int, error) {
			if err := cmd.Start(); err != nil {
				return 0, err
			}
			return cmd.Process.Pid, nil
		})
		if err == nil && memory > 0 {
			if err = c.limitMemory(memory); err != nil {
				cmd.Process.Kill()
				cmd.Wait()
				forgetKnown(cmd.Process.Pid)
			}
		}
		started <- err
		if err != nil {
			return
		}
		defer close(c.done)
		err = cmd.Wait()
		forgetKnown(cmd.Process.Pid)
		c.state = cmd.ProcessState
		var exit *exec.ExitError
		if !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
			c.err = err
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}
