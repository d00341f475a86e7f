package embedded_test

import (
	"io/fs"
	"syscall"
)

func allocated(info fs.FileInfo) int64 {
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}
