//go:build !unix

package main

import "os/exec"

// Without process groups zkq can end only CMD itself. There is no SIGTERM: it is killed
// at once.

func ownGroup(*exec.Cmd) {}

func (c *child) terminate() { c.cmd.Process.Kill() }

func (c *child) kill() { c.cmd.Process.Kill() }
