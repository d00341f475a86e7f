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

// adopts reports whether the kernel makes this process the parent of orphans: as PID 1
// of a container, or as a subreaper.
func adopts() bool {
	var subreaper int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&subreaper)), 0, 0, 0)
	return os.Getpid() == 1 || err == nil && subreaper != 0
}

// children are the processes that this one started; exec.Cmd waits for them.
var children struct {
	sync.Mutex // held while one is started, so that none ends before it is known
	pids       map[int]bool
}

// startKnown starts a process, and has the reaper leave it to its caller.
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

// forgetKnown is for the caller of startKnown, after it has waited for the process.
func forgetKnown(pid int) {
	children.Lock()
	defer children.Unlock()
	delete(children.pids, pid)
}

// lookAgain is how long the reaper waits for exec.Cmd to wait for a child that ended.
const lookAgain = 10 * time.Millisecond

// reapOrphans waits for processes that CMDs left behind and that became children of
// this one, which would stay zombies otherwise. It returns a function that ends that.
func reapOrphans() (stop func()) {
	if !adopts() {
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
				wait = lookAgain
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

// reapEnded waits for the orphans that have ended. It returns false when it met a
// child of exec.Cmd, which may hide others.
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

// endedChild returns a child that has ended and was not waited for, 0 if there is none.
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
