//go:build !linux

package main

// startKnown only starts the process: there is no reaper on this system.
func startKnown(start func() (pid int, err error)) error {
	_, err := start()
	return err
}

func forgetKnown(int) {}

func reapOrphans() (stop func()) { return func() {} }
