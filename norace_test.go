//go:build !race

package zkq_test

const raceDetector = false
