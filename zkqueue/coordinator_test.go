package zkqueue_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/zkqueue"
)

func TestBadConfigIsInvalid(t *testing.T) {
	for name, cfg := range map[string]zkqueue.Config{
		"no servers":            {},
		"no port":               {Servers: []string{"zk1"}},
		"bad port":              {Servers: []string{"zk1:port"}},
		"port out of range":     {Servers: []string{"zk1:70000"}},
		"IPv6 without brackets": {Servers: []string{"::1:2181"}},
		"no host":               {Servers: []string{":2181"}},
		"a scheme":              {Servers: []string{"zk://zk1:2181"}},
		"chroot without slash":  {Servers: []string{"zk1:2181"}, Chroot: "a"},
		"chroot with dots":      {Servers: []string{"zk1:2181"}, Chroot: "/a/../b"},
		"password in the clear": {Servers: []string{"127.0.0.1:2181", "zk1:2181"}, Username: "u", Password: "canary"},
		"password, no user":     {Servers: []string{"127.0.0.1:2181"}, Password: "canary"},
		"negative timeout":      {Servers: []string{"127.0.0.1:2181"}, SessionTimeout: -1},
	} {
		_, err := zkqueue.Open(within(t, patience), cfg)
		if !errors.Is(err, coord.ErrInvalid) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

func TestConfigKeepsItsPassword(t *testing.T) {
	cfg := zkqueue.Config{Servers: []string{"zk1:2181"}, Username: "u", Password: "canary"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, x := range []any{cfg, &cfg} {
			if got := fmt.Sprintf(verb, x); strings.Contains(got, "canary") || !strings.Contains(got, "zk1:2181") {
				t.Errorf("%s prints %s", verb, got)
			}
		}
	}
}

// listener accepts connections and gives each to serve, until the test ends.
func listener(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	return accept(t, "127.0.0.1:0", serve)
}

// accept is listener at a given address.
func accept(t *testing.T, address string, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

func TestUnreachableNamesEachAddressAndCause(t *testing.T) {
	t.Parallel()
	dead, silent := closedPort(t), listener(t, func(net.Conn) {})
	eof := listener(t, func(c net.Conn) { c.Close() })
	web := listener(t, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	alert := listener(t, func(c net.Conn) { c.Write([]byte{0x15, 3, 3, 0, 2, 2, 40}); io.Copy(io.Discard, c) })
	for _, test := range []struct {
		name     string
		servers  []string
		tls      bool
		want     error
		causes   []string
		hopeless bool // Open ends long before its connect timeout
	}{
		{"dead", []string{dead}, false, coord.ErrUnreachable, []string{dead, "refused"}, true},
		{"silent", []string{silent}, false, coord.ErrUnreachable, []string{silent, "no answer"}, false},
		{"closes", []string{eof}, false, coord.ErrUnreachable, []string{eof, "closed"}, false},
		{"a web server", []string{web}, false, coord.ErrUnreachable, []string{web, "not a ZooKeeper"}, false},
		{"all of them", []string{dead, silent, eof}, false, coord.ErrUnreachable, []string{dead, "refused", silent, eof, "closed"}, false},
		{"plaintext to TLS", []string{alert}, false, coord.ErrTLS, []string{alert}, true},
		{"TLS to what closes", []string{eof}, true, coord.ErrUnreachable, []string{eof, "does it speak TLS?"}, false},
		{"TLS to plaintext", servers.Single(t).Addresses(), true, coord.ErrTLS, []string{"does not speak TLS"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg := zkqueue.Config{Servers: test.servers, ConnectTimeout: 5 * time.Second}
			if test.hopeless {
				cfg.ConnectTimeout = 2 * patience
			}
			if test.tls {
				cfg.TLS = &tls.Config{}
			}
			begun := time.Now()
			_, err := zkqueue.Open(context.Background(), cfg)
			if d := time.Since(begun); d > patience {
				t.Errorf("took %v", d)
			}
			if !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			for _, cause := range test.causes {
				if !strings.Contains(fmt.Sprint(err), cause) {
					t.Errorf("%q is not in %v", cause, err)
				}
			}
		})
	}
}

// TestNothingIsHopelessAfterASession has a load balancer in front of the server fail in
// ways that pass, for longer than a session: opening a session, a put and a worker must
// wait until it works again.
func TestNothingIsHopelessAfterASession(t *testing.T) {
	t.Parallel()
	p, stranger := newPKI(t), newPKI(t)
	good := p.issue(t, time.Now().Add(time.Hour), "127.0.0.1")
	bad := stranger.issue(t, time.Now().Add(time.Hour), "127.0.0.1")
	server := servers.Single(t).Addresses()[0]
	up := tlsFront(t, &tls.Config{Certificates: []tls.Certificate{good}})
	for name, away := range map[string]string{
		"closes":                  listener(t, func(c net.Conn) { c.Close() }),
		"resets":                  listener(t, func(c net.Conn) { c.(*net.TCPConn).SetLinger(0); c.Close() }),
		"has another certificate": tlsFront(t, &tls.Config{Certificates: []tls.Certificate{bad}}),
		"does not speak TLS":      server,
		"does not listen":         closedPort(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			to := up
			var conns []net.Conn
			warned := make(chan string, 100)
			c := open(t, zkqueue.Config{
				Servers: []string{up}, Chroot: chroot(t), TLS: &tls.Config{RootCAs: p.pool}, SessionTimeout: 4 * time.Second,
				Warn: func(s string) { warned <- s },
				Dial: func(ctx context.Context, _ string) (net.Conn, error) {
					mu.Lock()
					defer mu.Unlock()
					nc, err := new(net.Dialer).DialContext(ctx, "tcp", to)
					conns = append(conns, nc)
					return nc, err
				},
			})
			q := zkq.NewLockingQueue(c, "jobs")
			defer q.Close()
			handled := make(chan string, 10)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			run := make(chan error, 1)
			go func() {
				w := zkq.Worker{Queue: q, Handler: zkq.HandlerFunc(func(_ context.Context, h *zkq.Held) error {
					handled <- string(h.Value)
					return nil
				})}
				run <- w.Run(ctx)
			}()
			put := func(v string) error {
				_, err := q.Put(within(t, patience), []byte(v))
				return err
			}
			if err := put("before"); err != nil {
				t.Fatal(err)
			}
			<-handled
			eventually(t, patience, "the first entry is done", func() bool {
				n, err := q.Len(within(t, patience))
				return n == 0 && err == nil
			})
			for len(handled) > 0 { // it may have been handed out again
				<-handled
			}

			s := session(t, c)
			mu.Lock()
			to = away
			for _, nc := range conns {
				if nc != nil {
					nc.Close()
				}
			}
			mu.Unlock()
			<-s.Done()
			done := make(chan error, 1)
			go func() { done <- put("meanwhile") }()
			for told := false; !told; {
				select {
				case said := <-warned:
					told = strings.Contains(said, "no new session")
				case err := <-done:
					t.Fatalf("the put ended: %v", err)
				case err := <-run:
					t.Fatalf("the worker ended: %v", err)
				case <-time.After(patience):
					t.Fatal("no warning")
				}
			}
			mu.Lock()
			to = up
			mu.Unlock()
			if err := <-done; err != nil {
				t.Errorf("put: %v", err)
			}
			if got := <-handled; got != "meanwhile" {
				t.Errorf("handled %q", got)
			}
			eventually(t, patience, "the end of the trouble is told", func() bool {
				select {
				case said := <-warned:
					return strings.Contains(said, "again")
				default:
					return false
				}
			})
			cancel()
			if err := <-run; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

func TestSessionWaitsForTheServiceToComeBack(t *testing.T) {
	t.Parallel()
	link := threeWays(t)
	c := open(t, zkqueue.Config{Servers: link.Addresses(), Chroot: chroot(t), SessionTimeout: 6 * time.Second})
	s := session(t, c)
	link.Cut()
	<-s.Done()
	if _, err := c.Session(within(t, 100*time.Millisecond)); !errors.Is(err, coord.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("session over a cut link: %v, want ErrUnreachable and the context's error", err)
	}
	time.AfterFunc(200*time.Millisecond, link.Heal)
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wg.Go(func() { ids[i] = session(t, c).ID() })
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] || id == s.ID() {
			t.Fatalf("sessions %q after %q; want one new one for all", ids, s.ID())
		}
	}
}

func TestOneDeadServerOfThreeCostsLittle(t *testing.T) {
	t.Parallel()
	silent := listener(t, func(net.Conn) {})
	cfg := zkqueue.Config{
		Servers:        []string{closedPort(t), silent, servers.Single(t).Addresses()[0]},
		Chroot:         chroot(t),
		SessionTimeout: 3 * time.Second,
	}
	begun := time.Now()
	open(t, cfg)
	if d := time.Since(begun); d > patience/2 {
		t.Errorf("opened after %v", d)
	}
}

func TestNewerLayoutIsRefused(t *testing.T) {
	root := chroot(t)
	cfg := zkqueue.Config{Servers: servers.Single(t).Addresses(), Chroot: root}
	s := session(t, open(t, cfg))
	commit(t, s, coord.Set("/zkq/format", []byte("2"), 0))
	if _, err := zkqueue.Open(within(t, patience), cfg); !errors.Is(err, coord.ErrFormat) {
		t.Errorf("open of layout 2: %v, want ErrFormat", err)
	}
}

func TestGrantedTimeoutIsKnownAndWarnedOf(t *testing.T) {
	var warned []string
	c := open(t, zkqueue.Config{
		Servers: servers.Single(t).Addresses(), Chroot: chroot(t), SessionTimeout: time.Hour,
		Warn: func(w string) { warned = append(warned, w) },
	})
	if d := session(t, c).Timeout(); d >= time.Hour || d < time.Second || len(warned) != 1 || !strings.Contains(warned[0], d.String()) {
		t.Errorf("granted %v, warnings %q", d, warned)
	}
}

func TestDigestRightsHoldAcrossReconnects(t *testing.T) {
	t.Parallel()
	root, link := chroot(t), singleLink(t)
	cfg := zkqueue.Config{Servers: link.Addresses(), Chroot: root, Username: "ann", Password: "canary"}
	s := session(t, open(t, cfg))
	z := plain(t)
	if _, err := z.Create(root+"/secret", []byte("x"), 0, zk.DigestACL(zk.PermAll, "ann", "canary")); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if n, err := s.Get(within(t, patience), "/secret"); err != nil || string(n.Value) != "x" {
			t.Fatalf("ann reads %q, %v", n.Value, err)
		}
		link.Kill()
	}
	cfg.Password = "wrong"
	wrong := session(t, open(t, cfg))
	for name, err := range map[string]error{
		"get":    second(wrong.Get(within(t, patience), "/secret")),
		"set":    second(wrong.Commit(within(t, patience), coord.Set("/secret", nil, 0))),
		"create": second(wrong.Commit(within(t, patience), coord.Create("/secret/a/b", nil))),
		"list":   second(wrong.List(within(t, patience), "/secret", coord.ListOptions{})),
		"watch":  second(wrong.Watch(within(t, patience), "/secret")),
	} {
		if !errors.Is(err, coord.ErrForbidden) || errors.Is(err, coord.ErrUnknown) || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s with a wrong password: %v, want ErrForbidden", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// pki is a certificate authority and the certificates that it signed.
type pki struct {
	pool *x509.CertPool
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{pool: x509.NewCertPool()}
	p.ca = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, p.ca, p.ca, &p.key.PublicKey, p.key)
	if err != nil {
		t.Fatal(err)
	}
	if p.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	p.pool.AddCert(p.ca)
	return p
}

func (p *pki) issue(t *testing.T, until time.Time, hosts ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, p.ca, &key.PublicKey, p.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tlsFront returns the address of a TLS proxy in front of the real server.
func tlsFront(t *testing.T, cfg *tls.Config) string {
	server := servers.Single(t).Addresses()[0]
	return listener(t, func(c net.Conn) {
		defer c.Close()
		tc := tls.Server(c, cfg)
		if tc.Handshake() != nil {
			return
		}
		up, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(up, tc); up.Close() })
		io.Copy(tc, up)
		c.Close()
		wg.Wait()
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	p, stranger := newPKI(t), newPKI(t)
	good, later := p.issue(t, time.Now().Add(time.Hour), "127.0.0.1"), time.Now().Add(time.Hour)
	for _, test := range []struct {
		name   string
		server *tls.Config
		client *tls.Config
		ok     bool
	}{
		{"trusted", &tls.Config{Certificates: []tls.Certificate{good}}, &tls.Config{RootCAs: p.pool}, true},
		{
			"mutual", &tls.Config{Certificates: []tls.Certificate{good}, ClientCAs: p.pool, ClientAuth: tls.RequireAndVerifyClientCert},
			&tls.Config{RootCAs: p.pool, Certificates: []tls.Certificate{good}}, true,
		},
		{"another authority", &tls.Config{Certificates: []tls.Certificate{good}}, &tls.Config{RootCAs: stranger.pool}, false},
		{"another name", &tls.Config{Certificates: []tls.Certificate{p.issue(t, later, "elsewhere")}}, &tls.Config{RootCAs: p.pool}, false},
		{"expired", &tls.Config{Certificates: []tls.Certificate{p.issue(t, time.Now().Add(-time.Hour), "127.0.0.1")}}, &tls.Config{RootCAs: p.pool}, false},
		{"too old", &tls.Config{Certificates: []tls.Certificate{good}, MaxVersion: tls.VersionTLS11}, &tls.Config{RootCAs: p.pool, MinVersion: tls.VersionTLS10}, false},
		{
			"no client certificate", &tls.Config{Certificates: []tls.Certificate{good}, ClientCAs: p.pool, ClientAuth: tls.RequireAndVerifyClientCert, MaxVersion: tls.VersionTLS12},
			&tls.Config{RootCAs: p.pool}, false,
		},
		{
			"no client certificate, TLS 1.3", &tls.Config{Certificates: []tls.Certificate{good}, ClientCAs: p.pool, ClientAuth: tls.RequireAndVerifyClientCert},
			&tls.Config{RootCAs: p.pool}, false,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg := zkqueue.Config{Servers: []string{tlsFront(t, test.server)}, Chroot: chroot(t), TLS: test.client, Username: "ann", Password: "canary", ConnectTimeout: patience}
			c, err := zkqueue.Open(context.Background(), cfg)
			if !test.ok {
				if !errors.Is(err, coord.ErrTLS) || strings.Contains(fmt.Sprint(err), "canary") {
					t.Errorf("%v, want ErrTLS", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			commit(t, session(t, c), coord.Create("/q/a", nil))
		})
	}
}
