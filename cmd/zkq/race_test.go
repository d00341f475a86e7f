//go:build race

package main

// raceDetector: zkq takes a second to start and to end.
const raceDetector = true
