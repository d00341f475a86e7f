//go:build unix && !linux

package main

import (
	"os/exec"
	"syscall"
)

// ownGroup makes cmd run in a process group of its own. Unlike on Linux, cmd survives
// when zkq is killed.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
