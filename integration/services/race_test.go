//go:build race

package services_test

// scale divides what tests do many times: the race detector makes it slow.
const scale = 20
