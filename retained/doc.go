// Package retained has logs: entries that stay after they were read.
//
// Any number of labels go through all entries of a [Log], each at its own pace. A [Label]
// is a reader with a position that is kept in the service, so the next process that opens
// the label reads on from there. Nothing in a log is locked: to share work among workers,
// use a zkq.LockingQueue.
//
//	log := retained.NewLog(c, "orders", retained.Config{Keep: 100_000})
//	first, err := log.Append(ctx, []byte("order 7"))
//
//	billing := log.Label("billing", retained.Oldest)
//	batch, err := billing.Read(ctx, 10) // waits for an entry
//	err = batch.Commit(ctx)             // billing goes on behind the batch
//
// An entry goes when its time is over ([Config].TTL), when there are more behind it than
// are to be kept ([Config].Keep), or with [Log.Truncate]. A log has one priority. A log and
// a locking queue may have the same name.
//
// # Order
//
// Every append writes the node that numbers the entries. So the numbers are in the order of
// commits on every service, without a gap, and a slow append can never put an entry behind a
// label that has passed. The price is that appends follow one another: one commit is under
// way at a time, of all processes. Append many values at once.
package retained
