package main

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// limitsMemory reports whether this system supports --memory-limit.
const limitsMemory = true

// stopAtStart makes cmd stop before its first instruction, so that limitMemory can set
// the limit.
func (c *child) stopAtStart() { c.cmd.SysProcAttr.Ptrace = true }

// limitMemory limits the data of the child and of each process that it starts, and then
// lets the child run. The child is stopped at its start, so nothing runs without the
// limit. The limit is RLIMIT_DATA, not RLIMIT_AS: it does not count memory that a
// process only reserves or shares with others.
func (c *child) limitMemory(bytes uint64) error {
	pid := c.cmd.Process.Pid
	for {
		// WNOWAIT: if the child has died, cmd.Wait still gets its status.
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
	if err != nil && err != unix.ESRCH { // ESRCH: the child was killed meanwhile
		return fmt.Errorf("limit its memory: %w", err)
	}
	if err := syscall.PtraceDetach(pid); err != nil && err != unix.ESRCH {
		return fmt.Errorf("let it run: %w", err)
	}
	return nil
}
