package main

import (
	"context"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/etcdqueue/embedded"
	"github.com/zkq/zkq/zkqueue"
)

// openOptions holds the settings that every driver takes.
type openOptions struct {
	sessionTimeout time.Duration
	connectTimeout time.Duration
	credentials    credentials
	warn           func(string) // receives the driver's warnings
}

// openCoordinator opens the driver for the target's scheme.
//
// A new scheme needs a case here: the default is etcd. It must also be added to
// parseTarget, which refuses unknown schemes, and to the expressions of hide.go, which keep
// passwords out of messages. target.encrypted names the schemes that use TLS, and the help
// of --coordinator lists all schemes.
func openCoordinator(ctx context.Context, t target, o openOptions) (coord.Coordinator, error) {
	switch t.scheme {
	case "local":
		return asCoordinator(embedded.Open(ctx, embedded.Config{
			Dir:            t.dir,
			SessionTimeout: o.sessionTimeout,
			ConnectTimeout: o.connectTimeout,
			Warn:           o.warn,
		}))
	case "zk", "zks":
		return asCoordinator(zkqueue.Open(ctx, zkqueue.Config{
			Servers:        t.hosts,
			Chroot:         t.prefix,
			Username:       o.credentials.user,
			Password:       o.credentials.password,
			TLS:            o.credentials.tls,
			SessionTimeout: o.sessionTimeout,
			ConnectTimeout: o.connectTimeout,
			Warn:           o.warn,
		}))
	default:
		return asCoordinator(etcdqueue.Open(ctx, etcdqueue.Config{
			Endpoints:      t.hosts,
			Prefix:         t.prefix,
			Username:       o.credentials.user,
			Password:       o.credentials.password,
			TLS:            o.credentials.tls,
			SessionTimeout: o.sessionTimeout,
			ConnectTimeout: o.connectTimeout,
			Warn:           o.warn,
		}))
	}
}

// asCoordinator converts a driver's result to the interface. On an error it returns a nil
// interface, not an interface that holds a nil pointer.
func asCoordinator[C coord.Coordinator](c C, err error) (coord.Coordinator, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}
