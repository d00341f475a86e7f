package layout

import "github.com/zkq/zkq/priority"

// BeforeEntries sorts before [EntriesDir], and no other name of a queue's nodes lies
// between. A listing of one node after it shows whether the queue is a locking one.
const BeforeEntries = "entrier~"

// ShowsLocking reports whether a node of that name below a queue's node says that it is a
// locking queue.
func ShowsLocking(name string) bool { return name == EntriesDir }

// ShowsPlain reports whether a node of that name below a queue's node says that it is a
// plain queue: its entries lie there.
func ShowsPlain(name string) bool {
	_, ok := priority.Parse(name)
	return ok
}
