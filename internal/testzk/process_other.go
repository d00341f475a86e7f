//go:build !linux

package testzk

import "syscall"

func diesWithParent() *syscall.SysProcAttr { return nil }
