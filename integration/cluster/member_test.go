//go:build cluster

package cluster

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zkq/zkq/internal/testneed"
)

// member is one container of a cluster.
type member struct {
	name    string // the service's in docker-compose.yml
	id      string
	address string // for clients, on this machine
}

// members finds the containers that Compose made from this repository's file for the services of a kind.
func members(t testing.TB, kind, port string) []*member {
	t.Helper()
	if err := exec.Command("docker", "version").Run(); err != nil {
		testneed.Missing(t, "Docker engine", "install one, then make images up")
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	var ms []*member
	out := docker(t, "ps", "--filter", "label=com.docker.compose.project.working_dir="+root,
		"--format", `{{.ID}} {{.Label "com.docker.compose.service"}}`)
	for line := range strings.Lines(out) {
		id, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(name, kind) {
			address, _, _ := strings.Cut(docker(t, "port", id, port+"/tcp"), "\n")
			ms = append(ms, &member{name: name, id: id, address: address})
		}
	}
	if len(ms) == 0 {
		testneed.Missing(t, "the clusters of docker-compose.yml", "make up")
	}
	if len(ms) != 3 {
		t.Fatalf("%d members of %s run, want 3: make down up", len(ms), kind)
	}
	return ms
}

func docker(t testing.TB, args ...string) string {
	t.Helper()
	return command(t, "docker", args...)
}

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (m *member) kill(t testing.TB)   { docker(t, "kill", "--signal", "KILL", m.id) }
func (m *member) start(t testing.TB)  { docker(t, "start", m.id) }
func (m *member) pause(t testing.TB)  { docker(t, "pause", m.id) }
func (m *member) resume(t testing.TB) { docker(t, "unpause", m.id) }

// restart ends the process in order and starts it.
func (m *member) restart(t testing.TB) { docker(t, "restart", "--time", "10", m.id) }

// restore ends what a fault that was not healed has left.
func (m *member) restore(t testing.TB) {
	switch docker(t, "inspect", "--format", "{{.State.Status}}", m.id) {
	case "paused":
		m.resume(t)
	case "exited":
		m.start(t)
	}
	m.inside(t, "--flush", "INPUT")
	m.inside(t, "--flush", "OUTPUT")
}

func (m *member) ip(t testing.TB) string {
	return docker(t, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", m.id)
}

// inside runs iptables in the network namespace of the member, and nowhere else.
func (m *member) inside(t testing.TB, args ...string) {
	t.Helper()
	pid := docker(t, "inspect", "--format", "{{.State.Pid}}", m.id)
	if pid == "0" {
		t.Fatalf("%s does not run", m.name)
	}
	command(t, "nsenter", append([]string{"--target", pid, "--net", "iptables", "--wait"}, args...)...)
}

// cut drops all that m receives from the others and, unless deaf is set, all that it sends to them. Clients, which use the
// published port, notice nothing of it.
func (m *member) cut(t testing.TB, others []*member, deaf bool) (heal func()) {
	t.Helper()
	var rules [][]string
	for _, o := range others {
		if o == m {
			continue
		}
		ip := o.ip(t)
		rules = append(rules, []string{"INPUT", "--source", ip, "--jump", "DROP"})
		if !deaf {
			rules = append(rules, []string{"OUTPUT", "--destination", ip, "--jump", "DROP"})
		}
	}
	for _, rule := range rules {
		m.inside(t, append([]string{"--insert"}, rule...)...)
	}
	return func() {
		t.Helper()
		for _, rule := range rules {
			m.inside(t, append([]string{"--delete"}, rule...)...)
		}
	}
}

func (m *member) String() string { return fmt.Sprintf("%s at %s", m.name, m.address) }
