// Package embedded keeps zkq queues in a directory of this machine. There is no
// server to install or start: the first process that opens the directory runs
// etcd inside itself, the others connect to it, and when it ends another one
// takes over. Programs that name a service do not import this package, and so do
// not carry the etcd server.
//
// # Who runs the store
//
// Every process tries a lock on the file lock; the kernel gives it to one, and
// frees it however that process ends. The winner, the owner, starts etcd on the
// socket sock in the directory; nothing listens on the network. Calls of other
// processes wait while the store changes hands. Sessions, their nodes and watches
// survive it.
//
//   - An owner that leaves in order ([Coordinator.Close]) answers what was asked
//     before, and closes the store before it frees the lock. Nobody gets an error,
//     and no outcome is unknown.
//   - After kill -9 of the owner what was in flight is coord.ErrUnknown. What was
//     acknowledged is there: every commit is on the disk before it is answered.
//   - An owner that is stopped (Ctrl-Z) still has the lock. Open then returns a
//     [*StoppedOwnerError] that names it. Sessions end by their own clock.
//   - Where the disk is nearly full, puts are refused with coord.ErrBusy; takes,
//     finishes and removals go on. Where a write fails all the same, the store stops
//     with the reason and is started again, here or in another process.
//
// A process that stays, such as a worker or [Serve], spares short-lived ones the
// start of the store.
//
// # Whose locks
//
// A lease stands still while nobody runs the store, and starts anew with it, so
// it would never expire among commands that each live for a moment. Therefore a
// process also locks a file for each of its sessions. The owner tries these when
// it opens the store, before it serves anybody, and when a connection ends: the
// sessions of dead processes are ended, their nodes go, and nobody waits for a
// timeout.
//
// # The directory
//
// It is for its user alone (mode 0700) and must be on a local file system; a
// container that shares it must share the kernel, and process numbers if a
// stopped owner is to be named. FORMAT says which layout and which minor version
// of etcd wrote it; a newer one is coord.ErrFormat. Its size follows what is in
// the queues, not what went through them: while 100,000 entries of 100 bytes were
// put and consumed it never held more than 50 MB, without the 12 MiB of the file
// reserve, which is given up when the disk is full. There is no quota besides the disk.
//
// # Figures
//
// Two cores shared with other work (load 4 to 7), a disk that flushes in 0.1 ms;
// the benchmarks and tests here print them.
//
//	start of the store          18–80 ms, mostly etcd's election of itself
//	orderly stop                1–3 ms
//	kill -9 to the next write   30–115 ms
//	open, put, close            90–130 ms alone, 3–10 ms beside an owner
//	the same as a process       100–130 ms alone, 23–30 ms beside an owner
//
// The first start of a new store starts etcd twice. These figures are from before it did.
// At a load of 19 a process that put alone took 380–430 ms, and 460–910 ms if it made the store.
//
// It runs on Linux, where it is tested, and is built for other Unix systems,
// which cannot tell a stopped owner and take only short directory names.
package embedded
