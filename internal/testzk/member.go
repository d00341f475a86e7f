// Package testzk runs ZooKeeper for tests: real server processes on free ports, and proxies
// between them and their clients.
package testzk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Member is one server process of a [Cluster].
type Member struct {
	Address string // host:port for clients

	number        int // from 0
	snapCount     int
	maxBuffer     int
	enforcesQuota bool // see Options.EnforceQuota
	dir           string
	classpath     string
	cmd           *exec.Cmd
	exited        chan struct{}
	wasStopped    bool // by Kill or Terminate
}

// start starts the server. It does not wait until the server serves.
func (m *Member) start() error {
	log, err := os.OpenFile(filepath.Join(m.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{
		// The server keeps its last 500 transactions in memory, however large they are.
		"-Xms32m", "-Xmx800m", "-XX:+ExitOnOutOfMemoryError", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
		"-Dzookeeper.preAllocSize=4096", "-Dzookeeper.forceSync=no", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
	}
	if m.snapCount > 0 {
		args = append(args, fmt.Sprintf("-Dzookeeper.snapCount=%d", m.snapCount))
	}
	if m.enforcesQuota {
		args = append(args, "-Dzookeeper.enforceQuota=true")
	}
	if m.maxBuffer > 0 {
		args = append(args, fmt.Sprintf("-Djute.maxbuffer=%d", m.maxBuffer))
	}
	cmd := exec.Command("java", append(args,
		"-cp", m.classpath, "org.apache.zookeeper.server.quorum.QuorumPeerMain", filepath.Join(m.dir, "zoo.cfg"))...)
	cmd.Dir = m.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = diesWithParent()
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	m.cmd, m.exited, m.wasStopped = cmd, exited, false
	return nil
}

func (m *Member) isRunning() bool {
	if m.cmd == nil {
		return false
	}
	select {
	case <-m.exited:
		return false
	default:
		return true
	}
}

// Kill kills the process. If it has ended by itself before, Kill prints its log.
func (m *Member) Kill() {
	if m.cmd == nil {
		return
	}
	if !m.isRunning() && !m.wasStopped {
		fmt.Fprintf(os.Stderr, "ZooKeeper at %s had ended by itself: %s\n", m.Address, m.logTail())
	}
	m.wasStopped = true
	m.cmd.Process.Kill()
	<-m.exited
}

// Terminate ends the process in order, and returns when it has ended.
func (m *Member) Terminate() error {
	m.wasStopped = true
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-m.exited
	return nil
}

// Pause stops the process. Its connections stay open and silent.
func (m *Member) Pause() error { return m.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (m *Member) Resume() error { return m.cmd.Process.Signal(syscall.SIGCONT) }

// Ask sends a four letter word and returns the answer.
func (m *Member) Ask(word string) (string, error) { return Ask(m.Address, word) }

// Ask sends a four letter word to the server at an address.
func Ask(address, word string) (string, error) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, word); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}

// Watches returns how many watches the server at an address has, of all kinds and sessions. (The
// words wchs and wchp do not report child watches.)
func Watches(address string) (int, error) {
	answer, err := Ask(address, "mntr")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(answer) {
		if count, ok := strings.CutPrefix(line, "zk_watch_count\t"); ok {
			return strconv.Atoi(strings.TrimSpace(count))
		}
	}
	return 0, fmt.Errorf("mntr does not report watches: %.100q", answer)
}

// Leads reports whether the member is the leader.
func (m *Member) IsLeader() bool {
	answer, err := m.Ask("srvr")
	return err == nil && strings.Contains(answer, "Mode: leader")
}

// awaitServing waits until the server serves, for at most the limit.
func (m *Member) awaitServing(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		// ruok answers before the server serves.
		if answer, err := m.Ask("srvr"); err == nil && strings.Contains(answer, "Mode:") {
			return nil
		}
		select {
		case <-time.After(25 * time.Millisecond):
		case <-m.exited:
			return fmt.Errorf("ZooKeeper at %s ended: %s", m.Address, m.logTail())
		case <-ctx.Done():
			return fmt.Errorf("ZooKeeper at %s does not serve: %s", m.Address, m.logTail())
		}
	}
}

// logTail returns the last 4 KiB of the log.
func (m *Member) logTail() string {
	b, _ := os.ReadFile(filepath.Join(m.dir, "log"))
	if len(b) > 4096 {
		b = b[len(b)-4096:]
	}
	return string(b)
}

// errNoZooKeeper means that the server is not on this machine.
var errNoZooKeeper = errors.New("no ZooKeeper jars in $ZOOKEEPER_HOME or /usr/share/java, or no java")

// Classpath returns the class path of the server on this machine.
func Classpath() (string, error) {
	if _, err := exec.LookPath("java"); err != nil {
		return "", errNoZooKeeper
	}
	if home := os.Getenv("ZOOKEEPER_HOME"); home != "" {
		if jars, _ := filepath.Glob(filepath.Join(home, "lib", "zookeeper-*.jar")); len(jars) > 0 {
			return filepath.Join(home, "lib", "*"), nil
		}
		return "", errNoZooKeeper
	}
	var jars []string
	for _, name := range []string{"zookeeper.jar", "zookeeper-jute.jar", "slf4j-simple.jar"} {
		jar := filepath.Join("/usr/share/java", name) // the manifests name the rest
		if _, err := os.Stat(jar); err != nil {
			return "", errNoZooKeeper
		}
		jars = append(jars, jar)
	}
	return strings.Join(jars, ":"), nil
}
