//go:build !unix

package main

import "os/exec"

// Without process groups only CMD itself is ended, and at once.

func ownGroup(*exec.Cmd) {}

func (c *child) terminate() { c.cmd.Process.Kill() }

func (c *child) kill() { c.cmd.Process.Kill() }
