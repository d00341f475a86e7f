package zkq

import "context"

// Window sets how many entries processes share out among them.
func Window(n int) Option { return func(o *options) { o.window = n } }

// Woke sets what a goroutine does after it waited for another of the same handle.
func Woke(f func(context.Context)) Option { return func(o *options) { o.woke = f } }

// DuePage sets how much of the index of delayed entries is read at once.
func DuePage(n int) Option { return func(o *options) { o.duePage = n } }

// Reserved are the names that no segment of a queue's name may have.
var Reserved = reserved

// Remembered is how many entries the handle remembers though they are gone or held.
func Remembered(q *LockingQueue) int { return q.view.aside.len() }
