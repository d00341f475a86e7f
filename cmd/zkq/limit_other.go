//go:build !linux

package main

import "errors"

// limitsMemory is false: on other systems only a process itself can set its limits.
const limitsMemory = false

func (c *child) stopAtStart() {}

func (c *child) limitMemory(uint64) error { return errors.ErrUnsupported }
