package coord

import "context"

// Describer is an optional interface of a [Coordinator]. It describes the service for
// operators. No queue depends on it.
type Describer interface {
	// Describe asks every server in the coordinator's configuration. It blocks for
	// at most a few seconds and no longer than ctx. The failure of one server is in
	// its [Server.Err]. After Close it returns [ErrClosed].
	Describe(ctx context.Context) (Service, error)
}

// Service describes the service of a coordinator.
type Service struct {
	Name    string   // "ZooKeeper", "etcd"
	Servers []Server // in the order of their addresses in the configuration
}

// Server is one server of a service. A field that the server did not report is "".
type Server struct {
	Address string
	InUse   bool // the coordinator's connection leads to it
	Version string
	Mode    string // its role in the cluster: "leader", "follower", ...
	Err     error  // why it did not answer, or the problem that it reports
}
