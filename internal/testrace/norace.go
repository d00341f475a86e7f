//go:build !race

// Package testrace tells tests whether the race detector watches them: it makes them several times slower.
package testrace

// Enabled reports whether the program was built with -race.
const Enabled = false
