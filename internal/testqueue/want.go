package testqueue

import (
	"errors"
	"fmt"
	"strings"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

// WantErr requires that err is target.
func (env *Env) WantErr(err, target error) {
	env.Helper()
	if !errors.Is(err, target) {
		env.Fatalf("error %v, want %v", err, target)
	}
}

// WantEmpty requires that there is nothing to take.
func (env *Env) WantEmpty(q *zkq.LockingQueue) {
	env.Helper()
	if h, err := q.TryTake(env.Ctx); !errors.Is(err, zkq.ErrEmpty) {
		env.Fatalf("TryTake = %v, %v; want ErrEmpty", h, err)
	}
}

// WantRefused requires that a put with the key is refused, and that the error names the entry which has the key.
func (env *Env) WantRefused(q *zkq.LockingQueue, key, name string) {
	env.Helper()
	_, err := q.Put(env.Ctx, []byte("refused"), zkq.WithUnique(key))
	var exists *zkq.ExistsError
	if !errors.As(err, &exists) || !errors.Is(err, zkq.ErrExists) || exists.Name != name {
		env.Fatalf("error %v, want one that names %s", err, name)
	}
}

// WantDelayed requires that these entries, and no others, are delayed: each has a lock and a node in the index with the same time.
func (env *Env) WantDelayed(c coord.Coordinator, names ...string) {
	env.Helper()
	s := env.Session(c)
	var there []string
	for _, at := range env.Children(s, "/jobs/delayed") {
		ms, name, _ := strings.Cut(strings.TrimPrefix(at, "/jobs/delayed/"), "-")
		there = append(there, name)
		if lock := string(env.Get(s, "/jobs/taken/"+name).Value); lock != `{"zkq":1,"due_ms":`+strings.TrimLeft(ms, "0")+`}` || len(ms) != 13 {
			env.Errorf("%s is due at %s, and its lock says %s", name, ms, lock)
		}
	}
	if fmt.Sprint(there) != fmt.Sprint(names) {
		env.Fatalf("delayed are %v, want %v", there, names)
	}
}

// WantNothingLeft requires that the queue has no node left in these directories, nor among its entries, locks, histories,
// delayed entries and keys.
func (env *Env) WantNothingLeft(q *zkq.LockingQueue, dirs ...string) {
	env.Helper()
	c := env.Client()
	for _, dir := range append(dirs, "entries", "taken", "attempts", "delayed", "unique") {
		if left := env.Children(env.Session(c), "/jobs/"+dir); len(left) > 0 {
			env.Errorf("left: %q", left)
		}
	}
}
