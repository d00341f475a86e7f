//go:build unix

package main

import "syscall"

// terminate sends SIGTERM to the child's process group.
func (c *child) terminate() { syscall.Kill(-c.cmd.Process.Pid, syscall.SIGTERM) }

// kill sends SIGKILL to the child's process group.
func (c *child) kill() { syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) }
