package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// adoptsOrphans reports whether orphaned processes become children of this one, because it is
// PID 1 of a container or a subreaper.
func adoptsOrphans() bool {
	var subreaper int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&subreaper)), 0, 0, 0)
	return os.Getpid() == 1 || err == nil && subreaper != 0
}

// children holds the processes that this one started. exec.Cmd waits for them, so the
// reaper must not.
var children struct {
	sync.Mutex // also held while a process starts: the reaper must know it before it ends
	pids       map[int]bool
}

// startKnown starts a process and keeps the reaper from waiting for it.
func startKnown(start func() (pid int, err error)) error {
	children.Lock()
	defer children.Unlock()
	pid, err := start()
	if err == nil {
		if children.pids == nil {
			children.pids = make(map[int]bool)
		}
		children.pids[pid] = true
	}
	return err
}

// forgetKnown removes a process from children. The caller has waited for it.
func forgetKnown(pid int) {
	children.Lock()
	defer children.Unlock()
	delete(children.pids, pid)
}

// reapRetryDelay is the time that the reaper gives exec.Cmd to wait for a child that ended.
const reapRetryDelay = 10 * time.Millisecond

// reapOrphans starts the reaper, which waits for orphans of CMDs that became children of
// this process. They would stay zombies otherwise. stop ends the reaper. If this process
// gets no orphans, reapOrphans does nothing.
func reapOrphans() (stop func()) {
	if !adoptsOrphans() {
		return func() {}
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	quit := make(chan struct{})
	var reaping sync.WaitGroup
	reaping.Go(func() {
		for {
			wait := time.Minute
			if !reapEnded() {
				wait = reapRetryDelay
			}
			t := time.NewTimer(wait)
			select {
			case <-ended:
			case <-t.C:
			case <-quit:
				t.Stop()
				return
			}
			t.Stop()
		}
	})
	return func() {
		signal.Stop(ended)
		close(quit)
		reaping.Wait()
	}
}

// reapEnded waits for the orphans that have ended. It returns false if it found an ended
// child of exec.Cmd: the kernel then does not show the orphans after that one.
func reapEnded() bool {
	children.Lock()
	defer children.Unlock()
	for {
		pid := endedChild()
		if pid == 0 {
			return true
		}
		if children.pids[pid] {
			return false
		}
		var ws syscall.WaitStatus
		syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
	}
}

// endedChild returns the pid of a child that has ended, or 0. It leaves the child to be
// waited for.
func endedChild() int {
	var info struct {
		signo, errno, code int32
		child              struct {
			_   [0]uintptr // the alignment of the kernel's union
			pid int32
		}
		_ [128]byte
	}
	err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err != nil {
		return 0
	}
	return int(info.child.pid)
}
