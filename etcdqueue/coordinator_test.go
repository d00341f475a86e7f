package etcdqueue_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
	"github.com/zkq/zkq/internal/testtls"
)

// silent returns the address of a server that accepts connections and never answers.
func silent(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

const password = "correct-horse"

func TestBadConnectionsAreToldApart(t *testing.T) {
	ca, other := testtls.NewAuthority(t, "ca"), testtls.NewAuthority(t, "other")
	ca.Leaf(t, "server", net.IPv4(127, 0, 0, 1))
	ca.Leaf(t, "client")
	ca.Leaf(t, "elsewhere", net.IPv4(127, 9, 9, 9))
	serverTLS := testetcd.Options{Cert: ca.File("server", "crt"), Key: ca.File("server", "key")}
	plain := single.get(t).Endpoints()[0]
	encrypted := testetcd.StartFor(t, 1, serverTLS).Endpoints()[0]
	mutual := serverTLS
	mutual.CA = ca.File("ca", "crt")
	strict := testetcd.StartFor(t, 1, mutual).Endpoints()[0]
	misnamed := testetcd.StartFor(t, 1, testetcd.Options{Cert: ca.File("elsewhere", "crt"), Key: ca.File("elsewhere", "key")}).Endpoints()[0]
	ca.LeafUntil(t, "late", time.Now().Add(-time.Hour), net.IPv4(127, 0, 0, 1))
	expired := testetcd.StartFor(t, 1, testetcd.Options{Cert: ca.File("late", "crt"), Key: ca.File("late", "key")}).Endpoints()[0]
	guarded := guardedServer(t)

	none := closedPort(t)
	mute := silent(t)
	for _, c := range []struct {
		name  string
		cfg   etcdqueue.Config
		is    error
		says  []string
		quick bool // it cannot get better, so the call does not wait
	}{
		{"dead", etcdqueue.Config{Endpoints: []string{none}}, coord.ErrUnreachable, []string{none, "refused"}, false},
		{"all dead", etcdqueue.Config{Endpoints: []string{none, "unix:///nowhere/sock"}}, coord.ErrUnreachable, []string{none, "refused", "unix:///nowhere/sock", "no such file"}, false},
		{"mute", etcdqueue.Config{Endpoints: []string{mute}}, coord.ErrUnreachable, []string{mute, "no answer"}, false},
		{"mute with TLS", etcdqueue.Config{Endpoints: []string{mute}, TLS: ca.Trust(t)}, coord.ErrUnreachable, []string{mute, "no answer"}, false},
		{"wrong CA", etcdqueue.Config{Endpoints: []string{encrypted}, TLS: other.Trust(t)}, coord.ErrTLS, []string{encrypted, "unknown authority"}, true},
		{"wrong name", etcdqueue.Config{Endpoints: []string{misnamed}, TLS: ca.Trust(t)}, coord.ErrTLS, []string{misnamed, "127.9.9.9"}, true},
		{"expired", etcdqueue.Config{Endpoints: []string{expired}, TLS: ca.Trust(t)}, coord.ErrTLS, []string{expired, "expired"}, true},
		{"no client certificate", etcdqueue.Config{Endpoints: []string{strict}, TLS: ca.Trust(t)}, coord.ErrTLS, []string{strict, "certificate"}, true},
		{"plain text to TLS", etcdqueue.Config{Endpoints: []string{"http://" + encrypted}}, coord.ErrTLS, []string{encrypted, "speaks TLS"}, true},
		{"plain text to mutual TLS", etcdqueue.Config{Endpoints: []string{strict}}, coord.ErrTLS, []string{strict, "speaks TLS"}, true},
		{"TLS to plain text", etcdqueue.Config{Endpoints: []string{"https://" + plain}}, coord.ErrTLS, []string{plain, "speak TLS"}, true},
		{"wrong password", etcdqueue.Config{Endpoints: guarded.Endpoints(), Username: "worker", Password: password + "!"}, coord.ErrAuth, []string{guarded.Endpoints()[0], "authentication failed"}, true},
		{"unknown user", etcdqueue.Config{Endpoints: guarded.Endpoints(), Username: "nobody", Password: password}, coord.ErrAuth, nil, true},
		{"no password", etcdqueue.Config{Endpoints: guarded.Endpoints()}, coord.ErrAuth, []string{guarded.Endpoints()[0]}, true},
		{"outside the role", etcdqueue.Config{Endpoints: guarded.Endpoints(), Username: "worker", Password: password, Prefix: "/theirs"}, coord.ErrForbidden, nil, true},
		{"a bad prefix", etcdqueue.Config{Endpoints: []string{plain}, Prefix: "a/"}, coord.ErrInvalid, []string{"prefix"}, true},
		{"a bad scheme", etcdqueue.Config{Endpoints: []string{"ftp://h"}}, coord.ErrInvalid, []string{"ftp"}, true},
		{"no endpoint", etcdqueue.Config{}, coord.ErrInvalid, nil, true},
		{"half a login", etcdqueue.Config{Endpoints: []string{plain}, Username: "u"}, coord.ErrInvalid, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.cfg.ConnectTimeout = 12 * time.Second; c.quick {
				c.cfg.ConnectTimeout = 2 * patience
			}
			start := time.Now()
			client, err := etcdqueue.Open(t.Context(), c.cfg)
			took := time.Since(start)
			if err == nil {
				client.Close()
				t.Fatal("opened")
			}
			t.Logf("%v: %v", took, err)
			for _, kind := range []error{coord.ErrUnreachable, coord.ErrTLS, coord.ErrAuth, coord.ErrForbidden, coord.ErrInvalid} {
				if errors.Is(err, kind) != (kind == c.is) {
					t.Errorf("%v: errors.Is %v: %t", err, kind, kind != c.is)
				}
			}
			for _, word := range c.says {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%v does not say %q", err, word)
				}
			}
			if strings.Contains(err.Error(), password) || strings.Contains(fmt.Sprintf("%v %+v %#v", c.cfg, c.cfg, c.cfg), password) {
				t.Error("the password shows")
			}
			if took > patience {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestEncryptedConnectionsWork(t *testing.T) {
	ca := testtls.NewAuthority(t, "ca")
	ca.Leaf(t, "server", net.IPv4(127, 0, 0, 1))
	ca.Leaf(t, "client")
	cluster := testetcd.StartFor(t, 1, testetcd.Options{Cert: ca.File("server", "crt"), Key: ca.File("server", "key"), CA: ca.File("ca", "crt")})
	for _, scheme := range []string{"", "https://"} {
		s := session(t, open(t, etcdqueue.Config{Endpoints: []string{scheme + cluster.Endpoints()[0]}, TLS: ca.Trust(t, "client"), Prefix: prefix()}))
		commit(t, s, coord.CreateEphemeral("/q/a", nil))
		if _, err := s.Watch(within(t, patience), "/q"); err != nil {
			t.Error(err)
		}
	}
}

func TestADeadAddressBesideALivingOneIsNoObstacle(t *testing.T) {
	living := single.get(t).Endpoints()[0]
	for range 4 { // the first address is a random one
		start := time.Now()
		c := open(t, etcdqueue.Config{Endpoints: []string{closedPort(t), living, silent(t)}, Prefix: prefix()})
		commit(t, session(t, c), coord.Create("/q/a", nil))
		if took := time.Since(start); took > patience/2 {
			t.Errorf("it took %v", took)
		}
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := etcdqueue.Open(ctx, etcdqueue.Config{Endpoints: []string{silent(t)}, ConnectTimeout: 2 * patience})
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, coord.ErrUnreachable) || time.Since(start) > patience/2 {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

// guardedServer returns a server with a user whose role allows the prefix /ours only.
func guardedServer(t testing.TB) *testetcd.Cluster {
	t.Helper()
	cluster := testetcd.StartFor(t, 1, testetcd.Options{})
	admin := cluster.Client(t)
	ctx := within(t, patience)
	for _, do := range []func() error{
		func() error { _, err := admin.RoleAdd(ctx, "root"); return err },
		func() error { _, err := admin.UserAdd(ctx, "root", "root"); return err },
		func() error { _, err := admin.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := admin.RoleAdd(ctx, "ours"); return err },
		func() error {
			_, err := admin.RoleGrantPermission(ctx, "ours", "/ours/", "/ours0", clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := admin.UserAdd(ctx, "worker", password); return err },
		func() error { _, err := admin.UserGrantRole(ctx, "worker", "ours"); return err },
		func() error { _, err := admin.AuthEnable(ctx); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	return cluster
}

// TestARoleForThePrefixIsEnough makes every call with rights on the prefix alone, and again
// after the server has forgotten all tokens.
func TestARoleForThePrefixIsEnough(t *testing.T) {
	cluster := guardedServer(t)
	var warned []string
	c := open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Username: "worker", Password: password, Prefix: "/ours", SessionTimeout: 30 * time.Second, // logging in is slow work
		Warn: func(s string) { warned = append(warned, s) }})
	s := session(t, c)
	signal, err := s.Watch(within(t, patience), "/q", "/")
	if err != nil {
		t.Fatal(err)
	}
	everything := func() {
		t.Helper()
		r := commit(t, s, coord.CreateSequential("/q/entries/e-", []byte("v")), coord.CreateEphemeral("/q/lock", nil))
		r = commit(t, s, coord.Touch(r[0].Path, []byte("v"), r[0].Fence), coord.Replace(r[1].Path, nil, r[1].Fence))
		for _, dir := range []string{"/", "/q", "/q/entries"} {
			for _, o := range []coord.ListOptions{{}, {Limit: 1}, {Values: true}} {
				if _, err := s.List(t.Context(), dir, o); err != nil {
					t.Error(err)
				}
			}
			if _, err := s.Count(t.Context(), dir); err != nil {
				t.Error(err)
			}
		}
		var many []coord.Op
		for i := range 200 {
			many = append(many, coord.Create(fmt.Sprintf("/many/%d-%d", r[0].Fence, i), nil))
		}
		commit(t, s, many...)
		select {
		case <-signal:
		case <-time.After(patience):
			t.Error("no signal")
		}
		commit(t, s, coord.Delete(r[0].Path, r[0].Fence), coord.Delete(r[1].Path, r[1].Fence))
	}
	everything()
	cluster.Members[0].Kill()
	if err := cluster.Restart(); err != nil {
		t.Fatal(err)
	}
	everything()
	if _, err := s.Watch(within(t, patience), "/elsewhere"); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	root, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), Username: "root", Password: "root", Logger: zap.NewNop(), DialTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	leases, err := root.Leases(within(t, patience))
	if err != nil || len(leases.Leases) != 0 {
		t.Errorf("leases after the close: %+v, %v", leases, err)
	}
	if slices.ContainsFunc(warned, func(s string) bool { return strings.Contains(s, password) }) {
		t.Error("the password shows")
	}
}

// TestOpenWaitsForSpace opens a coordinator while etcd has no space, and frees it meanwhile.
func TestOpenWaitsForSpace(t *testing.T) {
	endpoints := testetcd.StartFor(t, 1, testetcd.Options{}).Endpoints()
	c, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := within(t, patience)
	status, err := c.Status(ctx, endpoints[0])
	if err != nil {
		t.Fatal(err)
	}
	member := status.Header.MemberId
	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: member, Alarm: pb.AlarmType_NOSPACE}
	if _, err := pb.NewMaintenanceClient(c.ActiveConnection()).Alarm(ctx, alarm); err != nil {
		t.Fatal(err)
	}
	_, err = etcdqueue.Open(ctx, etcdqueue.Config{Endpoints: endpoints, ConnectTimeout: 8 * time.Second})
	if !errors.Is(err, coord.ErrBusy) || !strings.Contains(err.Error(), "space") {
		t.Errorf("without space: %v", err)
	}
	told := &heard{}
	go func() {
		for !told.has("no new session", "space") && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		c.AlarmDisarm(context.Background(), &clientv3.AlarmMember{MemberID: member, Alarm: pb.AlarmType_NOSPACE})
	}()
	opened, err := etcdqueue.Open(ctx, etcdqueue.Config{Endpoints: endpoints, ConnectTimeout: patience, Warn: func(m string) { told.Warn(m) }})
	if err != nil {
		t.Fatalf("space was freed: %v", err)
	}
	opened.Close()
	told.await(t, "there is a session", "again")
}
