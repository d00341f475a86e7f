// Package services has the tests of the queue and the command that must come out the same on the embedded store, on a real
// etcd and on a real ZooKeeper: what they refuse, what they bear, and what they leave behind.
package services
