// Package layout says how zkq's nodes are named and what they hold.
//
// Everything here is a pure function of names and bytes: nothing reads a node, a clock
// or a random number. Two versions of zkq that run side by side share these names and
// records, and so does kazoo where it knows them. A change here is a change of the
// format.
//
// The nodes of a queue at /jobs:
//
//	/jobs/entries/entry-100-0000000007                the entry; in a plain queue it lies at /jobs
//	/jobs/taken/entry-100-0000000007                  its lock (package lock)
//	/jobs/attempts/entry-100-0000000007               its [History]
//	/jobs/delayed/1700000000000-entry-100-0000000007  index of an entry that rests until it is due
//	/jobs/delayed/1700000000000-put-100-<16 hex>      a put that is due later
//	/jobs/dead/1700000000000-entry-100-0000000007     a dead entry
//	/jobs/broken/1700000000000-entry-100-0000000007   trace of a lock that was broken by hand
//	/jobs/unique/<64 hex>                             a unique key
//	/jobs/workers/<32 hex>                            a registered [Worker], ephemeral
//	/jobs/config                                      the [Config]
//	/jobs/count                                       written by every put into a queue with an exact bound
//	/jobs/retained                                    the log of that name (package retained)
//
// For all queues, /zkq/producers/<16 hex>-NN is a lane of a producer, with a [Marker],
// and /zkq/swept is the time of their last sweep.
package layout
