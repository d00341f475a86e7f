//go:build !unix

package main

import "os"

// hungUp is always false: only Unix tells whether a pipe has a reader.
func hungUp(*os.File) bool { return false }
