package zkq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/internal/retry"
)

// run is one call of [Worker.Run]. It has these kinds of goroutines:
//
//   - the taker claims entries while places are free and no exchange is under way;
//   - a place calls the handler for one entry after the other, and finishes each. There are
//     as many places as Concurrency says, and a goroutine only for those with an entry;
//   - an exchange removes the entries of handlers that are done and claims others, in one
//     commit;
//   - with Drain, one goroutine ends the run in an outage that lasts.
//
// The run never holds more than Concurrency + ReadAhead entries. A claim reserves room for
// the entries that it wants, before it is sent, and returns what it did not use.
//
// A shutdown ends taking first, then working, then finishing: new work stops first, then the
// handlers, then the finishes.
type run struct {
	*Worker
	taking    context.Context // ends first; after that there is no claim and no call of a handler
	working   context.Context // of the handlers; ends when the grace is over
	finishing context.Context // of the finishes; ends last
	failing   context.Context // ends with the error for which Run must return, or when Run has returned
	stop      context.CancelCauseFunc
	endWork   context.CancelCauseFunc
	endFinish context.CancelFunc
	endRun    context.CancelCauseFunc

	wake       chan struct{} // holds a token when there may be room for the taker to use
	goroutines sync.WaitGroup

	mu        sync.Mutex
	held      int             // entries that are held or reserved by a claim under way; without those in removals
	claiming  int             // how many of held are reserved by claims under way
	taken     int             // entries claimed by this run so far, with those in claiming; see Limit
	busy      int             // places that work on an entry, including those with a stuck handler
	ready     []*claimedEntry // held and waiting for a place, in the order of the claims
	removals  []*removal      // what the next exchange removes
	exchanges int             // exchanges under way, at most mostExchanges
	gathering bool            // an exchange has started and not collected removals yet
	waiting   bool            // the taker's claim waits for entries to be put
	lastWork  time.Time       // when an entry was claimed or a handler returned last; see Idle
	left      int             // handlers that still ran when the run ended
	stuck     int             // places whose handlers do not return
	ending    *time.Timer     // ends the run with ErrStuck; runs while all places are stuck

	finishRefusals refusals // of finishes that the service does not allow
}

// claimedEntry is an entry that a run holds.
type claimedEntry struct {
	*Held
	ctx     context.Context    // of its handler, without the Timeout; ends when the lock is lost
	forget  context.CancelFunc // frees what ctx needs
	dropped bool               // the entry no longer counts in run.held
}

// removal is an entry whose handler has succeeded and which the next exchange removes. Its
// place waits for the result of the removal.
type removal struct {
	held   *Held
	result chan error // gets one value
}

// Limits of one claim, and of the exchanges under way at a time.
const (
	mostClaimed   = 64 // entries
	mostExchanges = 4  // several, so that a slow service costs no throughput
)

// drainPoll is how long a worker with Drain pauses when nothing is available and the queue is
// not drained yet.
const drainPoll = 100 * time.Millisecond

// The causes with which a run's taking ends when nothing went wrong.
var (
	errEnough = errors.New("zkq: the worker has done what it was asked for")
	errIdle   = errors.New("zkq: nothing was taken for too long")
)

// fatalError marks, among the causes of a context, the error with which the run ends.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

// newRun returns a run whose taking ends with ctx. Its other contexts outlive ctx: handlers
// have a grace, and finishes need some time after that.
func newRun(w *Worker, ctx context.Context) *run {
	r := &run{Worker: w, wake: make(chan struct{}, 1), lastWork: time.Now()}
	r.taking, r.stop = context.WithCancelCause(ctx)
	outlasting := context.WithoutCancel(ctx)
	r.working, r.endWork = context.WithCancelCause(outlasting)
	r.finishing, r.endFinish = context.WithCancel(outlasting)
	r.failing, r.endRun = context.WithCancelCause(outlasting)
	return r
}

// runUntil works until ctx ends or the work is done, shuts down in the order that Run describes,
// and returns the result of Run.
func (r *run) runUntil(ctx context.Context) error {
	defer r.endRun(nil)
	defer r.endFinish()
	defer r.endWork(ErrShutdown)
	defer r.stop(nil)

	r.goroutines.Go(r.take)
	if r.Drain {
		r.goroutines.Go(r.watchSession)
	}
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

// within waits until done is closed, at most for d, and reports whether it is closed.
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

// result returns what Run returns: the fatal error, and [ErrStuck] if handlers still run.
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

// takes reports whether the run may still claim entries and call handlers.
func (r *run) takes() bool {
	select {
	case <-r.Stop: // noticed here before runUntil does
		r.stop(errEnough)
	default:
	}
	return r.taking.Err() == nil
}

// fail ends the run, which then returns err.
func (r *run) fail(err error) {
	fatal := &fatalError{err}
	r.endRun(fatal)
	r.stop(fatal)
}

// takeNoMore ends the taking without an error. Running handlers are not limited in time.
func (r *run) takeNoMore() {
	r.stop(errEnough)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchStuckLocked()
}

// take is the taker: it claims entries until the taking ends. A lost connection or session is
// waited out; a permanent error, or a refusal that lasts, ends the run.
func (r *run) take() {
	defer r.giveBackReady()
	backoff := r.Queue.handle.Backoff(actTake)
	var since refusals
	more := false // the last claim got as many entries as it wanted, so there may be more
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
		r.startClaimed(entries, n)
		more = len(entries) == n
		switch {
		case r.taking.Err() != nil:
			return retry.Stop, err
		case err == nil:
			backoff.Reset()
			backoff.Succeeded()
			return retry.Now, nil
		case isPermanent(err), refusesWorker(err) && since.addAndCheck(r.Queue.handle.SessionTimeout()):
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

// awaitRoom waits until the taker may claim entries, reserves room for them and returns how
// many. It returns 0 when the taking has ended. waits says that the taker's claim will wait
// for entries to be put: until it returns, no exchange is started.
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

// roomLocked returns how many entries may be claimed now. A stuck handler takes up room until
// it returns.
func (r *run) roomLocked() int {
	n := min(r.places()+r.ReadAhead-r.held-r.stuck, mostClaimed)
	if r.Limit > 0 {
		n = min(n, r.Limit-r.taken)
	}
	return max(n, 0)
}

// reserveLocked reserves room for a claim of n entries; startClaimed returns what is left over.
func (r *run) reserveLocked(n int) {
	r.held += n
	r.claiming += n
	r.taken += n
}

// startClaimed starts handlers for the claimed entries, and frees the room that the claim of n
// reserved and did not use. If the taking has ended, it gives the entries back.
func (r *run) startClaimed(entries []*Held, n int) {
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

// startReadyLocked starts a goroutine for each free place while entries wait for one.
func (r *run) startReadyLocked() {
	for r.busy < r.places() {
		e := r.nextLocked()
		if e == nil {
			return
		}
		r.busy++
		r.goroutines.Go(func() { r.runPlace(e) })
	}
}

// nextLocked takes the next entry for a handler out of ready. It returns nil if there is none,
// or if the taking has ended. Entries whose lock was lost meanwhile get no handler.
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

// runPlace is the goroutine of a place. It handles e, and then one entry after the other that
// is ready, and ends when there is none.
func (r *run) runPlace(e *claimedEntry) {
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

// dropLocked frees the room of an entry: it is not held any more, or the exchange that it
// waits for will remove it. A second call does nothing.
func (r *run) dropLocked(e *claimedEntry) {
	if !e.dropped {
		e.dropped = true
		r.held--
	}
}

// drop is dropLocked for callers without the lock.
func (r *run) drop(e *claimedEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropLocked(e)
}

// wakeTaker has the taker look for room again. It never blocks.
func (r *run) wakeTaker() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// giveBackReady waits until the taking has ended, and gives back the entries that are still
// waiting for a place. They do not count as delivered.
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

// awaitClaim claims up to n entries, and waits for the first one. If the run has been idle for
// too long meanwhile, it ends the taking.
func (r *run) awaitClaim(n int) ([]*Held, error) {
	ctx, cancel := r.untilIdle()
	defer cancel()
	entries, err := r.Queue.TakeN(ctx, n)
	if err != nil && context.Cause(ctx) == errIdle {
		r.takeNoMore()
	}
	return entries, err
}

// untilIdle returns a context that ends with the cause errIdle when no handler has run and
// nothing was taken for as long as Idle says. The caller must call cancel.
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

// idleLeft returns how much longer the run may wait for work. It is all of Idle while a handler
// runs.
func (r *run) idleLeft() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy > 0 {
		return r.Idle
	}
	return r.Idle - time.Since(r.lastWork)
}

// tryClaim claims up to n entries without waiting, for a worker with Drain. If none is
// available, no handler runs and no entry that this handle gave back is due later, the queue
// is drained and the taking ends. Otherwise it pauses a little and returns no entries.
func (r *run) tryClaim(n int) ([]*Held, error) {
	r.mu.Lock()
	idle := r.busy == 0 && len(r.ready) == 0
	r.mu.Unlock()
	drained := idle && r.Queue.LeftAlone() == 0 // read before the take, which finds what was given back by then
	entries, err := r.Queue.TryTakeN(r.taking, n)
	switch {
	case errors.Is(err, coord.ErrUnreachable) && !isPassing(err):
		r.fail(err) // the service cannot be asked whether entries are left
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

// watchSession ends a run with Drain if there is no session for about as long as one lasts: the
// service cannot be asked whether entries are left, and a take would wait for it.
func (r *run) watchSession() {
	h := r.Queue.handle
	for {
		timeout := cmp.Or(h.SessionTimeout(), time.Minute)
		select {
		case <-r.taking.Done():
			return
		case <-time.After(timeout):
		}
		ctx, cancel := context.WithTimeout(r.taking, timeout)
		_, err := h.Coordinator.Session(ctx)
		cancel()
		if errors.Is(err, coord.ErrUnreachable) && r.taking.Err() == nil {
			r.fail(err)
		}
	}
}

// remove removes the entry of a handler that has succeeded, and returns the result of the
// finish. It hands the entry to an exchange. If the taker waits for entries, or the taking has
// ended, an exchange has nothing to claim: then it removes the entry in a commit of its own.
func (r *run) remove(ctx context.Context, e *claimedEntry) error {
	if e.state.Load() == stateDone {
		return ErrAlreadyDone // the handler has finished it
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
		return e.Consume(ctx) // a closed queue makes no exchange, but still finishes entries
	}
	return err
}

// exchange removes the entries in removals and claims as many others as there is room for, in
// one commit. It repeats this until there is nothing to remove.
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
			r.log().Debug("nothing taken", "queue", r.Queue.Name(), "error", err) // the taker's next claim returns it again
		}
		r.startClaimed(taken, n)
		for _, m := range done {
			m.result <- results[m.held]
		}
	}
}

// gather collects the entries that the next exchange removes. Handlers that end at the same
// time should share a commit, so it yields to them as long as removals grows. It returns nil if
// there is nothing to remove: then the exchange ends, and no longer counts in exchanges.
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

// splitFinishErrors takes the error of an exchange apart. It stores the errors of single finishes
// in results, and returns what is left: the error of the claim, or nil.
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

// noteStuck counts a place whose handler does not return, and logs it.
func (r *run) noteStuck(h *Held) {
	r.mu.Lock()
	r.stuck++
	stuck := r.stuck
	r.watchStuckLocked()
	r.mu.Unlock()
	r.log().Error(fmt.Sprintf("%d of %d places are stuck: the handler does not return", stuck, r.places()),
		"queue", r.Queue.Name(), "entry", h.Name, "delivery", h.Deliveries)
}

// noteUnstuck counts a place as usable again whose stuck handler has returned after all.
func (r *run) noteUnstuck(h *Held) {
	r.mu.Lock()
	r.stuck--
	stuck := r.stuck
	r.watchStuckLocked()
	r.mu.Unlock()
	r.log().Info(fmt.Sprintf("a stuck handler returned: %d of %d places are stuck", stuck, r.places()), "queue", r.Queue.Name(), "entry", h.Name)
}

// watchStuckLocked starts or stops the timer that ends the run with [ErrStuck]. The timer runs
// while all places are stuck; once the taking has ended, while all that still work are.
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

// allStuck reports whether the run failed because all its places were stuck.
func (r *run) allStuck() bool { return errors.Is(context.Cause(r.failing), ErrStuck) }

// isPermanent reports whether err is one that every further take would return.
func isPermanent(err error) bool {
	for _, target := range []error{ErrClosed, coord.ErrClosed, ErrInvalidName, ErrLayout} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// isPassing reports whether err is one that the worker waits out without a warning: the next
// take may find another session, or a service that answers.
func isPassing(err error) bool {
	for _, target := range []error{coord.ErrUnknown, coord.ErrSessionLost, coord.ErrBusy, context.DeadlineExceeded} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// refusesWorker reports whether err says that the service, or the server at its address, does
// not let the worker in. The run waits for a while before it takes that as final ([refusals]).
func refusesWorker(err error) bool {
	for _, target := range []error{ErrInvalid, coord.ErrForbidden, coord.ErrAuth, coord.ErrTLS, coord.ErrFormat} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// refusals are the times of a series of refusals. A service that starts, or changes its
// certificates, may refuse a worker for a moment. So only a series that lasts ends a run.
type refusals struct{ first, last time.Time }

// addAndCheck adds a refusal, and reports whether the series is longer than a session. A refusal
// that comes a session or more after the one before begins a new series. session is the timeout
// of the session, or 0 if the service never granted one: then the first refusal is final.
func (r *refusals) addAndCheck(session time.Duration) bool {
	now := time.Now()
	if r.last.IsZero() || now.Sub(r.last) > session {
		r.first = now
	}
	r.last = now
	return session == 0 || now.Sub(r.first) > session
}
