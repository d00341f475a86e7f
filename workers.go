package zkq

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
	"github.com/zkq/zkq/lock"
)

// WorkerInfo is somebody who works on a queue.
type WorkerInfo struct {
	// Holder is the name in the locks of what he holds.
	Holder string
	// Host and PID are where he runs: "" and 0 of one who holds entries and did
	// not say so, as kazoo's workers and takes by hand.
	Host string
	PID  int
	// Started is when his handle began to take, by his own clock; zero where Host
	// is unknown.
	Started time.Time
	// Entries is how many entries he holds.
	Entries int
}

// workerNode is what a registered handle says of itself.
type workerNode struct {
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// registry is a handle's own node among the queue's workers. It is ephemeral: it
// goes with the session, and each new one gets another.
type registry struct {
	mu      sync.Mutex
	stays   bool          // whoever uses the handle means to go on taking
	busy    bool          // somebody is registering it
	done    coord.Session // it is registered in this one, or may not be
	started time.Time
	fence   coord.Fence // of its node, 0 if it may not have one
}

// stay says that the handle is to be registered.
func (r *registry) stay() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stays = true; r.started.IsZero() {
		r.started = time.Now().UTC()
	}
}

// Register has [LockingQueue.Workers] name this handle from now until Close, in
// this session and those that follow. What it returns tells only that others do
// not see it yet: it is tried again with the handle's next call. Credentials that
// do not allow it are no error. All does it by itself.
func (q *LockingQueue) Register(ctx context.Context) error {
	q.registry.stay()
	err := q.do(ctx, func(ctx context.Context, s coord.Session) error { return q.register(ctx, s) })
	if err != nil {
		return fmt.Errorf("register among the workers of %s: %w", q.root, err)
	}
	return nil
}

// register makes the handle known in the session, once, and from then on in every
// session that the handle works in. It costs nothing where that is done; while
// somebody else does it nobody waits.
func (p *place) register(ctx context.Context, s coord.Session) error {
	r := &p.registry
	r.stay()
	r.mu.Lock()
	if r.done == s || r.busy || p.closed() {
		r.mu.Unlock()
		return nil
	}
	r.busy = true
	started := r.started
	r.mu.Unlock()
	fence, err := p.createWorker(ctx, s, started)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy = false; errors.Is(err, coord.ErrForbidden) {
		err = nil // work goes on, unseen
	}
	if err == nil {
		r.done, r.fence = s, fence
	}
	return err
}

// registered says whether others can know of the handle in the session.
func (p *place) registered(s coord.Session) bool {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	return p.registry.done == s
}

// registerAgain is register in a new session, of a handle that was registered
// before. What goes wrong is left for the next call.
func (p *place) registerAgain(ctx context.Context, s coord.Session) {
	p.registry.mu.Lock()
	stays := p.registry.stays && p.registry.done != s
	p.registry.mu.Unlock()
	if stays {
		p.register(ctx, s)
	}
}

// createWorker makes the node. One that is there was made by an attempt without
// an answer, or by a session of this handle that the service has not given up yet:
// nobody else has the holder's name.
func (p *place) createWorker(ctx context.Context, s coord.Session, started time.Time) (coord.Fence, error) {
	host, _ := os.Hostname()
	value, err := json.Marshal(workerNode{Host: host, PID: os.Getpid(), Started: started})
	if err != nil {
		return 0, err
	}
	node := path.Join(p.root, dirWorkers, string(p.holder))
	for {
		rs, err := s.Commit(ctx, coord.CreateEphemeral(node, value))
		if err == nil {
			return rs[0].Fence, nil
		}
		if !retry.IsRefused(err) {
			return 0, err
		}
		n, err := s.Get(ctx, node)
		switch {
		case err == nil && n.Owner == s.ID():
			return n.Fence, nil
		case err == nil:
			_, err = s.Commit(ctx, coord.Delete(node, n.Fence))
		}
		if err != nil && !retry.IsRefused(err) && !errors.Is(err, coord.ErrNotExist) {
			return 0, err
		}
	}
}

// unregister removes the node of a handle that is closed.
func (p *place) unregister(ctx context.Context) {
	r := &p.registry
	r.mu.Lock()
	s, fence := r.done, r.fence
	r.done, r.stays = nil, false
	r.mu.Unlock()
	if s != nil && fence != 0 && !over(s) {
		s.Commit(ctx, coord.Delete(path.Join(p.root, dirWorkers, string(p.holder)), fence)) // or it goes with the session
	}
}

// members are the names of those who are registered, in order, as a listing has
// them that need not be fresh.
func (p *place) members(ctx context.Context, s coord.Session) ([]string, error) {
	l, err := s.List(ctx, path.Join(p.root, dirWorkers), coord.ListOptions{Seen: true})
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(l.Nodes))
	for _, n := range l.Nodes {
		if name := path.Base(n.Path); keeps(dirWorkers, name) { // others lead to queues further down
			names = append(names, name)
		}
	}
	return names, nil
}

// owner is the member that an entry is for, "" where there is none: the one whose
// hash with the entry's name is the highest. Who knows the same members names the
// same one, and a member that comes or goes moves no entry between two others.
// Processes of different versions must agree: the hash may never be changed.
func owner(members []string, name string) string {
	first, highest := "", uint64(0)
	n := fnv1a(name)
	for _, m := range members {
		if x := weight(m, n); first == "" || x > highest || x == highest && m < first {
			first, highest = m, x
		}
	}
	return first
}

// membersBefore is how many members would have to go before an entry were me's: none
// if me is its owner.
func membersBefore(members []string, me, name string) int {
	before := 0
	n := fnv1a(name)
	mine := weight(me, n)
	for _, m := range members {
		if x := weight(m, n); x > mine || x == mine && m < me {
			before++
		}
	}
	return before
}

// weight is a member's for an entry, by the hash of its name.
func weight(member string, name uint64) uint64 {
	// The finalizer of splitmix64: FNV alone hardly mixes its last bytes.
	x := fnv1a(member) ^ name
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func fnv1a(s string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return h
}

// Workers returns those who work on the queue: the handles that are registered, by
// host and process, then those who hold entries without being that. It costs two
// listings, of the workers and of the locks.
func (q *LockingQueue) Workers(ctx context.Context) ([]WorkerInfo, error) {
	var workers []WorkerInfo
	err := q.do(ctx, func(ctx context.Context, s coord.Session) (err error) {
		workers, err = q.workers(ctx, s)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the workers of %s: %w", q.root, err)
	}
	return workers, nil
}

func (q *LockingQueue) workers(ctx context.Context, s coord.Session) ([]WorkerInfo, error) {
	// Who registers does so before he takes: looked at in this order, a lock is not
	// seen without its holder.
	locks, err := s.List(ctx, q.taken, coord.ListOptions{Values: true, Fresh: true})
	if err != nil {
		return nil, err
	}
	l, err := s.List(ctx, path.Join(q.root, dirWorkers), coord.ListOptions{Values: true, Fresh: true})
	if err != nil {
		return nil, err
	}
	held := make(map[string]int)
	for _, n := range locks.Nodes {
		if st := lock.Read(n); st.Kind == lock.Held {
			held[st.Holder]++
		}
	}
	var workers []WorkerInfo
	for _, n := range l.Nodes {
		var w workerNode
		if n.Owner == "" || json.Unmarshal(n.Value, &w) != nil || w.PID < 1 {
			continue // a stranger's, or there for an instant to wake those who wait
		}
		holder := path.Base(n.Path)
		workers = append(workers, WorkerInfo{Holder: holder, Host: w.Host, PID: w.PID, Started: w.Started, Entries: held[holder]})
		delete(held, holder)
	}
	for holder, n := range held {
		workers = append(workers, WorkerInfo{Holder: holder, Entries: n})
	}
	slices.SortFunc(workers, func(a, b WorkerInfo) int {
		if (a.PID == 0) != (b.PID == 0) {
			return cmp.Compare(b.PID, a.PID)
		}
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.PID, b.PID), cmp.Compare(a.Holder, b.Holder))
	})
	return workers, nil
}
