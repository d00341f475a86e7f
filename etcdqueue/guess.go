package etcdqueue

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/group"
)

// guesses say when a name may begin with the revision that the coordinator was last
// shown, and not with one that is read for it. Whatever this coordinator has put before
// sorts before such a name. Whether what others have put does only the service can say:
// the commit is refused if a name stands that does not, and then reads after all. Where
// few processes put, most guesses are right, and each saves a request.
type guesses struct {
	mu      sync.Mutex
	offsets map[string]offset // of queues, by [queueOf]
	misses  int               // what the next miss costs: after so many commits that read
	wait    int               // so many of these are left
}

// offset is what a queue's names have added to a revision.
type offset struct {
	offset int64
	at     time.Time // when it was read
}

const (
	// guessAge is how old a revision may be. What was put since is looked through by
	// the service, so it must not be much.
	guessAge   = 200 * time.Millisecond
	offsetAge  = 10 * time.Second
	mostMisses = 63
	mostKnown  = 1024 // queues
)

// read takes the answer to a read for a queue's names.
func (g *guesses) read(queue string, r *round) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.offsets == nil || len(g.offsets) >= mostKnown {
		g.offsets = make(map[string]offset)
	}
	g.offsets[queue] = offset{r.seq - r.revision, time.Now()}
}

// may says whether names in the queues may be guessed now.
func (g *guesses) may(queues map[string]int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for queue := range queues {
		if o, ok := g.offsets[queue]; !ok || time.Since(o.at) > offsetAge {
			return false
		}
	}
	if g.wait > 0 {
		g.wait--
		return false
	}
	return true
}

// offset returns what was last read of the queue's.
func (g *guesses) offset(queue string) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.offsets[queue].offset
}

// judge is told what became of a batch.
func (g *guesses) judge(commits []*commit, outcomes []group.Outcome) {
	hit, missed := false, false
	for i, o := range outcomes {
		if i < len(commits) && slices.ContainsFunc(commits[i].ops, guessed) {
			hit, missed = hit || o.Err == nil, missed || errors.Is(o.Err, errTaken)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case missed:
		g.misses = min(2*g.misses+1, mostMisses)
		g.wait = g.misses
	case hit:
		g.misses /= 2
	}
}

// guessed says whether the name of a sequential op is a guess: see [session.number].
func guessed(op coord.Op) bool { return op.Kind == coord.KindSequential && op.Fence == 0 }

// number returns the ops with what the name of each sequential one begins with, where
// its fence would be: 0 where that is to be guessed when it is sent.
func (s *session) number(user context.Context, ops []coord.Op, guess bool) ([]coord.Op, error) {
	queues := make(map[string]int64, 1)
	for _, op := range ops {
		if op.Kind == coord.KindSequential {
			queues[queueOf(op.Path)] = 0
		}
	}
	if len(queues) == 0 {
		return ops, nil
	}
	if !guess || s.c.shown.age() > guessAge || !s.c.guesses.may(queues) {
		ctx, cancel, err := s.call(user)
		if err != nil {
			return nil, err
		}
		defer cancel()
		for _, queue := range slices.Sorted(maps.Keys(queues)) {
			r, err := s.c.sequence(user, ctx, queue)
			if err != nil {
				return nil, err
			}
			s.c.guesses.read(queue, r)
			queues[queue] = r.seq
		}
	}
	numbered := slices.Clone(ops)
	for i, op := range ops {
		if op.Kind == coord.KindSequential {
			numbered[i].Fence = coord.Fence(queues[queueOf(op.Path)])
		}
	}
	return numbered, nil
}

// name completes the paths of sequential nodes, just before they are sent.
func (s *session) name(ops []coord.Op) []coord.Op {
	n := 0
	for _, op := range ops {
		if op.Kind == coord.KindSequential {
			n++
		}
	}
	if n == 0 {
		return ops
	}
	named := slices.Clone(ops)
	number, now, shown := s.c.numbers.take(n), time.Now(), s.c.shown.rev.Load()
	for i, op := range ops {
		if op.Kind != coord.KindSequential {
			continue
		}
		seq := int64(op.Fence)
		if guessed(op) {
			seq = shown + s.c.guesses.offset(queueOf(op.Path))
		}
		named[i].Path += suffix(seq, now, s.c.producer, number)
		number++
	}
	return named
}
