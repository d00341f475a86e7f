package zkq

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

// run is one call of [Worker.Run]. It has three kinds of goroutines:
//
//   - the taker claims entries while places are free and no exchange is under way;
//   - a place calls the handler for one entry after the other, and finishes each;
//   - an exchange removes the entries of handlers that are done and claims others, in one
//     commit.
//
// The run never holds more than Concurrency + ReadAhead entries: room is what it may still
// claim, and whatever claims reserves its part of it before.
type run struct {
	*Worker
	taking    context.Context // ends first: nothing more is taken, and no handler is called
	working   context.Context // of the handlers; ends with the grace
	finishing context.Context // of the finishes; ends last
	failing   context.Context // ends with the error that ends the run
	stop      context.CancelCauseFunc
	endWork   context.CancelCauseFunc
	endFinish context.CancelFunc
	endRun    context.CancelCauseFunc

	wake       chan struct{} // holds a token when the taker is to look again
	goroutines sync.WaitGroup

	mu        sync.Mutex
	held      int             // entries that are held, or that a claim under way may bring; not those in removals
	claiming  int             // of them, those that claims under way may bring
	taken     int             // entries that were claimed, or may be by a claim under way
	busy      int             // places with a handler, those with a stuck one included
	ready     []*claimedEntry // held, and no handler was called yet, in the order of the claims
	removals  []*removal      // for the next exchange
	exchanges int             // under way
	gathering bool            // one of them has not looked at removals yet
	waiting   bool            // the taker waits for entries to be put
	lastWork  time.Time       // when something was taken or done last
	left      int             // handlers that were left behind when the run ended
	stuck     int             // places whose handlers do not return
	ending    *time.Timer     // runs while all places are stuck

	finishRefusals refusals
}

// claimedEntry is an entry that a run holds.
type claimedEntry struct {
	*Held
	ctx     context.Context // of its handler, but for the Timeout
	forget  context.CancelFunc
	dropped bool // it does not count as held any more
}

// removal is an entry whose handler is done. Its place waits for the result.
type removal struct {
	held   *Held
	result chan error
}

// Bounds of what is claimed and exchanged at once.
const (
	mostClaimed   = 64 // entries
	mostExchanges = 4  // several, so that a slow service costs no throughput
)

// drainPoll is how often a worker that drains looks whether nothing is left.
const drainPoll = 100 * time.Millisecond

// Why a run takes nothing more, though nothing went wrong.
var (
	errEnough = errors.New("zkq: the worker has done what it was asked for")
	errIdle   = errors.New("zkq: nothing was taken for too long")
)

// fatalError ends a run.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

func newRun(w *Worker, ctx context.Context) *run {
	r := &run{Worker: w, wake: make(chan struct{}, 1), lastWork: time.Now()}
	r.taking, r.stop = context.WithCancelCause(ctx)
	outlasting := context.WithoutCancel(ctx)
	r.working, r.endWork = context.WithCancelCause(outlasting)
	r.finishing, r.endFinish = context.WithCancel(outlasting)
	r.failing, r.endRun = context.WithCancelCause(outlasting)
	return r
}

// until runs until ctx ends, or the work is done.
func (r *run) until(ctx context.Context) error {
	defer r.endRun(nil)
	defer r.endFinish()
	defer r.endWork(ErrShutdown)
	defer r.stop(nil)

	r.goroutines.Go(r.take)
	idle := make(chan struct{})
	go func() {
		r.goroutines.Wait()
		close(idle)
	}()
	select {
	case <-r.taking.Done():
	case <-r.Stop:
		r.takeNoMore()
	}
	r.log().Debug("worker takes no more", "queue", r.Queue.Name(), "grace", r.grace())
	if context.Cause(r.taking) == errEnough {
		select {
		case <-idle:
		case <-r.failing.Done():
		case <-ctx.Done():
		}
	}
	if r.allStuck() || !within(idle, r.grace()) {
		r.endWork(ErrShutdown)
		if r.allStuck() || !within(idle, 2*killDelay) {
			r.endFinish()
			<-idle
		}
	}
	return r.result()
}

// within waits for the channel, but no longer than d.
func within(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// result is what Run returns.
func (r *run) result() error {
	var err error
	if cause := context.Cause(r.failing); errors.As(cause, new(*fatalError)) {
		err = cause
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ending != nil {
		r.ending.Stop()
	}
	if r.left > 0 && !errors.Is(err, ErrStuck) {
		err = errors.Join(err, fmt.Errorf("%d of queue %s: %w", r.left, r.Queue.Name(), ErrStuck))
	}
	return err
}

// takes reports whether more may be taken, and handlers called.
func (r *run) takes() bool {
	select {
	case <-r.Stop: // before until sees it
		r.stop(errEnough)
	default:
	}
	return r.taking.Err() == nil
}

// fail ends the run with an error.
func (r *run) fail(err error) {
	fatal := &fatalError{err}
	r.endRun(fatal)
	r.stop(fatal)
}

// takeNoMore ends the taking; the handlers have all the time they need.
func (r *run) takeNoMore() {
	r.stop(errEnough)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchStuckLocked()
}

// take is the taker.
func (r *run) take() {
	defer r.giveBackReady()
	backoff := r.Queue.handle.Backoff(actTake)
	var since refusals
	more := false // the last claim brought as many entries as it wanted: there may be others
	backoff.Do(r.taking, nil, func() (retry.Decision, error) {
		n := r.awaitRoom(!r.Drain && !more)
		if n == 0 {
			return retry.Stop, nil
		}
		var entries []*Held
		var err error
		switch {
		case r.Drain:
			entries, err = r.tryClaim(n)
		case more:
			entries, err = r.Queue.Exchange(r.taking, nil, n)
		default:
			entries, err = r.awaitClaim(n)
		}
		r.hold(entries, n)
		more = len(entries) == n
		switch {
		case r.taking.Err() != nil:
			return retry.Stop, err
		case err == nil:
			backoff.Reset()
			backoff.Succeeded()
			return retry.Now, nil
		case isPermanent(err), refusesWorker(err) && since.lasted(r.Queue.handle.SessionTimeout()):
			r.fail(err)
			return retry.Stop, err
		}
		log := r.log().Warn
		if isPassing(err) {
			log = r.log().Debug
		}
		log("nothing taken", "queue", r.Queue.Name(), "error", err)
		return retry.Later, err
	})
}

// awaitRoom waits until the taker may claim entries, reserves room for them and returns
// how many; 0 means that the taking has ended. waits says that the claim is to wait for
// entries: nothing else claims meanwhile.
func (r *run) awaitRoom(waits bool) int {
	for {
		r.mu.Lock()
		n := r.roomLocked()
		if r.exchanges > 0 || len(r.removals) > 0 || !r.takes() {
			n = 0
		}
		if n > 0 {
			r.reserveLocked(n)
			r.waiting = waits
		}
		enough := r.Limit > 0 && r.taken == r.Limit && r.claiming == 0 && len(r.ready) == 0
		r.mu.Unlock()
		if n > 0 {
			return n
		}
		if enough {
			r.takeNoMore()
		}
		select {
		case <-r.taking.Done():
			return 0
		case <-r.wake:
		}
	}
}

// roomLocked returns how many entries may be claimed now.
func (r *run) roomLocked() int {
	n := min(r.places()+r.ReadAhead-r.held-r.stuck, mostClaimed)
	if r.Limit > 0 {
		n = min(n, r.Limit-r.taken)
	}
	return max(n, 0)
}

// reserveLocked reserves room for a claim of n entries.
func (r *run) reserveLocked(n int) {
	r.held += n
	r.claiming += n
	r.taken += n
}

// hold has the handler called for the entries that a claim of up to n brought.
func (r *run) hold(entries []*Held, n int) {
	r.mu.Lock()
	r.waiting = false
	r.claiming -= n
	r.held -= n - len(entries)
	r.taken -= n - len(entries)
	for _, h := range entries {
		e := &claimedEntry{Held: h}
		e.ctx, e.forget = h.Context(r.working)
		r.ready = append(r.ready, e)
		r.lastWork = time.Now()
	}
	r.startReadyLocked()
	r.mu.Unlock()
	for _, h := range entries {
		if r.Logger == nil {
			break
		}
		r.log().Debug("claimed", "queue", r.Queue.Name(), "entry", h.Name, "delivery", h.Deliveries, "token", h.Token)
	}
	if r.taking.Err() != nil {
		r.giveBackReady()
	}
}

// startReadyLocked has free places work on what is ready.
func (r *run) startReadyLocked() {
	for r.busy < r.places() {
		e := r.nextLocked()
		if e == nil {
			return
		}
		r.busy++
		r.goroutines.Go(func() { r.place(e) })
	}
}

// nextLocked takes the next entry that a handler is to be called for; nil if there is none.
// An entry whose lock was lost meanwhile is passed over.
func (r *run) nextLocked() *claimedEntry {
	for r.takes() && len(r.ready) > 0 {
		e := r.ready[0]
		r.ready = r.ready[1:]
		if e.ctx.Err() == nil {
			return e
		}
		r.goroutines.Go(func() { r.giveBack(e, context.Cause(e.ctx)) })
	}
	return nil
}

// place works on an entry, and then on those that are ready.
func (r *run) place(e *claimedEntry) {
	for e != nil {
		r.handle(e)
		r.mu.Lock()
		r.lastWork = time.Now()
		if e = r.nextLocked(); e == nil {
			r.busy--
			r.watchStuckLocked()
		}
		r.mu.Unlock()
		r.wakeTaker()
	}
}

// dropLocked notes that an entry is not held any more, or will not be after the exchange
// that it waits for.
func (r *run) dropLocked(e *claimedEntry) {
	if !e.dropped {
		e.dropped = true
		r.held--
	}
}

func (r *run) drop(e *claimedEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropLocked(e)
}

func (r *run) wakeTaker() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// giveBackReady gives back the entries for which no handler was called before the taking
// ended.
func (r *run) giveBackReady() {
	<-r.taking.Done()
	r.mu.Lock()
	ready := r.ready
	r.ready = nil
	r.mu.Unlock()
	for _, e := range ready {
		r.goroutines.Go(func() { r.giveBack(e, ErrShutdown) })
	}
}

// awaitClaim claims up to n entries, and waits for the first.
func (r *run) awaitClaim(n int) ([]*Held, error) {
	ctx, cancel := r.untilIdle()
	defer cancel()
	entries, err := r.Queue.TakeN(ctx, n)
	if err != nil && context.Cause(ctx) == errIdle {
		r.takeNoMore()
	}
	return entries, err
}

// untilIdle returns a context that ends with errIdle when the run has been idle for as long
// as Idle says.
func (r *run) untilIdle() (_ context.Context, cancel func()) {
	if r.Idle == 0 {
		return r.taking, func() {}
	}
	ctx, end := context.WithCancelCause(r.taking)
	quit := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for left := r.idleLeft(); left > 0; left = r.idleLeft() {
			t := time.NewTimer(left)
			select {
			case <-t.C:
			case <-quit:
				t.Stop()
				return
			}
		}
		end(errIdle)
	})
	return ctx, func() {
		close(quit)
		watching.Wait()
		end(nil)
	}
}

// idleLeft returns how long the run may go on without work.
func (r *run) idleLeft() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy > 0 {
		return r.Idle
	}
	return r.Idle - time.Since(r.lastWork)
}

// tryClaim claims up to n of the entries that are there. When there are none and nothing is
// to come, the run has drained the queue.
func (r *run) tryClaim(n int) ([]*Held, error) {
	r.mu.Lock()
	idle := r.busy == 0 && len(r.ready) == 0
	r.mu.Unlock()
	drained := idle && r.Queue.LeftAlone() == 0 // before the look, which finds what is given back until then
	entries, err := r.Queue.TryTakeN(r.taking, n)
	switch {
	case errors.Is(err, coord.ErrUnreachable) && !isPassing(err):
		r.fail(err) // whether anything is left cannot be known
		return nil, err
	case !errors.Is(err, ErrEmpty):
		return entries, err
	case errors.Is(err, ErrPaused) && idle:
		r.fail(err)
	case drained:
		r.takeNoMore()
	default:
		wait := retry.Backoff{First: drainPoll, Wake: r.wake}
		wait.Wait(r.taking, nil, nil)
	}
	return nil, nil
}

// remove removes the entry of a handler that is done: in an exchange, unless the taker waits
// for entries, or the taking has ended.
func (r *run) remove(ctx context.Context, e *claimedEntry) error {
	if e.state.Load() == stateDone {
		return ErrAlreadyDone // by its handler
	}
	r.mu.Lock()
	if r.waiting || !r.takes() {
		r.mu.Unlock()
		return e.Consume(ctx)
	}
	m := &removal{e.Held, make(chan error, 1)}
	r.removals = append(r.removals, m)
	r.dropLocked(e) // its room is for what the exchange claims
	share := (r.places() + mostExchanges - 1) / mostExchanges
	if !r.gathering && (r.exchanges == 0 || r.exchanges < mostExchanges && len(r.removals) >= share) {
		r.exchanges++
		r.gathering = true
		r.goroutines.Go(r.exchange)
	}
	r.mu.Unlock()
	err := <-m.result
	if errors.Is(err, ErrClosed) {
		return e.Consume(ctx) // the queue handle is closed, and the entry may be finished still
	}
	return err
}

// exchange removes the entries of the handlers that are done and claims others, as long as
// there are any to remove.
func (r *run) exchange() {
	for {
		done := r.gather()
		if done == nil {
			r.wakeTaker()
			return
		}
		r.mu.Lock()
		n := 0
		if r.takes() {
			n = r.roomLocked()
		}
		r.reserveLocked(n)
		r.mu.Unlock()

		entries := make([]*Held, len(done))
		for i, m := range done {
			entries[i] = m.held
		}
		taken, err := r.Queue.Exchange(r.finishing, entries, n)
		results := make(map[*Held]error)
		if err = splitFinishErrors(err, results); err != nil {
			r.log().Debug("nothing taken", "queue", r.Queue.Name(), "error", err) // the next take meets it again
		}
		r.hold(taken, n)
		for _, m := range done {
			m.result <- results[m.held]
		}
	}
}

// gather returns the entries that the next exchange is to remove, and ends the exchange when
// there are none. Handlers that end at the same time share a commit: as long as others join,
// it lets them.
func (r *run) gather() []*removal {
	for joined := 0; ; {
		if r.places() > 1 {
			runtime.Gosched()
		}
		r.mu.Lock()
		if len(r.removals) > joined && r.places() > 1 {
			joined = len(r.removals)
			r.mu.Unlock()
			continue
		}
		done := r.removals
		r.removals, r.gathering = nil, false
		if len(done) == 0 {
			r.exchanges--
		}
		r.mu.Unlock()
		return done
	}
}

// splitFinishErrors takes the error of an exchange apart: the errors of single entries go
// into results, and the rest is returned.
func splitFinishErrors(err error, results map[*Held]error) error {
	var f *FinishError
	if !errors.As(err, &f) {
		return err
	}
	switch e := err.(type) {
	case *FinishError:
		results[e.Held] = e.Err
		return nil
	case interface{ Unwrap() []error }:
		var rest []error
		for _, part := range e.Unwrap() {
			rest = append(rest, splitFinishErrors(part, results))
		}
		return errors.Join(rest...)
	}
	return splitFinishErrors(errors.Unwrap(err), results)
}

// placeStuck notes that a place's handler does not return.
func (r *run) placeStuck(h *Held) {
	r.mu.Lock()
	r.stuck++
	stuck := r.stuck
	r.watchStuckLocked()
	r.mu.Unlock()
	r.log().Error(fmt.Sprintf("%d of %d places are stuck: the handler does not return", stuck, r.places()),
		"queue", r.Queue.Name(), "entry", h.Name, "delivery", h.Deliveries)
}

// placeFree notes that a stuck handler returned after all.
func (r *run) placeFree(h *Held) {
	r.mu.Lock()
	r.stuck--
	stuck := r.stuck
	r.watchStuckLocked()
	r.mu.Unlock()
	r.log().Info(fmt.Sprintf("a stuck handler returned: %d of %d places are stuck", stuck, r.places()), "queue", r.Queue.Name(), "entry", h.Name)
}

// watchStuckLocked has the run end after a while when no place is left that works, or none
// of those that the run waits for.
func (r *run) watchStuckLocked() {
	stuck, most := r.stuck, r.places()
	if r.taking.Err() != nil {
		most = max(r.busy, 1)
	}
	switch {
	case stuck < most && r.ending != nil:
		r.ending.Stop()
		r.ending = nil
	case stuck >= most && r.ending == nil:
		r.ending = time.AfterFunc(stuckRun, func() {
			r.fail(fmt.Errorf("all %d places of queue %s: %w", stuck, r.Queue.Name(), ErrStuck))
		})
	}
}

// allStuck reports whether the run ended because no place was left that works.
func (r *run) allStuck() bool { return errors.Is(context.Cause(r.failing), ErrStuck) }

// isPermanent reports whether another take makes no sense.
func isPermanent(err error) bool {
	for _, target := range []error{ErrClosed, coord.ErrClosed, ErrInvalidName, ErrLayout} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// isPassing reports whether the next take finds another session, or a service that answers.
func isPassing(err error) bool {
	for _, target := range []error{coord.ErrUnknown, coord.ErrSessionLost, coord.ErrBusy, context.DeadlineExceeded} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// refusesWorker reports whether the service, or what answers in its place, does not let the
// worker in.
func refusesWorker(err error) bool {
	for _, target := range []error{ErrInvalid, coord.ErrForbidden, coord.ErrAuth, coord.ErrTLS, coord.ErrFormat} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// refusals are those that followed one another.
type refusals struct{ first, last time.Time }

// lasted counts a refusal, and reports whether they have lasted too long. session is the
// timeout of the session that there was, 0 if there was none: the first refusal is final
// then.
func (r *refusals) lasted(session time.Duration) bool {
	now := time.Now()
	if r.last.IsZero() || now.Sub(r.last) > session {
		r.first = now
	}
	r.last = now
	return session == 0 || now.Sub(r.first) > session
}
