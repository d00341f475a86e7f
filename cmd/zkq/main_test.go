package main

import (
	"flag"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/zkq/zkq/internal/testetcd"
	"github.com/zkq/zkq/internal/testzk"
)

// commands are the programs that tests start by name.
var commands = map[string]func(){"zkq": main}

func TestMain(m *testing.M) {
	testetcd.Main()
	testscript.Main(tidy{m}, commands)
}

// tidy ends the servers after a run of tests, and fails one that leaves goroutines
// behind.
type tidy struct{ m *testing.M }

func (t tidy) Run() int {
	// What this process ignores, under nohup say, its children would ignore as well:
	// what it catches they have from the start.
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	flag.Set("test.parallel", "6") // unless the command line says otherwise: most of them wait for processes
	code := t.m.Run()
	zooKeepers.Stop()
	if etcd != nil {
		etcd.Stop()
	}
	if err := goleak.Find(); err != nil && code == 0 {
		os.Stderr.WriteString("goroutines were left behind: " + err.Error() + "\n")
		return 1
	}
	return code
}

// The servers that tests share; each works at a place of its own.
var (
	zooKeepers testzk.Servers

	startEtcd sync.Once
	etcd      *testetcd.Cluster
	errEtcd   error
)

func etcdServer(t *testing.T) *testetcd.Cluster {
	t.Helper()
	startEtcd.Do(func() { etcd, errEtcd = testetcd.Start(1, testetcd.Options{}) })
	if errEtcd != nil {
		t.Fatal(errEtcd)
	}
	return etcd
}
