// Package coordtest is a coordination service in memory, with every fault that a
// real one has. Use it to test programs that use queues.
//
// A [Store] is the service, a [Coordinator] one client process of it: give each
// worker of a test its own. The store needs no network and no goroutine, and it
// takes the time from package time alone. Inside a bubble of testing/synctest a
// test therefore waits for a session to expire without really waiting:
//
//	func TestMailIsNotSentTwice(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			store := coordtest.NewStore()
//			mine, others := store.Open(coordtest.Options{}), store.Open(coordtest.Options{})
//			defer mine.Close()
//			defer others.Close()
//			// ... a zkq.Worker on each, with the handler that is tested, and an entry ...
//			mine.Cut()
//			time.Sleep(30 * time.Second) // longer than the session lasts
//			// ... the other worker has the entry; the first handler's context has ended ...
//			mine.Heal()
//			// ... and nothing happens to the entry any more.
//		})
//	}
//
// Four things are worth a test of every handler. The file users_test.go has one of
// each to begin with:
//
//   - The session expires while the handler works: its context ends with
//     zkq.ErrLockLost as the cause, and the entry is handed out again.
//   - The connection is cut for longer than the session lasts.
//   - The process crashes: Deliveries grows, Failures does not.
//   - Time passes: an hour of delay, of a time to live or of back-off is a time.Sleep
//     in the bubble.
//
// When such a test fails, [Store.Observe] shows what the service applied.
//
// # Faults
//
// These happen to a client:
//
//	Cut, Heal                  the connection goes, and comes back
//	HoldRequests, HoldReplies  the connection stands and carries nothing, one way
//	Expire                     the service ends the session
//	DropReply, DropRequest     the next commit ends with an unknown outcome
//	Refuse                     the next commit is not applied
//	Lag, CatchUp               listings and signals fall behind
//	LagBy, CatchUp             signals, and listings of what was seen, come late
//	Crash                      the process dies
//
// and these to the service: Stop, Start, Restart, Expire, Restore. Commits that had to
// wait travel together afterwards, and share one fault.
//
// Commits, sessions, watches and the order of names behave as package coord says. Where
// that leaves a choice, the store takes the less convenient one, mostly ZooKeeper's. It
// refuses what a real service might let pass: a Touch with another value than the node
// has, a Replace of a persistent node, a child of a node that holds a value.
//
// # Related packages
//
// Package coordtest/conformance is the suite that every implementation of package coord
// passes. Package coordtest/sim runs a store in an order, and with faults, that a seed
// decides, to find rare interleavings.
package coordtest
