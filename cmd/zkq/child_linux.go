package main

import (
	"os/exec"
	"syscall"
)

// ownGroup makes cmd run in a process group of its own, and be killed when zkq dies.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
