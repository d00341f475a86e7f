// Package testetcd runs etcd for tests: real processes, which run the test binary, and proxies
// between them and their clients.
package testetcd

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/zkq/zkq/internal/testport"
	"github.com/zkq/zkq/internal/testproxy"
)

// memberVariable is the environment variable with the Member that a process runs, as JSON.
const memberVariable = "ZKQ_TEST_ETCD_MEMBER"

// Main is the first call of a TestMain. In a process that a [Cluster] started it runs etcd, and
// does not return.
func Main() {
	config := os.Getenv(memberVariable)
	if config == "" {
		return
	}
	if err := serve(config); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Member is one process of a cluster.
type Member struct {
	Name       string
	Dir        string
	Client     string // URLs
	Peer       string // URL on which it listens for its peers
	Advertised string // URL at which its peers find it
	Cluster    string // all members, as in etcd's --initial-cluster
	Existing   bool   // it has been started before
	Tick       time.Duration
	Options

	peers   *testproxy.Link // between Advertised and Peer, if they differ
	process *exec.Cmd
	stdin   io.Closer
	exited  chan struct{}
	release func() // ends the reservation of the ports; may be nil
}

// serve runs a member until its standard input is closed, at the latest by the end of the parent
// process.
func serve(config string) error {
	var m Member
	if err := json.Unmarshal([]byte(config), &m); err != nil {
		return err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = m.Name, m.Dir
	cfg.TickMs, cfg.ElectionMs = uint(m.Tick.Milliseconds()), uint(10*m.Tick.Milliseconds())
	cfg.BcryptCost = 4 // the least, because hashing a password takes seconds under the race detector
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.EnableGRPCGateway = false
	cfg.QuotaBackendBytes = m.Quota
	if m.MaxTxnOps > 0 {
		cfg.MaxTxnOps = m.MaxTxnOps
	}
	if m.SnapCount > 0 {
		cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = m.SnapCount, m.SnapCount
	}
	cfg.ClientTLSInfo = transport.TLSInfo{CertFile: m.Cert, KeyFile: m.Key, TrustedCAFile: m.CA, ClientCertAuth: m.CA != ""}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = urls(m.Client), urls(m.Client)
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = urls(m.Peer), urls(m.Advertised)
	cfg.InitialCluster = m.Cluster
	if m.Existing {
		cfg.ClusterState = embed.ClusterStateFlagExisting
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	e.Close()
	return err
}

func urls(s string) []url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err) // a URL of this package
	}
	return []url.URL{*u}
}

// launch starts the process. It sends nil on ready when the member serves, and otherwise an error
// with the output of the process.
func (m *Member) launch() (ready chan error, err error) {
	config, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), memberVariable+"="+string(config))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	m.process, m.stdin, m.exited = cmd, stdin, make(chan struct{})
	ready = make(chan error, 1)
	go func() {
		defer close(m.exited)
		var said strings.Builder
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if lines.Text() == "ready" {
				ready <- nil
			}
			said.WriteString(lines.Text() + "\n")
		}
		cmd.Wait()
		select {
		case ready <- errors.New(m.Name + ": " + said.String()):
		default:
		}
	}()
	return ready, nil
}

// Kill kills the process.
func (m *Member) Kill() {
	if m.process == nil {
		return
	}
	m.process.Process.Kill()
	<-m.exited
	m.stdin.Close()
	m.process = nil
}

// Terminate ends the process in order, and returns when it has ended.
func (m *Member) Terminate() {
	if m.process == nil {
		return
	}
	m.stdin.Close()
	<-m.exited
	m.process = nil
}

// Backup copies the data of a member that does not run. Call restore once, when the member does
// not run either, to replace its data by the copy.
func (m *Member) Backup() (restore func() error, err error) {
	backup := m.Dir + ".backup"
	if err := os.CopyFS(backup, os.DirFS(m.Dir)); err != nil {
		return nil, err
	}
	return func() error { return errors.Join(os.RemoveAll(m.Dir), os.Rename(backup, m.Dir)) }, nil
}

// Pause stops the process until [Member.Resume]. It returns when all threads have stopped,
// which takes a moment on a busy machine: until then the member still answers.
func (m *Member) Pause() {
	m.process.Process.Signal(syscall.SIGSTOP)
	for end := time.Now().Add(patience); !isStopped(m.process.Process.Pid) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// isStopped reports whether no thread of the process runs. It is true on systems without
// /proc, where this cannot be seen.
func isStopped(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			continue // the thread has ended
		}
		// The state follows the command's name, which is in parentheses.
		if end := bytes.LastIndexByte(stat, ')'); end >= 0 && len(stat) > end+2 && stat[end+2] != 'T' {
			return false
		}
	}
	return true
}

// Resume lets a paused process go on. It does nothing after [Member.Kill].
func (m *Member) Resume() {
	if m.process != nil {
		m.process.Process.Signal(syscall.SIGCONT)
	}
}

// Watches returns how many watches the member at an endpoint keeps for all clients.
func Watches(endpoint string) (int, error) {
	n := -1
	err := metrics(endpoint, func(name string, count float64) bool {
		if name == "etcd_debugging_mvcc_watcher_total" {
			n = int(count)
		}
		return n < 0
	})
	if err == nil && n < 0 {
		err = fmt.Errorf("%s does not report its watches", endpoint)
	}
	return n, err
}

// Requests returns how many requests a member has received, by method.
func Requests(endpoint string) (map[string]int, error) {
	requests := make(map[string]int)
	err := metrics(endpoint, func(name string, n float64) bool {
		if labels, ok := strings.CutPrefix(name, "grpc_server_started_total{"); ok && n > 0 {
			_, method, _ := strings.Cut(labels, `grpc_method="`)
			method, _, _ = strings.Cut(method, `"`)
			requests[method] += int(n)
		}
		return true
	})
	return requests, err
}

// metrics calls f with each metric of a member, until f returns false.
func metrics(endpoint string, f func(name string, n float64) bool) error {
	transport := &http.Transport{DisableKeepAlives: true}
	r, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Get("http://" + endpoint + "/metrics")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if strings.HasPrefix(name, "#") {
			continue
		}
		if n, err := strconv.ParseFloat(value, 64); err == nil && !f(name, n) {
			break
		}
	}
	return nil
}

// choosePlace chooses free ports and an empty directory.
func (m *Member) choosePlace(dir string) error {
	m.Dir, m.Existing = filepath.Join(dir, m.Name), false
	if err := os.RemoveAll(m.Dir); err != nil {
		return err
	}
	ports, release, err := testport.Reserve(2)
	if err != nil {
		return err
	}
	m.release = release
	scheme := "http"
	if m.Cert != "" {
		scheme = "https"
	}
	m.Client = fmt.Sprintf("%s://127.0.0.1:%d", scheme, ports[0])
	m.Peer = fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	m.Advertised = m.Peer
	return nil
}
