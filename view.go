package zkq

import (
	"context"
	"errors"
	"path"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/priority"
)

// headWindow is how many available entries a view wants to know of. More would
// be stale before they are taken.
const headWindow = 64

// errGone says that an entry cannot be claimed any more, or not now: somebody
// else has it. The search goes on.
var errGone = errors.New("entry is gone")

// view is what a process knows of the head of a queue while it waits there:
// entries that nobody holds, in take order. It is kept by a standing watch,
// which begins before the first listing. It belongs to whoever has the turn.
type view struct {
	place *place
	skip  *skipped

	session coord.Session
	changed <-chan struct{}
	unwatch context.CancelFunc

	listed bool     // since the last signal
	whole  bool     // ready is all there was, not just the head
	ready  []string // what is left of it
}

// find claims the first available entry, waiting for one. claim returns errGone
// when it must be another.
func (v *view) find(ctx context.Context, claim func(context.Context, coord.Session, string) error) error {
	fresh := v.place.strict
	for pause := newPause(); ; {
		if err := v.open(ctx); err != nil {
			return err
		}
		if v.place.strict {
			v.listed = false
		}
		if v.stale() {
			err := v.list(ctx, fresh)
			if lostBefore(err) || v.patient(ctx, err, pause) {
				continue
			}
			if err != nil {
				return err
			}
		}
		name, ok := v.next()
		switch {
		case ok:
			err := claim(ctx, v.session, name)
			if errors.Is(err, errGone) || lostBefore(err) {
				continue
			}
			if err != nil {
				v.listed = false // it is still there, and no signal will say so
			}
			if v.patient(ctx, err, pause) {
				continue
			}
			return err
		case !v.whole:
			// All of the head went to others: the next look must show that.
			v.listed, fresh = false, true
		default:
			fresh = v.place.strict
			v.wait(ctx)
		}
	}
}

// patient waits a little if the service asks to come again later.
func (v *view) patient(ctx context.Context, err error, pause *pause) bool {
	return errors.Is(err, coord.ErrBusy) && !errors.Is(err, ErrUnknown) && pause.wait(ctx, nil) == nil
}

// open subscribes in the live session, before anything is listed in it.
func (v *view) open(ctx context.Context) error {
	s, err := v.place.session(ctx)
	if err != nil || s == v.session {
		return err
	}
	v.close()
	watching, unwatch := context.WithCancel(context.Background())
	dirs := []string{v.place.entries}
	if v.place.taken != "" {
		dirs = append(dirs, v.place.taken)
	}
	stop := context.AfterFunc(ctx, unwatch) // ctx bounds the call, not the watch
	changed, err := s.Watch(watching, dirs...)
	if !stop() || err != nil {
		unwatch()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case lostBefore(err):
			return v.open(ctx)
		}
		return err
	}
	v.session, v.changed, v.unwatch = s, changed, unwatch
	return nil
}

// close ends the watch.
func (v *view) close() {
	if v.unwatch != nil {
		v.unwatch()
	}
	v.session, v.changed, v.unwatch = nil, nil, nil
	v.listed, v.ready = false, nil
}

// stale says that the listing must be made anew.
func (v *view) stale() bool {
	select {
	case <-v.changed:
		v.listed = false
	default:
	}
	return !v.listed
}

func (v *view) list(ctx context.Context, fresh bool) error {
	a, err := v.place.available(ctx, v.session, headWindow+v.skip.len(), fresh)
	if err != nil {
		return err
	}
	v.ready, v.whole, v.listed = a.names, a.whole, true
	return nil
}

// next takes the first entry that this process does not leave alone.
func (v *view) next() (string, bool) {
	for len(v.ready) > 0 {
		name := v.ready[0]
		v.ready = v.ready[1:]
		if !v.skip.has(name) {
			return name, true
		}
	}
	return "", false
}

// wait returns when there may be something new: what, the caller finds out.
func (v *view) wait(ctx context.Context) {
	var due <-chan time.Time
	if at, ok := v.skip.next(); ok {
		t := time.NewTimer(time.Until(at))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-v.session.Done():
	case <-v.changed:
		v.listed = false
	case <-v.skip.changed:
		// Something else is left alone now, or not any more.
		v.listed = false
	case <-due:
	}
	// One look answers them all, whichever woke us.
	select {
	case <-v.skip.changed:
		v.listed = false
	default:
	}
	if v.skip.prune() {
		v.listed = false
	}
}

// available is the head of a queue at some instant.
type available struct {
	names []string
	whole bool   // nothing available is missing
	stamp uint64 // of the locks, read before the entries
}

// available lists entries that nobody holds: at least want of them if there are
// as many, in take order. Locks are read before entries, so that an entry whose
// lock was given back in between is missed rather than one that is held be
// offered; the signal of that change makes the caller look again.
func (p *place) available(ctx context.Context, s coord.Session, want int, fresh bool) (available, error) {
	locks := make(map[string]bool)
	var a available
	if p.taken != "" {
		l, err := s.List(ctx, p.taken, coord.ListOptions{Fresh: fresh})
		if err != nil {
			return a, err
		}
		for _, n := range l.Nodes {
			locks[path.Base(n.Path)] = true
		}
		a.stamp = l.Stamp
	}
	// Foreign nodes, however many, are passed over where no entry can stand among them.
	after, more := priority.Beyond("")
	for limit := want + len(locks); ; limit *= 2 {
		l, err := s.List(ctx, p.entries, coord.ListOptions{After: after, Limit: limit, Fresh: fresh})
		if err != nil {
			return a, err
		}
		for _, name := range p.entryNames(l.Nodes) {
			if !locks[name] {
				a.names = append(a.names, name)
			}
		}
		if l.More {
			after = path.Base(l.Nodes[len(l.Nodes)-1].Path)
			if _, entry := priority.Parse(after); !entry {
				after, more = priority.Beyond(after)
			}
		}
		if a.whole = !l.More || !more; a.whole || len(a.names) >= want {
			return a, nil
		}
	}
}

// mostSeized leaves room for what is added to a number of entries to look for.
const mostSeized = 1 << 28

// seize is one attempt to claim without waiting: it tries what is there until a
// claim succeeds, and says ErrEmpty only when there was an instant during the
// call at which nothing was available. Up to n entries are claimed.
func (p *place) seize(ctx context.Context, skip *skipped, n int, claim func(context.Context, coord.Session, string) error) error {
	n = min(n, mostSeized)
	return p.do(ctx, func(ctx context.Context, s coord.Session) error {
		got := 0
		for pause := newPause(); ; {
			a, err := p.available(ctx, s, n+skip.len(), true)
			tried := 0
			for i := 0; err == nil && i < len(a.names) && got < n; i++ {
				if skip.has(a.names[i]) {
					continue
				}
				tried++
				if err = claim(ctx, s, a.names[i]); err == nil {
					got++
				} else if errors.Is(err, errGone) {
					err = nil
				}
			}
			switch {
			case got > 0:
				return nil // what went wrong after the first will show again
			case err != nil:
				return err
			case tried > 0, !a.whole:
				// Others were faster, or more is left alone than was when the
				// listing began.
				if err := pause.wait(ctx, nil); err != nil {
					return err
				}
				continue
			}
			if p.taken == "" {
				return ErrEmpty
			}
			// An entry that was released after the locks were read and claimed
			// before the entries were would make "empty" a lie: it is true if
			// the same locks stood all the time in between.
			l, err := s.List(ctx, p.taken, coord.ListOptions{Fresh: true})
			if err != nil {
				return err
			}
			if l.Stamp == a.stamp {
				return ErrEmpty
			}
		}
	})
}
