//go:build race

package zkq_test

const raceDetector = true
