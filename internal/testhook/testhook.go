// Package testhook lets this project's own tests change what a user cannot: how many entries of a queue's head the
// processes share, how much of an index is read at once, and which of several goroutines goes on first.
package testhook

import "context"

// Settings are what tests change. The zero value is what a user has.
type Settings struct {
	Window   int                   // how many entries at the head the processes of a queue share out among themselves
	Watchers int                   // how many of many idle processes watch the queue
	DuePage  int                   // how many delayed entries one request lists
	Bulk     int                   // how many entries share a commit of a purge and the like; then one such commit is under way at a time
	Woke     func(context.Context) // called by a goroutine that waited for another one of the same handle, before it goes on
}

// Option returns a zkq.Option that applies the settings to a handle. The package zkq sets it. Its result is an any
// because this package cannot import zkq; internal/testqueue gives it its type back.
var Option func(Settings) any
