// Package embedded is the driver that keeps zkq queues in a directory of this machine.
// There is no server to install or start: the first process that opens the directory runs
// etcd inside itself, other processes connect to it, and when that process ends another one
// takes over. Only this package links the etcd server.
//
// # Which process runs the store
//
// Every process tries to lock the file lock in the directory. The kernel gives the lock to
// one of them, and frees it however that process ends. The process that holds the lock is
// the owner. It runs etcd on the socket sock in the directory; nothing listens on the
// network. Calls of other processes wait while the store changes its owner. Sessions, their
// nodes and watches survive the change.
//
//   - An owner that calls [Coordinator.Close] answers the requests that it has received,
//     and closes the store before it frees the lock. No call fails, and no outcome is
//     unknown.
//   - After kill -9 of the owner, commits in flight are coord.ErrUnknown. Answered
//     commits are there: every commit is on the disk before it is answered.
//   - An owner that is stopped (Ctrl-Z) keeps the lock. Open then returns a
//     [*StoppedOwnerError] that names the process. Sessions expire by their own clocks.
//   - When the disk is nearly full, puts are refused with coord.ErrBusy; takes, finishes
//     and removals go on. If a write fails all the same, the store stops with the reason
//     and is started again, in this process or in another.
//
// A process that stays, such as a worker or [Serve], spares short-lived processes the start
// of the store.
//
// # How dead processes lose their locks
//
// etcd's leases stand still while no process runs the store, and start anew with it. Among
// commands that each live for a moment they would never expire. So a process also locks a
// file for each of its sessions. The owner tries these locks when it opens the store,
// before it serves any request, and whenever a connection ends. It ends the sessions of
// dead processes, so that no other process waits for their timeout.
//
// # The directory
//
// The directory belongs to one user (mode 0700) and must be on a local file system. A
// container that shares it must share the kernel, and the process numbers if a stopped
// owner is to be named. The file FORMAT says which layout and which minor version of etcd
// wrote the store; a newer one is coord.ErrFormat. The size follows what is in the queues,
// not what went through them: while 100,000 entries of 100 bytes were put and consumed, the
// store never held more than 50 MB. The file reserve takes another 12 MiB, which are given
// up when the disk is full. There is no quota besides the disk.
//
// # Figures
//
// Measured by the benchmarks and tests of this package, on two cores shared with other work
// (load 4 to 7), with a disk that flushes in 0.1 ms:
//
//	start of the store          18–80 ms, mostly etcd's election of itself
//	orderly stop                1–3 ms
//	kill -9 to the next write   30–115 ms
//	open, put, close            90–130 ms alone, 3–10 ms beside an owner
//	the same as a process       100–130 ms alone, 23–30 ms beside an owner
//
// The first start of a new store starts etcd twice; these figures are from before it did.
// At a load of 19, a process that put alone took 380–430 ms, and 460–910 ms if it
// created the store.
//
// # Systems
//
// The package is tested on Linux. It also builds for other Unix systems, where it cannot
// recognize a stopped owner and accepts only short directory names.
package embedded

// For contributors: what the files hold.
//
//	coordinator  Open, Close: an etcdqueue.Coordinator that connects to the owner
//	owner        the goroutine that tries the lock and runs the store; serve is built on it
//	store        the running store: start, the gRPC server, the stop that loses no answer
//	server       etcd inside the store; crash learns from its log why it cannot go on
//	admission    refuses requests without space for them, before etcd sees them
//	maintenance  ends dead sessions, compacts, defragments, trims the log
//	sessions     a locked file per session, which shows whether its process lives
//	connections  the owner's listener, which knows the clients' processes
//	directory    the files of a store, its format and its user; create makes etcd's data
//	lock, space, system   what differs between operating systems
