package headtohead

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testzk"
)

// breach is something that a queue must not do.
type breach struct {
	kind string
	at   time.Time
	text string
}

// Kinds of breaches.
const (
	putLost       = "lost"             // a put was acknowledged, and no worker was ever given its entry, though it is gone
	putTwice      = "put twice"        // one put made two entries
	finishedTwice = "finished twice"   // two workers were told that they finished one entry
	wronglyEnded  = "wrongly finished" // an entry or its lock was removed by others than its holder, or a worker was told so and it was not
	orphanLock    = "orphan lock"      // a lock stood for more than a second without an entry
	stuck         = "stuck"            // an entry that no worker had was not handed out any more
	hung          = "hung"             // a worker did not come back from its call
)

// verdict is what the witnesses say of one run.
type verdict struct {
	puts, unknownPuts, finishes, unknownFinishes, late int // late: finishes refused because the entry had been lost
	left                                               []string
	breaches                                           []breach
}

// entry is the life of one, by ZooKeeper's log.
type entry struct {
	value   string
	created time.Time
	gone    time.Time // zero while it is there
	holder  string    // what stood in the lock when it was removed
	foreign string    // the text of a removal by another session than the lock's, of the entry or of its lock
}

// standing is a lock that is there.
type standing struct {
	session int64
	holder  string
	orphan  time.Time // since when it has no entry
}

// judge compares what the clients wrote down with what ZooKeeper did below root.
func judge(root string, queues []string, records []record, history []testzk.Txn) (verdict, error) {
	var v verdict
	add := func(kind string, at time.Time, format string, args ...any) {
		v.breaches = append(v.breaches, breach{kind, at, fmt.Sprintf(format, args...)})
	}
	entries, err := replay(root, history, add)
	if err != nil {
		return v, err
	}
	wrongly := make(map[string]bool)
	wrong := func(name string, at time.Time, format string, args ...any) {
		if !wrongly[name] { // once for each entry
			add(wronglyEnded, at, format, args...)
		}
		wrongly[name] = true
	}

	made := make(map[string][]string) // names, by value
	for name, e := range entries {
		made[e.value] = append(made[e.value], name)
		if e.gone.IsZero() {
			v.left = append(v.left, name)
		}
	}
	slices.Sort(v.left)
	for value, names := range made {
		slices.SortFunc(names, func(a, b string) int { return entries[a].created.Compare(entries[b].created) })
		if len(names) > 1 {
			add(putTwice, entries[names[1]].created, "%s is there as %v", value, names)
		}
	}

	slices.SortStableFunc(records, func(a, b record) int { return cmp.Compare(a.Time, b.Time) })
	given, done, begun := make(map[string]bool), make(map[string]string), make(map[string]bool)
	// A member that has not noticed that it leads no longer may tell a client that its session is over while it is not. In its
	// next one the client may then remove what it holds by the last: a finish by the very worker that the lock names is no
	// stranger's.
	mine := make(map[string]bool)
	for _, r := range records {
		name := path.Join(root, queues[r.Queue], "entries", r.Name)
		switch {
		case r.Act == took:
			given[r.Value] = true
		case r.Act == putting:
			begun[r.Value] = true
		case r.Act == finishing:
			e := entries[name]
			mine[name] = mine[name] || e != nil && e.holder == r.Holder && !r.at().After(e.gone)
		case r.Act == finished && r.Outcome == ok:
			v.finishes++
			e := entries[name]
			switch {
			case e == nil:
				wrong(name, r.at(), "%s was finished, and there is no such entry", name)
			case e.gone.IsZero():
				wrong(name, r.at(), "%s was finished by %s, and is there", name, r.Holder)
			case e.holder != r.Holder:
				wrong(name, r.at(), "%s was finished by %s, and %q held it when it was removed", name, r.Holder, e.holder)
			}
			if first := done[name]; first != "" {
				add(finishedTwice, r.at(), "%s by %s and %s", name, first, r.Holder)
			}
			done[name] = r.Holder
		case r.Act == finished && r.Outcome == lost:
			v.late++
		case r.Act == finished:
			v.unknownFinishes++
		}
	}
	for name, e := range entries {
		if e.foreign != "" && !mine[name] {
			wrong(name, e.gone, "%s", e.foreign)
		}
	}
	for _, r := range records {
		if r.Act != put {
			continue
		}
		delete(begun, r.Value)
		switch names := made[r.Value]; {
		case r.Outcome == unknown:
			v.unknownPuts++
		case r.Outcome == refused && len(names) > 0:
			add(putTwice, r.at(), "%s was refused, and is there as %v", r.Value, names)
		case r.Outcome == ok:
			v.puts++
			if len(names) == 0 {
				add(putLost, r.at(), "%s was put, and never there", r.Value)
			} else if e := entries[names[0]]; !e.gone.IsZero() && !given[r.Value] {
				add(putLost, e.gone, "%s is gone, and nobody was given it", names[0])
			}
		}
	}
	v.unknownPuts += len(begun)
	return v, nil
}

// replay follows every entry and lock below root.
func replay(root string, history []testzk.Txn, add func(kind string, at time.Time, format string, args ...any)) (map[string]*entry, error) {
	entries := make(map[string]*entry)
	locks := make(map[string]*standing) // by the entry's path
	there := func(name string) bool { return entries[name] != nil && entries[name].gone.IsZero() }
	drop := func(name string, at time.Time) {
		if l := locks[name]; !l.orphan.IsZero() && at.Sub(l.orphan) > time.Second {
			add(orphanLock, l.orphan, "of %s for %v", name, at.Sub(l.orphan).Round(time.Millisecond))
		}
		delete(locks, name)
	}
	for _, c := range history {
		if c.Ended {
			for name, l := range locks {
				if l.session == c.Session {
					drop(name, c.Time)
				}
			}
			continue
		}
		before := make(map[string]standing)
		for _, ch := range c.Changes {
			if name, isLock := entryOf(root, ch.Path); name != "" && !isLock && ch.Kind == testzk.Deleted {
				if l := locks[name]; l != nil {
					before[name] = *l
				}
			}
		}
		for _, ch := range c.Changes {
			name, isLock := entryOf(root, ch.Path)
			switch {
			case name == "":
			case ch.Kind == testzk.Set:
				if l := locks[name]; isLock && l != nil {
					l.holder = string(ch.Data)
				}
			case !isLock && ch.Kind == testzk.Created:
				entries[name] = &entry{value: string(ch.Data), created: c.Time}
			case !isLock:
				e := entries[name]
				if !there(name) {
					return nil, fmt.Errorf("%s is removed and was not there: the history has a gap before %#x", ch.Path, c.Zxid)
				}
				l, held := before[name]
				e.gone, e.holder = c.Time, l.holder
				if !held || l.session != c.Session {
					e.foreign = fmt.Sprintf("%s was removed by session %x, and %x held it", name, c.Session, l.session)
				}
			case ch.Kind == testzk.Created:
				locks[name] = &standing{session: c.Session, holder: string(ch.Data)}
			default:
				l := locks[name]
				if l == nil {
					return nil, fmt.Errorf("%s is removed and was not there: the history has a gap before %#x", ch.Path, c.Zxid)
				}
				if l.session != c.Session && there(name) {
					add(wronglyEnded, c.Time, "the lock of %s was removed by session %x, and %x held it", name, c.Session, l.session)
				}
				drop(name, c.Time)
			}
		}
		for name, l := range locks {
			switch {
			case there(name):
				l.orphan = time.Time{}
			case l.orphan.IsZero():
				l.orphan = c.Time
			}
		}
	}
	if len(history) > 0 {
		for name := range locks {
			drop(name, history[len(history)-1].Time)
		}
	}
	return entries, nil
}

// entryOf is the path of the entry that a node is, or is the lock of; "" for others.
func entryOf(root, node string) (name string, isLock bool) {
	dir, base := path.Split(node)
	dir = path.Clean(dir)
	queue, kind := path.Split(dir)
	if path.Clean(path.Dir(path.Clean(queue))) != path.Clean(root) || kind != "entries" && kind != "taken" {
		return "", false
	}
	return path.Join(queue, "entries", base), kind == "taken"
}

// TestJudgeNoticesEachBreach shows the judge each breach once: a judge that never fails a history proves nothing.
func TestJudgeNoticesEachBreach(t *testing.T) {
	const a, b = int64(1), int64(2) // sessions
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	rec := func(s int, act, value, name, holder, outcome string) record {
		return record{Time: at(s).UnixNano(), Act: act, Value: value, Name: name, Holder: holder, Outcome: outcome}
	}
	node := func(kind, name, value string) testzk.Change {
		return testzk.Change{Kind: testzk.Created, Path: "/r/q/" + kind + "/" + name, Data: []byte(value)}
	}
	gone := func(kind, name string) testzk.Change {
		return testzk.Change{Kind: testzk.Deleted, Path: "/r/q/" + kind + "/" + name}
	}
	did := func(s int, session int64, changes ...testzk.Change) testzk.Txn {
		return testzk.Txn{Zxid: int64(s), Time: at(s), Session: session, Changes: changes}
	}
	ends := func(s int, session int64) testzk.Txn {
		return testzk.Txn{Zxid: int64(s), Time: at(s), Session: session, Ended: true}
	}
	// x is put, taken by A (session a) and finished.
	isPut := []record{rec(1, putting, "x", "", "", ""), rec(1, put, "x", "", "", ok)}
	aTook := rec(2, took, "x", "1", "A", "")
	aDone := rec(3, finished, "", "1", "A", ok)
	aWill := rec(3, finishing, "", "1", "A", "")
	bTook := rec(2, took, "x", "1", "B", "")
	bDone := rec(4, finished, "", "1", "B", ok)
	create := did(1, a, node("entries", "1", "x"))
	aLock := did(2, a, node("taken", "1", "A"))
	bLock := did(3, b, node("taken", "1", "B"))
	bEnd := did(4, b, gone("entries", "1"), gone("taken", "1"))
	aEnd := did(4, a, gone("entries", "1"), gone("taken", "1"))
	for _, c := range []struct {
		name    string
		records []record
		history []testzk.Txn
		want    []string
	}{
		{"nothing", append(isPut, aTook, aDone), []testzk.Txn{create, aLock, aEnd}, nil},
		{"taken over, old holder refused", append(isPut, aTook, rec(3, finished, "", "1", "A", lost), bTook, bDone), []testzk.Txn{create, aLock, ends(3, a), bLock, bEnd}, nil},
		{"acknowledged and never there", isPut, nil, []string{putLost}},
		{"gone without having been given", isPut, []testzk.Txn{create, aLock, aEnd}, []string{putLost}},
		{"a lock that is made and then written", append(isPut, aTook, aDone), []testzk.Txn{create, did(2, a, node("taken", "1", ""), testzk.Change{Kind: testzk.Set, Path: "/r/q/taken/1", Data: []byte("A")}), aEnd}, nil},
		{"left", isPut, []testzk.Txn{create}, nil},
		{"there twice", append(isPut, aTook, aDone), []testzk.Txn{create, aLock, aEnd, did(5, a, node("entries", "2", "x"))}, []string{putTwice}},
		{"an old holder removes another's", append(isPut, aTook, aDone, bTook), []testzk.Txn{create, aLock, ends(3, a), bLock, aEnd}, []string{wronglyEnded}},
		{"removed by its holder's next session", append(isPut, aTook, aWill, aDone), []testzk.Txn{create, aLock, did(4, b, gone("entries", "1"), gone("taken", "1")), ends(5, a)}, nil},
		{"removed by a stranger's session", append(isPut, aTook), []testzk.Txn{create, aLock, did(4, b, gone("entries", "1"), gone("taken", "1"))}, []string{wronglyEnded}},
		{"removed without a lock", append(isPut, aTook, aDone), []testzk.Txn{create, aLock, ends(3, a), did(4, a, gone("entries", "1"))}, []string{wronglyEnded}},
		{"another's lock removed", append(isPut, aTook), []testzk.Txn{create, aLock, ends(3, a), bLock, did(4, a, gone("taken", "1"))}, []string{wronglyEnded}},
		{"told so, and it is there", append(isPut, aTook, aDone), []testzk.Txn{create, aLock, ends(3, a)}, []string{wronglyEnded}},
		{"told so, and another did it", append(isPut, aTook, aDone, bTook), []testzk.Txn{create, aLock, ends(3, a), bLock, bEnd}, []string{wronglyEnded}},
		{"both told so", append(isPut, aTook, aDone, bTook, bDone), []testzk.Txn{create, aLock, ends(3, a), bLock, bEnd}, []string{finishedTwice, wronglyEnded}},
		{"a lock is left behind", append(isPut, aTook, aDone), []testzk.Txn{create, aLock, did(3, a, gone("entries", "1")), did(9, a, gone("taken", "1"))}, []string{orphanLock}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := judge("/r", []string{"/q"}, slices.Clone(c.records), c.history)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, b := range v.breaches {
				got = append(got, b.kind)
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("breaches %v, want %v: %v", got, c.want, v.breaches)
			}
		})
	}
}
