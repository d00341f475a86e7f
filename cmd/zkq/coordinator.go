package main

import (
	"context"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/etcdqueue/embedded"
	"github.com/zkq/zkq/zkqueue"
)

// openOptions are what every driver takes.
type openOptions struct {
	sessionTimeout time.Duration
	connectTimeout time.Duration
	credentials    credentials
	warn           func(string)
}

// openCoordinator opens the driver that the target's scheme names.
func openCoordinator(ctx context.Context, t target, o openOptions) (coord.Coordinator, error) {
	switch t.scheme {
	case "local":
		return coordinator(embedded.Open(ctx, embedded.Config{
			Dir:            t.dir,
			SessionTimeout: o.sessionTimeout,
			ConnectTimeout: o.connectTimeout,
			Warn:           o.warn,
		}))
	case "zk", "zks":
		return coordinator(zkqueue.Open(ctx, zkqueue.Config{
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
		return coordinator(etcdqueue.Open(ctx, etcdqueue.Config{
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

// coordinator keeps a driver's nil pointer from becoming a Coordinator that is
// not nil.
func coordinator[C coord.Coordinator](c C, err error) (coord.Coordinator, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}
