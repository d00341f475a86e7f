//go:build race

package testrace

const Enabled = true
