//go:build !race

package embedded_test

const (
	entries = 10_000
	kills   = 30 // one each second
)
