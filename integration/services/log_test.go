package services_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq/retained"
)

// TestLabelsReadWhatManyAppendWithoutAGap: the labels follow while several processes append, so that every append that
// is slow on its way would show.
func TestLabelsReadWhatManyAppendWithoutAGap(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		const processes, each = 4, 25
		ctx, cancel := context.WithTimeout(p.ctx, 2*time.Minute)
		defer cancel()
		c := p.client()
		var all sync.WaitGroup
		for i := range processes {
			l := retained.NewLog(p.client(), "events", retained.Config{})
			t.Cleanup(func() { l.Close() })
			all.Go(func() {
				for n := range each {
					if _, err := l.Append(ctx, fmt.Append(nil, i, " ", n)); err != nil {
						t.Errorf("Append: %v", err)
						return
					}
				}
			})
		}
		l := retained.NewLog(c, "events", retained.Config{})
		defer l.Close()
		for _, name := range []string{"one", "two"} {
			all.Go(func() {
				label, next := l.Label(name, retained.Oldest), int64(0)
				of := make(map[string]int) // each appender's come in its order
				for next < processes*each {
					batch, err := label.Next(ctx, 7)
					if err != nil {
						t.Errorf("Next: %v", err)
						return
					}
					if batch.Missed != 0 {
						t.Errorf("%d missed at %d", batch.Missed, next)
					}
					for _, e := range batch.Entries {
						who, n, _ := strings.Cut(string(e.Value), " ")
						if e.Number != next || fmt.Sprint(of[who]) != n {
							t.Errorf("%s reads %d, %q; want %d, the %d. of %s", name, e.Number, e.Value, next, of[who], who)
						}
						of[who]++
						next++
					}
				}
			})
		}
		all.Wait()
		infos, err := l.Labels(ctx)
		if want := fmt.Sprintf("[{one %d 0} {two %d 0}]", processes*each, processes*each); fmt.Sprint(infos) != want || err != nil {
			t.Errorf("labels %v, %v; want %s", infos, err, want)
		}
		if n, err := l.Truncate(ctx, 90); n != 90 || err != nil {
			t.Errorf("truncated %d, %v", n, err)
		}
		if n, err := l.Len(ctx); n != processes*each-90 || err != nil {
			t.Errorf("%d left, %v", n, err)
		}
	})
}
