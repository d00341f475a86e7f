package conformance

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq/coord"
)

// Factory tells [Run] how to reach what it tests.
type Factory struct {
	// New returns a service whose nodes no other case sees. Several services may
	// share a server; their cases run at the same time.
	New func(t *testing.T) Service

	// Timeout is the session timeout that clients ask for. Some cases wait for a few
	// timeouts, so take the shortest that the service grants.
	Timeout time.Duration

	// Virtual runs every case in a bubble of its own (testing/synctest). It is for
	// services that need no network.
	Virtual bool

	// Without names the hooks that this service lacks: "Cut", "HoldRequests",
	// "HoldReplies", "Expire", "Restart". Cases that need them are skipped. The test
	// fails if a hook is missing without being named here, or is named and exists.
	Without []string

	// LateSignals means that the signals of a session's own commits may come after
	// the commit has returned. ZooKeeper before 3.6, whose watches fire once, is so.
	LateSignals bool

	// Patient is like New, with sessions of 20 seconds or more, so that a busy machine
	// does not end them. The suite uses it for cases that do not need a session to
	// expire and for those that restart the service. nil means New.
	Patient func(t *testing.T) Service
}

// Service is one coordination service. Its clients see an empty one at first.
type Service interface {
	// Open returns a new client with a connection and a session of its own. The
	// suite closes it. It looks for the hooks [Cutter], [RequestHolder], [ReplyHolder]
	// and [Expirer] in the returned value, so a driver's test returns a struct that
	// embeds the coordinator and has them.
	Open(t *testing.T) coord.Coordinator
}

// Cutter is the hook "Cut" of a client. A proxy between the client and all addresses of
// the service can provide it.
type Cutter interface {
	// Cut closes the client's connections. New ones are refused, or accepted and
	// closed. Bytes on their way are dropped, also those that are held.
	Cut()

	// Heal lets everything through again, and first what was held.
	Heal()
}

// RequestHolder is the hook "HoldRequests" of a client.
type RequestHolder interface {
	// HoldRequests keeps back every byte that the client sends, on existing and new
	// connections, until Heal delivers it or Cut drops it.
	HoldRequests()
	Heal()
}

// ReplyHolder is the hook "HoldReplies" of a client.
type ReplyHolder interface {
	// HoldReplies keeps back every byte that the service sends, until Heal delivers it
	// or Cut drops it. A commit is applied then, and its answer does not come.
	HoldReplies()
	Heal()
}

// Expirer is the hook "Expire" of a client.
type Expirer interface {
	// Expire has the service end the client's session now, without help of the client
	// and also while the client is cut. (On etcd, revoke the lease. On ZooKeeper, close
	// the session from another connection.) It reports whether there was a session.
	Expire() bool
}

// Restarter is the hook "Restart" of a [Service]. Its cases run alone.
type Restarter interface {
	// Restart stops the service and starts it with its nodes and sessions.
	Restart()
}

// hookDetectors report whether a service has a hook, by the name of the hook.
var hookDetectors = map[string]func(Service, coord.Coordinator) bool{
	"Cut":          func(_ Service, c coord.Coordinator) bool { _, ok := c.(Cutter); return ok },
	"HoldRequests": func(_ Service, c coord.Coordinator) bool { _, ok := c.(RequestHolder); return ok },
	"HoldReplies":  func(_ Service, c coord.Coordinator) bool { _, ok := c.(ReplyHolder); return ok },
	"Expire":       func(_ Service, c coord.Coordinator) bool { _, ok := c.(Expirer); return ok },
	"Restart":      func(s Service, _ coord.Coordinator) bool { _, ok := s.(Restarter); return ok },
}

// testCase is one case of the suite: one promise of package coord.
type testCase struct {
	name               string
	hooks              []string // hooks
	runsAlone          bool     // it counts goroutines or restarts the service
	needsShortSessions bool     // although it needs no hook
	run                func(*env)
}

// isPatient reports whether the case runs with long sessions. Hooks other than Restart end
// sessions, or let cases wait for their end.
func (e testCase) isPatient() bool {
	return slices.Contains(e.hooks, "Restart") || !e.needsShortSessions && len(e.hooks) == 0
}

// allCases returns the cases, file by file.
func allCases() []testCase {
	sessions := slices.Clone(sessionCases)
	for i := range sessions {
		sessions[i].needsShortSessions = true
	}
	return slices.Concat(createCases, commitCases, refusalCases, limitCases, largeCases, listCases,
		bornCases, seenCases, readCases, groupCases, watchCases, sessions, outcomeCases, contextCases, raceCases)
}

// parallelCases is how many cases run at the same time. Most of the time they wait.
const parallelCases = 8

// Run runs the suite against the service, each promise of package coord as a subtest. It
// returns when all subtests are done.
func Run(t *testing.T, f Factory) {
	checkHooks(t, f)
	var alone []testCase
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallelCases)
	for _, e := range allCases() {
		if e.runsAlone {
			alone = append(alone, e)
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			runCase(t, f, e)
		})
	}
	wg.Wait()
	for _, e := range alone {
		runCase(t, f, e)
	}
}

func runCase(t *testing.T, f Factory, e testCase) {
	t.Run(e.name, func(t *testing.T) {
		for _, name := range e.hooks {
			if slices.Contains(f.Without, name) {
				t.Skipf("the service has no hook %s", name)
			}
		}
		if f.Patient != nil && e.isPatient() {
			f.New = f.Patient
		}
		if f.Virtual {
			synctest.Test(t, func(t *testing.T) { e.run(newEnv(t, f)) })
		} else {
			e.run(newEnv(t, f))
		}
	})
}

// checkHooks fails the test unless the service has all hooks but those that f.Without
// names.
func checkHooks(t *testing.T, f Factory) {
	t.Run("Hooks", func(t *testing.T) {
		s := f.New(t)
		c := s.Open(t)
		defer c.Close()
		for name, has := range hookDetectors {
			switch missing := slices.Contains(f.Without, name); {
			case missing && has(s, c):
				t.Errorf("hook %s is there, though Without names it", name)
			case !missing && !has(s, c):
				t.Errorf("hook %s is missing", name)
			}
		}
		for _, name := range f.Without {
			if hookDetectors[name] == nil {
				t.Errorf("Without names %q, which is no hook", name)
			}
		}
	})
}
