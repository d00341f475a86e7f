package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A slow disk is one that takes slowSync longer for every fsync and fdatasync. The kernel shows us those calls of a server
// before it makes them (seccomp's user notification), whatever the server is written in; we let them go on a little later.

// slowSync is what is added to every sync.
const slowSync = 2 * time.Millisecond

// slowVariable says which of the two processes beside a slow server this is.
const slowVariable = "ZKQ_BENCH_SLOW"

// errNoSlow says that this kernel does not show system calls to a supervisor.
var errNoSlow = errors.New("the slow disk needs Linux 5.5 and seccomp's user notification")

// slowRole is this process's work if it stands beside a slow server, and does not return then.
func slowRole() {
	var err error
	switch os.Getenv(slowVariable) {
	case "":
		return
	case "supervisor":
		err = supervise(os.Args[1], os.Args[2], os.Args[3:])
	case "server":
		err = filtered(os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// filtered installs the filter on this thread, hands its listener to the supervisor, and becomes the server.
func filtered(args []string) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("%w: %w", errNoSlow, err)
	}
	const number = 0 // of the system call, in seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FSYNC, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FDATASYNC, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	listener, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("%w: %w", errNoSlow, errno)
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(listener)), nil, 0); err != nil {
		return err
	}
	unix.CloseOnExec(3)
	os.Unsetenv(slowVariable)
	return unix.Exec(args[0], args, os.Environ())
}

// supervise starts the server and delays its syncs until it ends. How many there were stands in the file counted.
func supervise(counted, delay string, args []string) error {
	wait, err := time.ParseDuration(delay)
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	theirs := os.NewFile(uintptr(pair[1]), "filter")
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the server dies with its parent's thread
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), slowVariable+"=server")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = diesWithParent()
	if err := cmd.Start(); err != nil {
		return err
	}
	theirs.Close()
	listener, err := receive(pair[0])
	if err != nil {
		return errors.Join(err, cmd.Wait())
	}
	signal.Ignore(syscall.SIGINT) // of the terminal: the bench ends first
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go func() {
		<-end
		cmd.Process.Kill()
	}()
	file, err := os.Create(counted)
	if err != nil {
		return err
	}
	go answer(listener, wait, file)
	return cmd.Wait()
}

func receive(socket int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	var one [1]byte
	_, n, _, _, err := unix.Recvmsg(socket, one[:], oob, 0)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) == 0 {
		return 0, errNoSlow
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return 0, errNoSlow
	}
	return fds[0], nil
}

// The kernel's structures, of 80 and 24 bytes, of which we use the ID.
type (
	notification struct {
		id   uint64
		rest [72]byte
	}
	response struct {
		id    uint64
		val   int64
		error int32
		flags uint32
	}
)

const (
	notifyReceive  = 0xc0502100
	notifySend     = 0xc0182101
	notifyContinue = 1
)

// answer lets each sync go on after a while, all of them side by side.
func answer(listener int, wait time.Duration, file *os.File) {
	var count atomic.Int64
	for {
		var n notification
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), notifyReceive, uintptr(unsafe.Pointer(&n)))
		switch errno {
		case 0:
		case unix.EINTR, unix.ENOENT: // the thread that called is gone
			continue
		default:
			return
		}
		go func() {
			time.Sleep(wait)
			r := response{id: n.id, flags: notifyContinue}
			unix.Syscall(unix.SYS_IOCTL, uintptr(listener), notifySend, uintptr(unsafe.Pointer(&r)))
			file.WriteAt([]byte(strconv.FormatInt(count.Add(1), 10)), 0)
		}()
	}
}
