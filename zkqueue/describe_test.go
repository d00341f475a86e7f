package zkqueue_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/zkqueue"
)

var _ coord.Describer = (*zkqueue.Coordinator)(nil)

func TestDescribeAsksEveryServer(t *testing.T) {
	c := open(t, zkqueue.Config{Servers: append(servers.Ensemble(t).Addresses(), "127.0.0.1:1"), Chroot: chroot(t)})
	session(t, c)
	var service coord.Service
	eventually(t, patience, "one leads and one is in use", func() bool { // one that has just lost the lead may say for a moment that it has it
		var err error
		service, err = c.Describe(within(t, patience))
		if err != nil || service.Name != "ZooKeeper" || len(service.Servers) != 4 {
			t.Fatalf("%+v, %v", service, err)
		}
		modes, used := map[string]int{}, 0
		for _, s := range service.Servers[:3] {
			modes[s.Mode]++
			if s.InUse {
				used++
			}
		}
		return modes["leader"] == 1 && modes["follower"] == 2 && used == 1
	})
	for _, s := range service.Servers[:3] {
		if s.Err != nil || !strings.HasPrefix(s.Version, "3.") || strings.Contains(s.Version, "-") {
			t.Errorf("%+v", s)
		}
	}
	if s := service.Servers[3]; s.Address != "127.0.0.1:1" || s.InUse || s.Err == nil || !strings.Contains(s.Err.Error(), "refused") {
		t.Errorf("nobody listens there: %+v", s)
	}
}

// teller answers every connection with the same words, or with nil not at all.
func teller(t *testing.T, words []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		var held []net.Conn
		for {
			nc, err := l.Accept()
			if err != nil {
				break
			}
			if words == nil {
				held = append(held, nc)
				continue
			}
			io.ReadFull(nc, make([]byte, 4))
			nc.Write(words)
			nc.Close()
		}
		for _, nc := range held {
			nc.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-served
	})
	return l.Addr().String()
}

func TestDescribeSaysWhatServersDoNotTell(t *testing.T) {
	shy := teller(t, []byte("srvr is not executed because it is not in the whitelist.\n"))
	idle := teller(t, []byte("This ZooKeeper instance is not currently serving requests\n"))
	mute := teller(t, nil)
	living := servers.Single(t).Addresses()[0]
	c := open(t, zkqueue.Config{Servers: []string{living, shy, idle, mute}, Chroot: chroot(t), ConnectTimeout: 2 * patience})
	began := time.Now()
	service, err := c.Describe(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("it took %v", took)
	}
	for i, says := range []string{"", "4lw.commands.whitelist", "not currently serving", "no answer"} {
		if err := service.Servers[i].Err; (err != nil) != (says != "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("server %d says %v, want %q", i, err, says)
		}
	}
}

func TestDescribeAfterCloseIsErrClosed(t *testing.T) {
	c := open(t, zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: chroot(t)})
	c.Close()
	if _, err := c.Describe(within(t, patience)); !errors.Is(err, coord.ErrClosed) {
		t.Errorf("%v", err)
	}
}
