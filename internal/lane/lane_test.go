package lane_test

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/coord/coordtest"
	"github.com/zkq/zkq/internal/lane"
	"github.com/zkq/zkq/internal/layout"
	"github.com/zkq/zkq/internal/retry"
)

// producer is a client of a service with a set of lanes.
type producer struct {
	*coordtest.Coordinator
	t     *testing.T
	lanes *lane.Set
}

// newProducer returns a client with the session timeout of a minute, which is longer than any wait of these tests.
func newProducer(t *testing.T, store *coordtest.Store) *producer {
	t.Helper()
	c := store.Open(coordtest.Options{Timeout: time.Minute})
	t.Cleanup(func() { c.Close() })
	p := &producer{Coordinator: c, t: t}
	p.lanes = lane.NewSet(lane.Config{
		Coordinator: c,
		Session:     c.Session,
		Backoff:     func() *retry.Backoff { return new(retry.Backoff) },
		Spawn:       func(f func(context.Context)) { f(t.Context()) },
		Woke:        func(context.Context) {},
	})
	return p
}

func (p *producer) session() coord.Session {
	p.t.Helper()
	s, err := p.Session(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

// names returns the names in a directory.
func (p *producer) names(dir string) (names []string) {
	p.t.Helper()
	l, err := p.session().List(p.t.Context(), dir, coord.ListOptions{Fresh: true})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, n := range l.Nodes {
		names = append(names, path.Base(n.Path))
	}
	return names
}

// lanesOf returns the names of the lanes that exist.
func (p *producer) lanesOf() []string {
	return slices.DeleteFunc(p.names(layout.ProducersDir), func(name string) bool { return !layout.IsLane(name) })
}

// put commits the creation of one entry.
func (p *producer) put(ctx context.Context, value string) (lane.Applied, error) {
	return p.lanes.Commit(ctx, []byte("note of "+value), []coord.Op{coord.CreateSequential("/q/e", []byte(value))}, nil)
}

func (p *producer) mustPut(value string) lane.Applied {
	p.t.Helper()
	done, err := p.put(p.t.Context(), value)
	if err != nil {
		p.t.Fatalf("put %s: %v", value, err)
	}
	return done
}

// unknownToken puts a value whose answer does not come in time, and returns the token of the error.
func (p *producer) unknownToken(value string) string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Second)
	defer cancel()
	_, err := p.put(ctx, value)
	var unknown *lane.UnknownError
	if !errors.As(err, &unknown) || !errors.Is(err, coord.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		p.t.Fatalf("put %s without an answer: %v", value, err)
	}
	return unknown.Token
}

// wantError reports an error other than the one that is wanted.
func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// onEachStore runs a test in virtual time, on a service that counts as ZooKeeper does and on one that counts as etcd does.
func onEachStore(t *testing.T, f func(t *testing.T, store *coordtest.Store)) {
	for name, open := range map[string]func() *coordtest.Store{"zookeeper": coordtest.NewStore, "etcd": coordtest.NewEtcdStore} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, open()) })
		})
	}
}

func TestALostAnswerOrRequestCommitsOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		p := newProducer(t, store)
		p.mustPut("first")
		p.DropReply()
		p.DropReply()
		if done := p.mustPut("answer lost"); done.Results != nil || done.Revision == 0 {
			t.Errorf("after a lost answer: %+v, want a revision and no results", done)
		}
		p.DropRequest()
		if done := p.mustPut("request lost"); len(done.Results) != 1 || done.Revision == 0 {
			t.Errorf("after a lost request: %+v, want the result of the second attempt", done)
		}
		if names := p.names("/q"); len(names) != 3 {
			t.Errorf("three puts made %q", names)
		}
		if lanes := p.lanesOf(); len(lanes) != 1 {
			t.Errorf("puts one after the other used the lanes %q", lanes)
		}
	})
}

func TestTheAnswerToAnOpenedLaneMayBeLost(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		p := newProducer(t, store)
		p.session()
		p.DropReply()
		p.mustPut("one")
		if names, lanes := p.names("/q"), p.lanesOf(); len(names) != 1 || len(lanes) != 2 {
			t.Errorf("entries %q, lanes %q: want one entry, and an idle lane", names, lanes)
		}
	})
}

func TestCommitsAtOnceHaveLanesOfTheirOwn(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		p := newProducer(t, store)
		const most = 128
		p.session()
		var puts sync.WaitGroup
		p.HoldReplies()
		for range 3 * most {
			puts.Go(func() { p.put(t.Context(), "x") })
		}
		synctest.Wait()
		p.Heal()
		puts.Wait()
		if names, lanes := p.names("/q"), p.lanesOf(); len(names) != 3*most || len(lanes) != most {
			t.Errorf("%d entries and %d lanes, want %d and %d", len(names), len(lanes), 3*most, most)
		}
		p.lanes.Close(t.Context())
		if lanes := p.lanesOf(); len(lanes) != 0 {
			t.Errorf("%d lanes are left by a closed set", len(lanes))
		}
	})
}

func TestACommitThatWaitsForALaneEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProducer(t, coordtest.NewStore())
		p.session()
		var puts sync.WaitGroup
		p.HoldReplies()
		for range 128 {
			puts.Go(func() { p.put(t.Context(), "x") })
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.put(ctx, "late")
		wantError(t, "a put without a lane", err, context.DeadlineExceeded)
		if errors.Is(err, coord.ErrUnknown) {
			t.Errorf("nothing was sent, and the error is %v", err)
		}
		p.Heal()
		puts.Wait()
		if names := p.names("/q"); len(names) != 128 {
			t.Errorf("%d entries", len(names))
		}
	})
}

func TestResolveOfACommitThatArrivesLaterMakesItVoid(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		p, operator := newProducer(t, store), newProducer(t, store)
		p.mustPut("first")
		p.HoldRequests()
		token := p.unknownToken("late")
		for range 2 { // the second call finds what the first one wrote
			o, err := lane.Resolve(t.Context(), operator, token)
			if err != nil || o.Applied {
				t.Fatalf("resolve: %+v, %v", o, err)
			}
		}
		p.Heal()
		if names := operator.names("/q"); len(names) != 1 {
			t.Errorf("a void put made an entry: %q", names)
		}
		_, err := operator.lanes.CommitAs(t.Context(), token, nil, nil, nil)
		wantError(t, "a put with a void token", err, lane.ErrVoid)
		// The lane is in doubt for its producer, which goes on in another one.
		p.mustPut("next")
		if names := operator.names("/q"); len(names) != 2 {
			t.Errorf("entries %q", names)
		}
	})
}

// No other commit may have the token of one whose outcome is unknown: Resolve would take it for that one.
func TestALaneInDoubtTakesNoOtherCommit(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		p := newProducer(t, store)
		p.mustPut("first")
		for range 20 { // more attempts than a second allows
			p.DropRequest()
		}
		token := p.unknownToken("lost")
		p.mustPut("next")
		if o, err := lane.Resolve(t.Context(), p, token); err != nil || o.Applied {
			t.Errorf("resolve of a put that never arrived: %+v, %v", o, err)
		}
		if names := p.names("/q"); len(names) != 2 {
			t.Errorf("entries %q", names)
		}
	})
}

func TestResolveReturnsTheNoteAndRevisionOfAnAppliedCommit(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		p, operator := newProducer(t, store), newProducer(t, store)
		var revision int64
		store.Observe(func(a coordtest.Applied) {
			if len(a.Ops) == 2 && string(a.Ops[1].Value) == "mine" {
				revision = a.Revision
			}
		})
		p.mustPut("first")
		p.HoldReplies()
		token := p.unknownToken("mine")
		o, err := lane.Resolve(t.Context(), operator, token)
		if err != nil || !o.Applied || string(o.Note) != "note of mine" || o.Revision != revision {
			t.Errorf("resolve: %+v, %v, want revision %d", o, err, revision)
		}
		done, err := operator.lanes.CommitAs(t.Context(), token, nil, nil, nil)
		if err != nil || done.Results != nil || done.Revision != revision {
			t.Errorf("the commit again: %+v, %v", done, err)
		}
		p.Heal()
	})
}

func TestAResolveWhoseAnswerIsLostFindsTheOutcome(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		p, operator := newProducer(t, store), newProducer(t, store)
		p.mustPut("first")
		p.HoldRequests()
		token := p.unknownToken("late")
		operator.DropReply()
		if o, err := lane.Resolve(t.Context(), operator, token); err != nil || o.Applied {
			t.Errorf("resolve: %+v, %v", o, err)
		}
		p.Heal()
		if names := operator.names("/q"); len(names) != 1 {
			t.Errorf("entries %q", names)
		}
	})
}

func TestARefusalNamesTheCallersOpAndKeepsTheLane(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		p := newProducer(t, store)
		ops := []coord.Op{coord.CreateSequential("/q/e", nil), coord.Create("/q/key", nil)}
		for i, want := range []error{nil, coord.ErrExist, coord.ErrExist} {
			_, err := p.lanes.Commit(t.Context(), nil, ops, nil)
			var refusal *coord.Refusal
			if errors.As(err, &refusal); want == nil && err != nil || want != nil && (!errors.Is(err, want) || refusal.Index != 1) {
				t.Errorf("commit %d: %v (%+v)", i, err, refusal)
			}
		}
		if lanes := p.lanesOf(); len(lanes) != 1 {
			t.Errorf("refused commits used up lanes: %q", lanes)
		}
	})
}

// The first attempt may arrive when the node in its way is gone. It must not be applied then, since the caller was told that
// it was refused.
func TestARefusalAfterALostRequestIsFinal(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		p, other := newProducer(t, store), newProducer(t, store)
		p.mustPut("first")
		s, err := other.session().Commit(t.Context(), coord.Create("/q/key", nil))
		if err != nil {
			t.Fatal(err)
		}
		p.DropRequest() // stands for a request that is still under way
		_, err = p.lanes.Commit(t.Context(), nil, []coord.Op{coord.Create("/q/key", []byte("mine"))}, nil)
		wantError(t, "a put whose key is in use", err, coord.ErrExist)
		if errors.Is(err, coord.ErrUnknown) {
			t.Errorf("the outcome is known, and the error is %v", err)
		}
		lanes := p.lanesOf()
		n, err := other.session().Get(t.Context(), lane.Path(lanes[0]))
		if m, ok := layout.ParseMarker(n.Value); err != nil || !ok || m.N != 2 || !m.Void {
			t.Errorf("the lane says %q, %v: an attempt under way could be applied", n.Value, err)
		}
		if _, err := other.session().Commit(t.Context(), coord.Delete("/q/key", s[0].Fence)); err != nil {
			t.Fatal(err)
		}
		p.mustPut("next")
		if again := p.lanesOf(); !slices.Equal(again, lanes) {
			t.Errorf("lanes %q became %q", lanes, again)
		}
		if o, err := lane.Resolve(t.Context(), other, layout.FormatToken(lanes[0], 3)); err != nil || !o.Applied {
			t.Errorf("the next put of the lane: %+v, %v", o, err)
		}
	})
}

func TestATokenIsForOneCommitOfAnyProcess(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		a, b := newProducer(t, store), newProducer(t, store)
		token, err := a.lanes.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		built := 0
		build := func(context.Context) ([]coord.Op, error) {
			built++
			return []coord.Op{coord.CreateSequential("/q/e", nil)}, nil
		}
		first, err := b.lanes.CommitAs(t.Context(), token, []byte("n"), build, nil)
		if err != nil || len(first.Results) != 1 {
			t.Fatalf("%+v, %v", first, err)
		}
		for _, p := range []*producer{a, b} {
			again, err := p.lanes.CommitAs(t.Context(), token, []byte("n"), build, nil)
			if err != nil || again.Results != nil || again.Revision != first.Revision {
				t.Errorf("again: %+v, %v, want revision %d", again, err, first.Revision)
			}
		}
		if names := a.names("/q"); len(names) != 1 || built != 1 {
			t.Errorf("entries %q, made %d times", names, built)
		}

		ahead := strings.TrimSuffix(token, "-1") + "-3"
		_, err = a.lanes.CommitAs(t.Context(), ahead, nil, build, nil)
		wantError(t, "a commit ahead of its lane", err, coord.ErrInvalid)
		_, err = lane.Resolve(t.Context(), a, ahead)
		wantError(t, "resolve ahead of its lane", err, coord.ErrInvalid)
		wantError(t, "forget ahead of its lane", lane.Forget(t.Context(), a, ahead), coord.ErrInvalid)
		second := strings.TrimSuffix(token, "-1") + "-2"
		if _, err := a.lanes.CommitAs(t.Context(), second, nil, build, nil); err != nil {
			t.Fatal(err)
		}
		_, err = a.lanes.CommitAs(t.Context(), token, nil, build, nil)
		wantError(t, "a commit behind its lane", err, lane.ErrExpired)
		_, err = lane.Resolve(t.Context(), a, token)
		wantError(t, "resolve behind its lane", err, lane.ErrExpired)
	})
}

func TestACommitWithATokenThatMeetsAnotherProcessIsMadeOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		a, b := newProducer(t, store), newProducer(t, store)
		token, err := a.lanes.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ops := []coord.Op{coord.CreateSequential("/q/e", nil)}
		_, err = a.lanes.CommitAs(t.Context(), token, nil, func(ctx context.Context) ([]coord.Op, error) {
			// The other process makes the commit between this one's read and its commit.
			_, err := b.lanes.CommitAs(ctx, token, nil, func(context.Context) ([]coord.Op, error) { return ops, nil }, nil)
			return ops, err
		}, nil)
		if names := a.names("/q"); err != nil || len(names) != 1 {
			t.Errorf("entries %q, %v", names, err)
		}
	})
}

func TestForgetRemovesTheOutcomeAndNothingElse(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		p, operator := newProducer(t, store), newProducer(t, store)
		p.mustPut("first")
		own := p.lanesOf()[0]
		p.mustPut("second")
		// The lane has gone on: it stays.
		if err := lane.Forget(t.Context(), operator, layout.FormatToken(own, 1)); err != nil || len(p.lanesOf()) != 1 {
			t.Errorf("forget an earlier token: %v, lanes %q", err, p.lanesOf())
		}
		operator.DropReply()
		if err := lane.Forget(t.Context(), operator, layout.FormatToken(own, 2)); err != nil || len(p.lanesOf()) != 0 {
			t.Errorf("forget: %v, lanes %q", err, p.lanesOf())
		}
		wantError(t, "forget again", lane.Forget(t.Context(), operator, layout.FormatToken(own, 2)), nil)
		_, err := lane.Resolve(t.Context(), operator, layout.FormatToken(own, 2))
		wantError(t, "resolve a forgotten token", err, lane.ErrExpired)
		// The producer's lane is gone, and nothing was committed in it: it goes on in another.
		p.mustPut("third")
		if names := p.names("/q"); len(names) != 3 {
			t.Errorf("entries %q", names)
		}
	})
}

func TestACommitInDoubtWhoseLaneIsGoneIsUnknown(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		p, operator := newProducer(t, store), newProducer(t, store)
		p.mustPut("first")
		own := p.lanesOf()[0]
		p.DropReply()
		forgotten := false
		store.Observe(func(a coordtest.Applied) {
			if len(a.Ops) == 2 && string(a.Ops[1].Value) == "second" {
				forgotten = true
			}
		})
		var puts sync.WaitGroup
		puts.Go(func() {
			_, err := p.put(t.Context(), "second")
			wantError(t, "a put in doubt without its lane", err, lane.ErrExpired)
			wantError(t, "a put in doubt without its lane", err, coord.ErrUnknown)
		})
		synctest.Wait() // the put pauses after the lost answer
		if !forgotten {
			t.Fatal("the put was not applied")
		}
		if err := lane.Forget(t.Context(), operator, layout.FormatToken(own, 2)); err != nil {
			t.Error(err)
		}
		puts.Wait()
	})
}

func TestAnIdleLaneIsWrittenBeforeItsNextCommit(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		p := newProducer(t, store)
		p.mustPut("first")
		own := p.lanesOf()[0]
		writes := 0
		store.Observe(func(a coordtest.Applied) {
			for _, op := range a.Ops {
				if op.Path == lane.Path(own) {
					writes++
				}
			}
		})
		for _, c := range []struct {
			idle time.Duration
			want int
		}{{29 * time.Minute, 1}, {31 * time.Minute, 2}} {
			time.Sleep(c.idle)
			writes = 0
			if p.mustPut("next"); writes != c.want {
				t.Errorf("after %v the lane was written %d times, want %d", c.idle, writes, c.want)
			}
		}
	})
}

func TestSweepRemovesLanesOfADayAgo(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		dead, alive, sweeper := newProducer(t, store), newProducer(t, store), newProducer(t, store)
		sweep := func() {
			t.Helper()
			if err := lane.Sweep(t.Context(), sweeper); err != nil {
				t.Error(err)
			}
		}
		for i := range 70 { // more than one page of tokens that no process forgets
			if _, err := dead.lanes.Open(t.Context()); err != nil {
				t.Fatal(i, err)
			}
		}
		if _, err := dead.session().Commit(t.Context(), coord.Create(path.Join(layout.ProducersDir, "foreign"), nil)); err != nil {
			t.Fatal(err)
		}
		sweep() // begins the day
		alive.mustPut("first")
		time.Sleep(24 * time.Hour)
		if sweep(); len(sweeper.lanesOf()) != 71 {
			t.Errorf("%d lanes after a day, want 71: outcomes are kept a little longer", len(sweeper.lanesOf()))
		}
		time.Sleep(2 * time.Hour)
		if sweep(); len(sweeper.lanesOf()) != 1 {
			t.Errorf("%d lanes after 26 hours, want that of the living producer", len(sweeper.lanesOf()))
		}
		if names := sweeper.names(layout.ProducersDir); !slices.Contains(names, "foreign") {
			t.Errorf("a node that is no lane was removed: %q", names)
		}
		alive.mustPut("second")
	})
}

func TestALongLivedSetSweepsOnceADay(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *coordtest.Store) {
		dead, p := newProducer(t, store), newProducer(t, store)
		if _, err := dead.lanes.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 60 { // the first sweep, after an hour, begins the day
			p.mustPut("x")
			time.Sleep(time.Hour)
		}
		if lanes := p.lanesOf(); len(lanes) != 1 {
			t.Errorf("lanes %q, want that of the living producer", lanes)
		}
	})
}

func TestTokensThatAreNoneAreInvalid(t *testing.T) {
	p := newProducer(t, coordtest.NewStore())
	for _, token := range []string{"", "x", "9f86d081884c7d65-00", "9f86d081884c7d65-00-0", "9F86D081884C7D65-00-1"} {
		_, err := lane.Resolve(t.Context(), p, token)
		wantError(t, "resolve "+token, err, coord.ErrInvalid)
		_, err = p.lanes.CommitAs(t.Context(), token, nil, nil, nil)
		wantError(t, "commit as "+token, err, coord.ErrInvalid)
		wantError(t, "forget "+token, lane.Forget(t.Context(), p, token), coord.ErrInvalid)
	}
}

func TestLanesOfASeriesHaveNamesThatNoLaneHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProducer(t, coordtest.NewStore())
		seen, series := make(map[string]bool), make(map[string]bool)
		for range 250 {
			token, err := p.lanes.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if seen[token] {
				t.Fatalf("the token %s was given out twice", token)
			}
			seen[token] = true
			name, _, _ := strings.Cut(token, "-")
			series[name] = true
		}
		if len(series) != 3 {
			t.Errorf("250 lanes are of %d series, want 3", len(series))
		}
		if a, b := p.lanes.ID(), p.lanes.ID(); a == b {
			t.Errorf("the ID %q was given out twice", a)
		}
	})
}
