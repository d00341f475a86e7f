package main

import (
	"os/exec"
	"syscall"
)

// ownGroup has cmd run in a process group of its own, and die when zkq does.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
