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
	// New returns a service whose nodes no other case sees. Several may share a
	// server; their cases run at the same time.
	New func(t *testing.T) Service

	// Timeout is the session timeout that clients ask for. Cases wait for a few
	// of it: take the shortest that the service grants.
	Timeout time.Duration

	// Virtual runs every case in a bubble of its own (testing/synctest), for
	// services that need no network.
	Virtual bool

	// Without names the hooks that this service lacks: "Cut", "HoldRequests",
	// "HoldReplies", "Expire", "Restart". The cases that need them are skipped. A
	// hook that is missing without being named here fails the test, and so does
	// one that is named and there.
	Without []string

	// LateSignals says that a session's own commits may be signalled after their
	// return: by ZooKeeper before 3.6, whose watches fire once.
	LateSignals bool

	// Patient is New with sessions of 20 seconds or more, for the cases that do not
	// need a session to time out, and for those that restart the service: a busy
	// machine must not end their sessions. nil means New.
	Patient func(t *testing.T) Service
}

// Service is one coordination service, empty for all that its clients see.
type Service interface {
	// Open returns a new client with a connection and a session of its own. The
	// suite closes it. The hooks that a client may have are [Cutter],
	// [RequestHolder], [ReplyHolder] and [Expirer]: the suite looks for them in
	// what Open returns, so a driver's test embeds its coordinator in a struct
	// that has them.
	Open(t *testing.T) coord.Coordinator
}

// Cutter is the hook "Cut" of a client, such as a proxy between it and all
// addresses of the service.
type Cutter interface {
	// Cut closes the client's connections and lets it make no other (refused, or
	// accepted and closed). Bytes on their way are dropped, held ones too.
	Cut()

	// Heal lets everything through again, and first what was held.
	Heal()
}

// RequestHolder is the hook "HoldRequests" of a client.
type RequestHolder interface {
	// HoldRequests keeps back every byte that the client sends, on standing and
	// new connections, until Heal delivers or Cut drops them.
	HoldRequests()
	Heal()
}

// ReplyHolder is the hook "HoldReplies" of a client.
type ReplyHolder interface {
	// HoldReplies keeps back every byte that the service sends, so that a commit
	// is applied and its answer does not come, until Heal delivers or Cut drops
	// them.
	HoldReplies()
	Heal()
}

// Expirer is the hook "Expire" of a client.
type Expirer interface {
	// Expire has the service end the client's session now, without the client's
	// doing (etcd: the lease revoked; ZooKeeper: the session closed by another
	// connection), also while the client is cut. False: it had none.
	Expire() bool
}

// Restarter is the hook "Restart" of a [Service]. Its cases run alone.
type Restarter interface {
	// Restart stops the service and starts it with what it had.
	Restart()
}

// hooks finds the hooks by their names.
var hooks = map[string]func(Service, coord.Coordinator) bool{
	"Cut":          func(_ Service, c coord.Coordinator) bool { _, ok := c.(Cutter); return ok },
	"HoldRequests": func(_ Service, c coord.Coordinator) bool { _, ok := c.(RequestHolder); return ok },
	"HoldReplies":  func(_ Service, c coord.Coordinator) bool { _, ok := c.(ReplyHolder); return ok },
	"Expire":       func(_ Service, c coord.Coordinator) bool { _, ok := c.(Expirer); return ok },
	"Restart":      func(s Service, _ coord.Coordinator) bool { _, ok := s.(Restarter); return ok },
}

// example is one case of the suite.
type example struct {
	name  string
	needs []string // hooks
	alone bool     // it counts goroutines, or stops the service
	short bool     // it needs short sessions, though it needs no hook
	run   func(*env)
}

// isPatient reports whether the case runs with long sessions. Hooks other than Restart end
// sessions, or make cases wait for their end.
func (e example) isPatient() bool {
	return slices.Contains(e.needs, "Restart") || !e.short && len(e.needs) == 0
}

// examples are the cases, by the file they stand in.
func examples() []example {
	sessions := slices.Clone(sessionCases)
	for i := range sessions {
		sessions[i].short = true
	}
	return slices.Concat(createCases, commitCases, refusalCases, limitCases, largeCases, listCases,
		bornCases, seenCases, readCases, groupCases, watchCases, sessions, outcomeCases, contextCases, raceCases)
}

// atOnce is the number of cases that run at the same time: most of them wait.
const atOnce = 8

// Run runs the conformance suite: what package coord promises, each promise a
// subtest, without a word about any one service. It returns when all are done.
func Run(t *testing.T, f Factory) {
	checkHooks(t, f)
	var alone []example
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, e := range examples() {
		if e.alone {
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

func runCase(t *testing.T, f Factory, e example) {
	t.Run(e.name, func(t *testing.T) {
		for _, name := range e.needs {
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

// checkHooks compares the hooks that are there with those that should be.
func checkHooks(t *testing.T, f Factory) {
	t.Run("Hooks", func(t *testing.T) {
		s := f.New(t)
		c := s.Open(t)
		defer c.Close()
		for name, has := range hooks {
			switch missing := slices.Contains(f.Without, name); {
			case missing && has(s, c):
				t.Errorf("hook %s is there, though Without names it", name)
			case !missing && !has(s, c):
				t.Errorf("hook %s is missing", name)
			}
		}
		for _, name := range f.Without {
			if hooks[name] == nil {
				t.Errorf("Without names %q, which is no hook", name)
			}
		}
	})
}
