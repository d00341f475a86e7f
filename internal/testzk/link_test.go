package testzk_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/zkq/zkq/internal/testcoord"
	"github.com/zkq/zkq/internal/testzk"
)

var servers testzk.Servers

func TestMain(m *testing.M) {
	testcoord.Main(m, servers.Stop)
}

func TestAnswerOfTheWriteMeantIsLostAfterItWasApplied(t *testing.T) {
	c := servers.Single(t)
	name := func(s string) string { return fmt.Sprintf("/zkqtest-%d-%s", os.Getpid(), s) }
	direct, by := connect(t, c.Addresses()), testzk.NewLink(t, c.Addresses()...)
	there := connect(t, by.Addresses())
	by.LoseAnswers(1, func(request []byte) bool { return bytes.Contains(request, []byte(name("lost"))) })
	if _, err := there.Create(name("single"), nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatalf("another write: %v", err)
	}
	if _, err := there.Multi(create(name("kept"))); err != nil {
		t.Fatalf("another transaction: %v", err)
	}
	if _, err := there.Multi(create(name("lost"))); !errors.Is(err, zk.ErrConnectionClosed) {
		t.Fatalf("the transaction meant: %v", err)
	}
	if found, _, err := direct.Exists(name("lost")); err != nil || !found {
		t.Errorf("the transaction whose answer was lost is not there: %v", err)
	}
	if _, err := there.Multi(create(name("later"))); err != nil {
		t.Errorf("the transaction after it: %v", err)
	}
	by.LoseAnswers(1, nil)
	if _, _, err := there.Exists(name("later")); err != nil {
		t.Errorf("a read: %v", err)
	}
	if err := there.Delete(name("later"), -1); !errors.Is(err, zk.ErrConnectionClosed) {
		t.Errorf("any write: %v", err)
	}
	if n := by.AnswersLost(); n != 2 {
		t.Errorf("%d answers were lost, want 2", n)
	}
}

func create(path string) any {
	return &zk.CreateRequest{Path: path, Data: []byte{}, Acl: zk.WorldACL(zk.PermAll)}
}

func connect(t *testing.T, addresses []string) *zk.Conn {
	t.Helper()
	c, events, err := zk.Connect(addresses, 30*time.Second, zk.WithLogger(quiet{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for e := range events {
		if e.State == zk.StateHasSession {
			return c
		}
	}
	t.Fatal("no session")
	return nil
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
