package coord

import "context"

// Describer is what a [Coordinator] may be besides: it tells people what it has
// reached. No queue depends on it.
type Describer interface {
	// Describe asks every server that the coordinator was given an address of,
	// for at most a few seconds and no longer than ctx. What is wrong with one
	// of them is in its [Server.Err]. After Close: [ErrClosed].
	Describe(ctx context.Context) (Service, error)
}

// Service is what a coordinator has reached.
type Service struct {
	Name    string   // "ZooKeeper", "etcd"
	Servers []Server // in the order of their addresses in the configuration
}

// Server is one server of a service. What it did not tell is "".
type Server struct {
	Address string
	InUse   bool // the coordinator's connection leads to it
	Version string
	Mode    string // its part in the cluster: "leader", "follower", ...
	Err     error  // why it did not answer, or what it complains of
}
