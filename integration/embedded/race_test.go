//go:build race

package embedded_test

// The race detector makes the processes about ten times slower, etcd's too.
const (
	entries = 2_000
	kills   = 15 // one each second
)
