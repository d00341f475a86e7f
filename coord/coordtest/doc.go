// Package coordtest is a coordination service in memory, with every fault that a
// real one has. The suite that it and all other services pass is package conformance.
//
// # Testing code that uses queues
//
// A [Store] is the service, a [Coordinator] one client process of it: give each
// worker of a test its own. It needs no network and no goroutine, and keeps time
// with package time alone. Inside a bubble of testing/synctest nothing really
// sleeps, so that a test waits for a session to time out in no time:
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
//			// ... the other worker has the entry, the first one's handler was told ...
//			mine.Heal()
//			// ... and nothing happens to the entry any more.
//		})
//	}
//
// Four things are worth a test of every handler, and users_test.go has one of each
// to begin with: the session expires while it works (its context ends with
// zkq.ErrLockLost as the cause, and the entry comes again), the connection is cut
// for longer than the session lasts, the process crashes (Deliveries grows,
// Failures does not), and time passes: an hour of delay, of a time to live or of
// backoff is a time.Sleep in the bubble. When such a test fails, [Store.Observe] tells
// what the service applied.
//
// What may happen to a client:
//
//	Cut, Heal                 the connection goes, and comes back
//	HoldRequests, HoldReplies it stands and carries nothing, one way
//	Expire                    the service ends the session
//	DropReply, DropRequest    the next commit: its outcome is unknown
//	Refuse                    the next commit: it is not applied
//	Lag, CatchUp              listings and signals fall behind
//	LagBy, CatchUp            signals and listings of what was seen come late
//	Crash                     the process dies
//
// and to the service: Stop, Start, Restart, Expire. Commits that had to wait travel
// together afterwards, and share one fault. Commits, sessions, watches
// and the order of names behave as package coord says; where it leaves a choice
// the store takes the less convenient one, mostly ZooKeeper's, and it refuses
// what the services might let pass: a Touch that hands over another value than
// the standing one, a Replace of a persistent node, a child of a node that holds
// a value.
//
// # Simulation
//
// [Sim] is the same store for tests that look for rare interleavings: each order
// of events and each fault is drawn from a seed, and the seed brings it back.
package coordtest
