//go:build unix

package main

import "syscall"

// terminate asks the child's process group to end.
func (c *child) terminate() { syscall.Kill(-c.cmd.Process.Pid, syscall.SIGTERM) }

// kill ends the child's process group.
func (c *child) kill() { syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) }
