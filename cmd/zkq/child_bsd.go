//go:build unix && !linux

package main

import (
	"os/exec"
	"syscall"
)

// ownGroup has cmd run in a process group of its own. Only Linux also ends it
// when zkq is killed.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
