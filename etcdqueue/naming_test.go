package etcdqueue_test

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zkq/zkq/coord"
	"github.com/zkq/zkq/etcdqueue"
	"github.com/zkq/zkq/internal/testetcd"
)

// TestNamesSortAsPutsHappened has many producers put at once. If one put was answered
// before another began, its name must sort first.
func TestNamesSortAsPutsHappened(t *testing.T) {
	for name, cluster := range map[string]*testetcd.Cluster{"one member": single.get(t), "three members": three.get(t)} {
		t.Run(name, func(t *testing.T) {
			const producers, puts = 16, 40
			at := prefix()
			var sessions []coord.Session
			for range 4 { // four producers share each client, and so its reads
				sessions = append(sessions, session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: at})))
			}
			var mu sync.Mutex
			latest := "" // the last name, in order, of those that were answered
			var answered, unknown atomic.Int64
			var wg sync.WaitGroup
			for i := range producers {
				wg.Go(func() {
					s := sessions[i%len(sessions)]
					for range puts {
						mu.Lock()
						before := latest
						mu.Unlock()
						r, err := s.Commit(t.Context(), coord.CreateSequential("/q/entries/entry-100-", nil), coord.CreateSequential("/q/entries/entry-100-", nil))
						if errors.Is(err, coord.ErrUnknown) { // a busy machine may elect another leader
							unknown.Add(1)
							continue
						}
						if err != nil {
							t.Error(err)
							return
						}
						answered.Add(1)
						if r[0].Path >= r[1].Path {
							t.Errorf("%s and %s of one commit", r[0].Path, r[1].Path)
						}
						if r[0].Path <= before {
							t.Errorf("%s was answered before %s was begun", before, r[0].Path)
						}
						mu.Lock()
						latest = max(latest, r[1].Path)
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			n, err := sessions[0].Count(t.Context(), "/q/entries")
			if least := 2 * answered.Load(); err != nil || int64(n) < least || int64(n) > least+2*unknown.Load() {
				t.Errorf("%d entries (%v) after %d commits, and %d whose outcome is unknown", n, err, answered.Load(), unknown.Load())
			}
		})
	}
}

// TestNamesComeFromAReadBegunLater holds the answer to one put's read, has another
// client put meanwhile, and then calls a second put: it must not share that read.
func TestNamesComeFromAReadBegunLater(t *testing.T) {
	cluster, at := single.get(t), prefix()
	link := testetcd.NewLink(t, cluster.Endpoints()...)
	s := session(t, open(t, etcdqueue.Config{Endpoints: link.Addresses(), Prefix: at}))
	other := session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: at}))
	put := func() <-chan string {
		ch := make(chan string, 1)
		go func() {
			r, err := s.Commit(t.Context(), coord.CreateSequential("/q/entries/e-", nil))
			if err != nil {
				t.Error(err)
				r = []coord.Result{{}}
			}
			ch <- r[0].Path
		}()
		return ch
	}
	link.HoldReplies()
	first := put()
	time.Sleep(100 * time.Millisecond) // its read is answered, and the answer held
	between := commit(t, other, coord.CreateSequential("/q/entries/e-", nil))[0].Path
	var later []<-chan string
	for range 5 {
		later = append(later, put())
	}
	time.Sleep(50 * time.Millisecond)
	link.Heal()
	<-first
	for _, ch := range later {
		if p := <-ch; p <= between {
			t.Errorf("%s was answered before %s was begun", between, p)
		}
	}
}

// TestAGuessedNameSortsBehindWhatStands has one client put right after another client that
// has put more: the revision that the first client saw last is too old.
func TestAGuessedNameSortsBehindWhatStands(t *testing.T) {
	cluster, at := single.get(t), prefix()
	var sessions []coord.Session
	for range 2 {
		sessions = append(sessions, session(t, open(t, etcdqueue.Config{Endpoints: cluster.Endpoints(), Prefix: at})))
	}
	last := ""
	for i := range 60 {
		s := sessions[i%2]
		for range 3 {
			r := commit(t, s, coord.CreateSequential("/q/entries/entry-100-", nil), coord.CreateSequential("/q/entries/entry-050-", nil))
			if r[0].Path <= last {
				t.Fatalf("%s was answered before %s was begun", last, r[0].Path)
			}
			last = r[0].Path
		}
	}
}

func TestNamesHaveTheirForm(t *testing.T) {
	s := session(t, open(t, etcdqueue.Config{Endpoints: single.get(t).Endpoints(), Prefix: prefix()}))
	form := regexp.MustCompile(`^entry-100-\d{19}-\d{13}-[0-9a-f]{8}-\d{6}$`)
	for _, dir := range []string{"/q/entries", "/q", "/a/b", "/entries", ""} {
		p := commit(t, s, coord.CreateSequential(dir+"/entry-100-", nil))[0].Path
		if path.Dir(p) != path.Clean(dir+"/") || !form.MatchString(path.Base(p)) {
			t.Errorf("%s", p)
		}
	}
}

// TestOffsetLiftsNames sets the offset of a queue, as after a restore into a cluster with a
// lower revision: the old names must sort before the new ones.
func TestOffsetLiftsNames(t *testing.T) {
	at := prefix()
	s := session(t, open(t, etcdqueue.Config{Endpoints: single.get(t).Endpoints(), Prefix: at}))
	old := fmt.Sprintf("/q/entries/entry-100-%019d-%013d-00000000-000000", 5_000_000_000, 1)
	commit(t, s, coord.Create(old, nil))
	if p := commit(t, s, coord.CreateSequential("/q/entries/entry-100-", nil))[0].Path; p > old {
		t.Fatalf("%s: the test shows nothing", p)
	}
	f := commit(t, s, coord.Create("/q/config", []byte(`{"other":true,"offset":5000000000}`)))[0].Fence
	if p := commit(t, s, coord.CreateSequential("/q/entries/entry-100-", nil))[0].Path; p < old {
		t.Errorf("%s sorts before %s", p, old)
	}
	commit(t, s, coord.Set("/q/config", []byte(`{`), f))
	_, err := session(t, open(t, etcdqueue.Config{Endpoints: single.get(t).Endpoints(), Prefix: at})).Commit(t.Context(), coord.CreateSequential("/q/entries/entry-100-", nil))
	if err == nil || !strings.Contains(err.Error(), "/q/config") {
		t.Errorf("with a broken configuration: %v", err)
	}
}
