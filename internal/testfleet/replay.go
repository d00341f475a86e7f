package testfleet

import (
	"fmt"
	"slices"
	"strings"
)

// Commit is one transaction of a service, in the order in which the service applied them.
type Commit struct {
	Revision int64  // or zxid: the token of the claims in it
	Session  string // whose it was; "" where the service does not tell
	Changes  []Change
}

// Change is what a commit did to a node.
type Change struct {
	Path    string // below the fleet's root
	Deleted bool
	Value   string // after it
	Owner   string // of an ephemeral node: the session it lives with
}

// Replay goes through the commits of a service, and holds each against what a queue may do: an entry is created once under a
// name, and once for each value; it is claimed only while nobody holds it, and each claim moves its fence; it is removed only
// together with its lock, and by the session that has that lock. What it knows in the end leaves nothing unknown.
type Replay struct {
	Commits int
	Wrong   []string // what no queue may do

	entries map[string]*life  // by path
	values  map[string]string // the path under which a value was put
}

// life is that of one entry.
type life struct {
	value   string
	there   bool
	holder  string // session; "" while nobody holds it
	token   int64  // of the last claim
	removed int64  // the token of the claim under which it was removed
}

// NewReplay returns a replay that begins where nothing has been put.
func NewReplay() *Replay {
	return &Replay{entries: make(map[string]*life), values: make(map[string]string)}
}

// Apply takes the next commit.
func (r *Replay) Apply(c Commit) {
	r.Commits++
	// A node may be written twice in a commit, created and set: the last word counts, an owner stays.
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
		if what := r.step(path, c, touched[path].entry, touched[path].lock); what != "" {
			r.Wrong = append(r.Wrong, fmt.Sprintf("commit %#x by %q: %s: %s", c.Revision, c.Session, path, what))
		}
	}
}

// entryPath is the path of an entry, or that of the entry whose lock it is.
func entryPath(path string) (entry string, isLock, ours bool) {
	for _, dir := range []string{"/entries/", "/taken/"} {
		if queue, name, found := strings.Cut(path, dir); found {
			return queue + "/entries/" + name, dir == "/taken/", true
		}
	}
	return "", false, false
}

// step is what a commit did to one entry and its lock, either of which it may have left alone; it returns what is wrong.
func (r *Replay) step(path string, c Commit, entry, lock *Change) string {
	e := r.entries[path]
	switch {
	case entry != nil && !entry.Deleted && (e == nil || !e.there): // put
		if e != nil {
			return "a name was used again"
		}
		r.entries[path] = &life{value: entry.Value, there: true}
		if other, twice := r.values[entry.Value]; twice {
			return fmt.Sprintf("%q was put twice, first as %s", entry.Value, other)
		}
		r.values[entry.Value] = path
		if lock != nil {
			return "put and locked in one"
		}
	case lock != nil && !lock.Deleted: // claim
		switch {
		case e == nil || !e.there:
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
		e.there, e.holder, e.removed = false, "", e.token
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

// Left are the entries that are still there.
func (r *Replay) Left() []string {
	var left []string
	for path, e := range r.entries {
		if e.there {
			left = append(left, fmt.Sprintf("%s (%s) was never removed, and is held by %q", path, e.value, e.holder))
		}
	}
	slices.Sort(left)
	return left
}

// Verdict is what a replay makes of a ledger.
type Verdict struct {
	Applied, Not int      // puts that were unknown to their client: applied, and not
	Removed, Old int      // finishes that were unknown: they removed the entry, and did nothing
	Wrong        []string // what a client was told, and was not so
}

// Check compares what the clients were told with what was so. A ledger's queue n is called as names[n].
func (r *Replay) Check(l *Ledger, names []string) Verdict {
	var v Verdict
	wrong := func(format string, args ...any) { v.Wrong = append(v.Wrong, fmt.Sprintf(format, args...)) }
	for value, p := range l.puts {
		path, there := r.values[value]
		switch want := names[p.queue] + "/entries/" + p.name; {
		case p.outcome == ok && (!there || p.name != "" && path != want):
			wrong("%s was put as %s, said the queue; it was as %q", value, want, path)
		case p.outcome == refused && there:
			wrong("%s was refused, said the queue; it was put as %s", value, path)
		case p.outcome == unknown && there:
			v.Applied++
		case p.outcome == unknown:
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
		var by int // finishes that may have removed it, by what their clients were told
		for f, o := range e.finishes {
			did := !was.there && was.removed == f.token
			switch {
			case o == ok && !did:
				wrong("%s: %s was told that it removed the entry with token %#x; it went with %#x", path, f.client, f.token, was.removed)
			case (o == lost || o == refused) && did:
				wrong("%s: %s was told that it removed nothing with token %#x, and did", path, f.client, f.token)
			case o == unknown && did:
				v.Removed++
			case o == unknown:
				v.Old++
			}
			if did && (o == ok || o == unknown) {
				by++
			}
		}
		if !was.there && by != 1 {
			wrong("%s went with token %#x, which %d finishes had", path, was.removed, by)
		}
	}
	for path, was := range r.entries {
		queue, name, _ := strings.Cut(path, "/entries/")
		if n := slices.Index(names, queue); !was.there && (n < 0 || l.entries[entryKey{n, name}] == nil) {
			wrong("%s (%s) was removed, and handed out to nobody", path, was.value)
		}
	}
	slices.Sort(v.Wrong)
	return v
}
