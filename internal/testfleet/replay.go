package testfleet

import (
	"fmt"
	"slices"
	"strings"
)

// Commit is one transaction of a service, in the order in which the service applied them.
type Commit struct {
	Revision int64  // or zxid; the token of the claims in it
	Session  string // of the commit; "" if the service does not record it
	Changes  []Change
}

// Change is what a commit did to a node.
type Change struct {
	Path    string // below the fleet's root
	Deleted bool
	Value   string // after it
	Owner   string // of an ephemeral node: its session
}

// Replay goes through the commits of a service and checks that a queue may make them:
//
//   - an entry is created once under a name, and once for each value;
//   - it is claimed only while no session holds it, and each claim gives it a new fence;
//   - it is removed only together with its lock, by the session that holds the lock.
//
// At the end it knows the outcome of every act, also of those that are unknown to their client.
type Replay struct {
	Commits int
	Wrong   []string // commits that a queue must not make

	entries map[string]*entryState // by path
	values  map[string]string      // the path under which a value was put
}

// entryState is what the commits so far did to one entry.
type entryState struct {
	value        string
	exists       bool
	holder       string // session; "" if none
	token        int64  // of the last claim
	removedToken int64  // the token of the claim under which it was removed
}

// NewReplay returns a replay that begins with empty queues.
func NewReplay() *Replay {
	return &Replay{entries: make(map[string]*entryState), values: make(map[string]string)}
}

// Apply takes the next commit.
func (r *Replay) Apply(c Commit) {
	r.Commits++
	// A commit may create a node and set it. The last write counts; the owner stays.
	type both struct{ entry, lock *Change }
	touched := make(map[string]*both)
	var order []string
	for _, change := range c.Changes {
		path, isLock, ours := entryPath(change.Path)
		if !ours {
			continue
		}
		b := touched[path]
		if b == nil {
			b = &both{}
			touched[path] = b
			order = append(order, path)
		}
		which := &b.entry
		if isLock {
			which = &b.lock
		}
		if before := *which; before != nil && change.Owner == "" && !change.Deleted {
			change.Owner = before.Owner
		}
		*which = &change
	}
	for _, path := range order {
		if what := r.applyToEntry(path, c, touched[path].entry, touched[path].lock); what != "" {
			r.Wrong = append(r.Wrong, fmt.Sprintf("commit %#x by %q: %s: %s", c.Revision, c.Session, path, what))
		}
	}
}

// entryPath returns the path of the entry that a path belongs to, and whether it is that of the
// lock. ours is false for all other paths.
func entryPath(path string) (entry string, isLock, ours bool) {
	for _, dir := range []string{"/entries/", "/taken/"} {
		if queue, name, found := strings.Cut(path, dir); found {
			return queue + "/entries/" + name, dir == "/taken/", true
		}
	}
	return "", false, false
}

// applyToEntry applies what a commit did to one entry and its lock; nil means nothing. It returns
// what is wrong with it, or "".
func (r *Replay) applyToEntry(path string, c Commit, entry, lock *Change) string {
	e := r.entries[path]
	switch {
	case entry != nil && !entry.Deleted && (e == nil || !e.exists): // put
		if e != nil {
			return "a name was used again"
		}
		r.entries[path] = &entryState{value: entry.Value, exists: true}
		if other, twice := r.values[entry.Value]; twice {
			return fmt.Sprintf("%q was put twice, first as %s", entry.Value, other)
		}
		r.values[entry.Value] = path
		if lock != nil {
			return "put and locked in one"
		}
	case lock != nil && !lock.Deleted: // claim
		switch {
		case e == nil || !e.exists:
			return "a lock without an entry"
		case e.holder != "":
			return fmt.Sprintf("claimed for %s while %s held it", lock.Owner, e.holder)
		case lock.Owner == "":
			return "a lock that no session owns"
		case c.Session != "" && c.Session != lock.Owner:
			return "a lock for another session"
		case entry == nil:
			return "claimed, and its fence did not move"
		case entry.Deleted || entry.Value != e.value:
			return "claimed, and it is not the same any more"
		}
		e.holder, e.token = lock.Owner, c.Revision
	case entry != nil && entry.Deleted: // finish
		holder := e.holder
		e.exists, e.holder, e.removedToken = false, "", e.token
		switch {
		case holder == "":
			return "removed while nobody held it"
		case lock == nil:
			return "removed, and its lock was left"
		case c.Session != "" && c.Session != holder:
			return "removed while " + holder + " held it"
		}
	case lock != nil: // given back, or its session ended
		if e == nil || e.holder == "" {
			return "a lock was removed that was not there"
		}
		holder := e.holder
		e.holder = ""
		switch {
		case c.Session != "" && c.Session != holder:
			return "taken from " + holder
		case entry != nil:
			return "changed as it was given back"
		}
	case entry != nil:
		return "changed, and not claimed"
	}
	return ""
}

// Remaining describes the entries that still exist.
func (r *Replay) Remaining() []string {
	var left []string
	for path, e := range r.entries {
		if e.exists {
			left = append(left, fmt.Sprintf("%s (%s) was never removed, and is held by %q", path, e.value, e.holder))
		}
	}
	slices.Sort(left)
	return left
}

// Verdict is the result of [Replay.Check].
type Verdict struct {
	Applied, Not int      // unknown puts that were applied, and that were not
	Removed, Old int      // unknown finishes that removed the entry, and that did nothing
	Wrong        []string // answers that were not true
}

// Check compares the answers that clients got with the commits of the service. names[n] is the
// name of the ledger's queue n.
func (r *Replay) Check(l *Ledger, names []string) Verdict {
	var v Verdict
	wrong := func(format string, args ...any) { v.Wrong = append(v.Wrong, fmt.Sprintf(format, args...)) }
	for value, p := range l.puts {
		path, there := r.values[value]
		switch want := names[p.queue] + "/entries/" + p.name; {
		case p.outcome == outcomeOK && (!there || p.name != "" && path != want):
			wrong("%s was put as %s, said the queue; it was as %q", value, want, path)
		case p.outcome == outcomeRefused && there:
			wrong("%s was refused, said the queue; it was put as %s", value, path)
		case p.outcome == outcomeUnknown && there:
			v.Applied++
		case p.outcome == outcomeUnknown:
			v.Not++
		}
	}
	for value, path := range r.values {
		if l.puts[value] == nil {
			wrong("%s (%s) was put by nobody", path, value)
		}
	}
	for key, e := range l.entries {
		path := names[key.queue] + "/entries/" + key.name
		was := r.entries[path]
		if was == nil {
			wrong("%s was handed out, and was never there", path)
			continue
		}
		var by int // finishes that may have removed it, by their outcomes
		for f, o := range e.finishes {
			did := !was.exists && was.removedToken == f.token
			switch {
			case o == outcomeOK && !did:
				wrong("%s: %s was told that it removed the entry with token %#x; it went with %#x", path, f.client, f.token, was.removedToken)
			case (o == outcomeLost || o == outcomeRefused) && did:
				wrong("%s: %s was told that it removed nothing with token %#x, and did", path, f.client, f.token)
			case o == outcomeUnknown && did:
				v.Removed++
			case o == outcomeUnknown:
				v.Old++
			}
			if did && (o == outcomeOK || o == outcomeUnknown) {
				by++
			}
		}
		if !was.exists && by != 1 {
			wrong("%s went with token %#x, which %d finishes had", path, was.removedToken, by)
		}
	}
	for path, was := range r.entries {
		queue, name, _ := strings.Cut(path, "/entries/")
		if n := slices.Index(names, queue); !was.exists && (n < 0 || l.entries[entryKey{n, name}] == nil) {
			wrong("%s (%s) was removed, and handed out to nobody", path, was.value)
		}
	}
	slices.Sort(v.Wrong)
	return v
}
