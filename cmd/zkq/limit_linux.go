package main

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

const limitsMemory = true

// stopAtStart has cmd stop before its first instruction, for limitMemory.
func (c *child) stopAtStart() { c.cmd.SysProcAttr.Ptrace = true }

// limitMemory limits what the child, stopped at its start, and each process that
// it starts may have as data of its own, and lets it run. As it has not run before,
// nothing of it escapes. The limit is on RLIMIT_DATA, not on RLIMIT_AS: what a
// process reserves and does not use, or shares with others, is not counted.
func (c *child) limitMemory(bytes uint64) error {
	pid := c.cmd.Process.Pid
	for {
		// Its end is left for Wait.
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return fmt.Errorf("wait for its start: %w", err)
		}
	}
	limit := unix.Rlimit{Cur: bytes, Max: bytes}
	var had unix.Rlimit
	err := unix.Prlimit(pid, unix.RLIMIT_DATA, nil, &had)
	if err == nil && had.Max > bytes {
		err = unix.Prlimit(pid, unix.RLIMIT_DATA, &limit, nil)
	}
	if err != nil && err != unix.ESRCH { // somebody killed it
		return fmt.Errorf("limit its memory: %w", err)
	}
	if err := syscall.PtraceDetach(pid); err != nil && err != unix.ESRCH {
		return fmt.Errorf("let it run: %w", err)
	}
	return nil
}
