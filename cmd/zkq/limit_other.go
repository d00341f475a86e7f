//go:build !linux

package main

import "errors"

// Elsewhere the limits of a process can only be set by itself.
const limitsMemory = false

func (c *child) stopAtStart() {}

func (c *child) limitMemory(uint64) error { return errors.ErrUnsupported }
