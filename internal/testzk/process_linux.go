package testzk

import "syscall"

// diesWithParent keeps a killed test from leaving servers behind.
func diesWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
