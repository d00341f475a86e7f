// Zkq puts values into work queues kept in ZooKeeper, etcd or an embedded
// store, and takes them out again; docs/cli.md is its reference. This package
// is the only one of the module that prints, reads the environment and exits.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
