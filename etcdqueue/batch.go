package etcdqueue

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/protobuf/proto"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/boottime"
	"github.com/zkq/zkq/internal/group"
)

// Commits that wait at the same time travel together: as transactions in one, each
// with conditions of its own, so that the refusal of one costs the others nothing.
var batches = group.Limits{Commits: nest, Each: nest - 1, Bytes: maxRequest / 3}

// flightsAtOnce is how many requests with commits a session has under way.
const flightsAtOnce = 32

// guessesAtOnce is how many of those whose names are guessed. Of two the later could be
// the first to be applied, and refuse the other.
const guessesAtOnce = 1

// apartFor is how long commits travel each by itself after the service had no space
// left: those that only delete are still taken, and must not wait for the others.
const apartFor = time.Second

// eager are the options of a commit: it waits for a connection before it begins.
var eager = []grpc.CallOption{grpc.MaxCallRecvMsgSize(math.MaxInt32)}

// errApart says that a batch is not to be sent as one.
var errApart = errors.New("each by itself")

// deliver is what the session's group sends a batch by.
func (s *session) deliver(b *group.Batch) []group.Outcome {
	_, outcomes := s.send(b, func() bool { return true })
	return outcomes
}

// deliverGuesses sends a batch of commits whose names are guessed.
func (s *session) deliverGuesses(b *group.Batch) []group.Outcome {
	commits, outcomes := s.send(b, s.c.guesses.begin)
	s.c.guesses.ended(commits, outcomes)
	return outcomes
}

// send returns the commits that were sent, if any were, and what became of all.
func (s *session) send(b *group.Batch, may func() bool) (commits []*commit, outcomes []group.Outcome) {
	seal := func() {
		sealed := b.Seal()
		commits = make([]*commit, len(sealed))
		for i, c := range sealed {
			commits[i] = &commit{s: s, ops: s.name(c.Ops)}
		}
	}
	var begun time.Duration
	x := &sending{s: s, user: context.Background(), ctx: s.ctx, options: eager, back: b.Unseal}
	x.begin = func() (*pb.TxnRequest, error) {
		if err := s.ready(); err != nil {
			return nil, err
		}
		if commits = nil; !may() {
			return nil, errTaken
		}
		begun = boottime.Now()
		seal()
		switch len(commits) {
		case 0:
			return nil, nil
		case 1:
			return commits[0].whole()
		}
		return s.together(commits)
	}
	r, err := x.send()
	if err == nil && r != nil {
		s.c.guesses.heard(begun)
	}
	var why *refused
	switch {
	case len(b.Commits) == 0:
		return nil, nil
	case len(commits) == 1:
		return commits, []group.Outcome{commits[0].outcome(r, err)}
	case errors.Is(err, errApart):
		return commits, each(commits, (*commit).alone)
	case errors.As(err, &why) && why.code == noSpace:
		s.c.full.Store(time.Now().UnixNano())
		return commits, each(commits, func(c *commit) group.Outcome { return c.afterFull(why) })
	case errors.As(err, &why) && why.code == diskFull:
		s.c.full.Store(time.Now().UnixNano())
		seal() // those that make room are still taken
		return commits, each(commits, (*commit).alone)
	case errors.As(err, &why) && why.code == tooManyOps:
		lower(&s.c.wide, width(commits)/2)
		seal() // without those who have left since they were told that nothing was sent
		return commits, each(commits, (*commit).alone)
	case errors.As(err, &why) && (why.means == coord.ErrForbidden || why.means == coord.ErrTooLarge || why.means == coord.ErrInvalid):
		seal() // for what one of them wants
		return commits, each(commits, (*commit).alone)
	case err == nil && !r.Succeeded:
		if err = s.standing(r.Responses[0]); err == nil {
			err = errTaken
		}
	}
	if err != nil {
		outcomes = make([]group.Outcome, len(b.Commits))
		for i := range outcomes {
			outcomes[i].Err = err
		}
		return commits, outcomes
	}
	outcomes = make([]group.Outcome, len(commits))
	for i, c := range commits {
		one := r.Responses[i].GetResponseTxn()
		if one.Succeeded {
			outcomes[i].Results = c.results(r.Header.Revision)
		} else {
			outcomes[i].Err = c.refusal(one.Responses)
		}
	}
	return commits, outcomes
}

func each(commits []*commit, f func(*commit) group.Outcome) []group.Outcome {
	outcomes := make([]group.Outcome, len(commits))
	for i, c := range commits {
		outcomes[i] = f(c)
	}
	return outcomes
}

// ready waits for a connection, or the session's end.
func (s *session) ready() error {
	for {
		if err := s.alive(); err != nil {
			return err
		}
		connection := s.c.client.ActiveConnection()
		state := connection.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.Idle:
			connection.Connect()
		}
		connection.WaitForStateChange(s.ctx, state)
	}
}

// together is a transaction of transactions.
func (s *session) together(commits []*commit) (*pb.TxnRequest, error) {
	if time.Since(time.Unix(0, s.c.full.Load())) < apartFor || width(commits) > int(s.c.wide.Load()) {
		return nil, errApart
	}
	t := &pb.TxnRequest{Success: make([]*pb.RequestOp, len(commits))}
	s.c.demandLast(t, guessedFirst(commits...))
	for i, c := range commits {
		t.Success[i] = nested(c.txn())
	}
	if s.guarded(t); s.c.mayExceed(commits...) && proto.Size(t) > maxRequest {
		return nil, errApart
	}
	return t, nil
}

// width is what the service holds against its limit of ops: those of the outer
// transaction and of the largest in it.
func width(commits []*commit) int {
	most := 0
	for _, c := range commits {
		most = max(most, len(c.ops))
	}
	return max(len(commits), 1+len(guessedFirst(commits...))) + most
}

// mayExceed says that a request with the commits must be measured.
func (c *Coordinator) mayExceed(commits ...*commit) bool {
	size := 0
	for _, x := range commits {
		for _, op := range x.ops {
			size += 4*(len(c.cfg.Prefix)+len(op.Path)) + len(op.Value) + coord.OpOverhead
		}
	}
	return size > maxRequest
}

// whole is the transaction of a commit that travels alone.
func (c *commit) whole() (*pb.TxnRequest, error) {
	t := c.txn()
	c.s.c.demandLast(t, guessedFirst(c))
	if c.s.guarded(t); c.s.c.mayExceed(c) {
		if err := fits(t); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// fits says that a transaction is not too large to be sent.
func fits(t *pb.TxnRequest) error {
	if n := proto.Size(t); n > maxRequest {
		return &coord.LimitError{What: "commit", Unit: "bytes", Size: n, Limit: maxRequest}
	}
	return nil
}

// alone sends a commit that was to travel with others.
func (c *commit) alone() group.Outcome {
	x := &sending{s: c.s, user: context.Background(), ctx: c.s.ctx, options: waiting, begin: c.whole, back: func() {}}
	return c.outcome(x.send())
}

// afterFull sends a commit again that the service may have refused because others
// of its batch needed space.
func (c *commit) afterFull(why *refused) group.Outcome {
	if err := c.s.resolve(context.Background(), c.s.ctx, c.s.guarded(c.txn()), why); errors.Is(err, coord.ErrUnknown) {
		return group.Outcome{Err: err}
	}
	return c.alone()
}

// outcome is how a commit ended that travelled alone.
func (c *commit) outcome(r *pb.TxnResponse, err error) group.Outcome {
	switch {
	case refusedFor(err, noSpace):
		err = c.s.resolve(context.Background(), c.s.ctx, c.s.guarded(c.txn()), err)
	case refusedFor(err, tooManyOps):
		err = c.s.c.learn(len(c.ops))
	case err != nil:
	case r.Succeeded:
		return group.Outcome{Results: c.results(r.Header.Revision)}
	default:
		if err = c.s.standing(r.Responses[len(c.ops)]); err == nil {
			err = c.refusal(r.Responses)
		}
	}
	return group.Outcome{Err: err}
}

// lower makes n no more than most, and no less than 1.
func lower(n *atomic.Int64, most int) {
	for old := n.Load(); int64(most) < old; old = n.Load() {
		if n.CompareAndSwap(old, int64(max(1, most))) {
			return
		}
	}
}
