// Package headtohead lets the same faults happen to kazoo's LockingQueue and to zkq's, in the same order, and judges both
// by the same two witnesses: what the clients wrote down, and what ZooKeeper's members have in their logs.
package headtohead
