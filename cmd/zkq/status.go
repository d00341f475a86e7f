package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/term"
)

// status is a line on stderr that tells how a consumer is doing. On a terminal it
// stands below what others write there and is drawn anew; elsewhere it is a line
// now and then. A nil status shows nothing.
type status struct {
	out   *output
	w     io.Writer
	width func() int // of the terminal, in columns; nil if it is none
	log   hclog.Logger
	total int // entries ahead of it; 0 if nobody knows
	begun time.Time

	mu      sync.Mutex
	running int
	tally   tally
	ended   [window]int // by second
	second  int64       // since the beginning, that ended is right for
	drawn   int         // columns that the line takes now
	shown   string      // what was last shown
	midline bool        // somebody's unfinished line stands where ours would

	quit    chan struct{}
	drawing sync.WaitGroup
}

// The rate is that of the last few seconds.
const window = 10

// How often the line is looked at, on a terminal and elsewhere.
const (
	drawEvery = 200 * time.Millisecond
	tellEvery = 10 * time.Second
)

// showsProgress says whether progress is to be shown on stderr.
func (k *call) showsProgress() bool {
	return k.settings.progress == "always" ||
		k.settings.progress == "auto" && isTerminal(k.stderr) && k.env["TERM"] != "dumb"
}

func (k *call) newStatus(total int) *status {
	if !k.showsProgress() {
		return nil
	}
	s := &status{out: k.out, w: k.said, log: k.log, total: total, begun: time.Now(), quit: make(chan struct{})}
	every := tellEvery
	if isTerminal(k.stderr) {
		fd := int(k.stderr.(*os.File).Fd())
		every = drawEvery
		s.width = func() int {
			w, _, err := term.GetSize(fd)
			if err != nil || w <= 0 {
				w = 80
			}
			return w
		}
		if k.out.terminal {
			k.out.before, k.out.after = s.before, s.after
		}
		s.divertLog(s)
		s.mu.Lock()
		s.draw()
		s.mu.Unlock()
	}
	s.drawing.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-s.quit:
				return
			case <-t.C:
				s.mu.Lock()
				s.draw()
				s.mu.Unlock()
			}
		}
	})
	return s
}

// divertLog has the log written to w.
func (s *status) divertLog(w io.Writer) {
	if l, ok := s.log.(hclog.OutputResettable); ok {
		l.ResetOutput(&hclog.LoggerOptions{Output: w})
	}
}

// stderr is where others write to, so that the line makes room for them; to is
// where they would without it.
func (s *status) stderr(to io.Writer) io.Writer {
	if !s.onTerminal() {
		return to
	}
	return s
}

// onTerminal reports whether the line stands on a terminal, where what CMD prints must
// make room for it, too.
func (s *status) onTerminal() bool { return s != nil && s.width != nil }

// start counts an entry as worked on.
func (s *status) start() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running++
}

// finish counts what became of one.
func (s *status) finish(outcome string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	s.tally.add(outcome)
	s.turn()
	s.ended[s.second%window]++
}

// turn forgets what ended longer ago than the window.
func (s *status) turn() {
	now := int64(time.Since(s.begun) / time.Second)
	for s.second < now {
		s.second++
		s.ended[s.second%window] = 0
		if now-s.second > window {
			s.second = now - window
		}
	}
}

// rate is how many end in a second.
func (s *status) rate() float64 {
	s.turn()
	sum := 0
	for _, n := range s.ended {
		sum += n
	}
	within := time.Since(s.begun)
	if whole := within.Truncate(time.Second); within > window*time.Second {
		within -= whole - (window-1)*time.Second // the second that has begun, and those before it
	}
	return float64(sum) / max(within.Seconds(), 1)
}

func (s *status) text() string {
	t := s.tally
	done := fmt.Sprintf("%d done", t.done)
	left := s.total - t.done - t.dead
	if s.total >= t.done && s.total > 0 {
		done = fmt.Sprintf("%d of %d done", t.done, s.total)
	}
	parts := []string{done, fmt.Sprintf("%d running", s.running)}
	for _, p := range []struct {
		n    int
		what string
	}{{t.failed, "failed"}, {t.dead, "dead"}, {t.putBack + t.released, "put back"}, {t.lost + t.unknown, "lost"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	rate := s.rate()
	parts = append(parts, fmt.Sprintf("%.1f/s", rate))
	if s.total > 0 && left > 0 && rate > 0 {
		parts = append(parts, fmt.Sprintf("%v left", time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second)))
	}
	return "consume " + strings.Join(parts, ", ")
}

// draw writes the current status line, unless the terminal already shows it.
func (s *status) draw() {
	text := s.text()
	if s.width == nil {
		if text != s.shown {
			s.shown = text
			fmt.Fprintln(s.w, text)
		}
		return
	}
	// A line as wide as the terminal would be followed by an empty one.
	text = text[:min(len(text), s.width()-1)]
	if s.midline || text == s.shown && s.drawn > 0 {
		return
	}
	fmt.Fprintf(s.w, "\r%s%s", text, strings.Repeat(" ", max(0, s.drawn-len(text))))
	s.shown, s.drawn = text, len(text)
}

// clear takes the line away.
func (s *status) clear() {
	if s.drawn > 0 {
		fmt.Fprintf(s.w, "\r%s\r", strings.Repeat(" ", min(s.drawn, s.width()-1)))
		s.drawn = 0
	}
}

// before and after stand around what others write to the same terminal: nothing is
// drawn in between, nor behind an unfinished line.
func (s *status) before() {
	s.mu.Lock()
	s.clear()
}

func (s *status) after(last byte) {
	s.midline = last != '\n'
	s.draw()
	s.mu.Unlock()
}

// Write is a write to stderr.
func (s *status) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.before()
	defer s.after(b[len(b)-1])
	return s.w.Write(b)
}

// end leaves the last line there.
func (s *status) end() {
	if s == nil {
		return
	}
	close(s.quit)
	s.drawing.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.width == nil {
		s.draw()
		return
	}
	if s.midline {
		fmt.Fprintln(s.w)
		s.midline = false
	}
	s.draw()
	fmt.Fprintln(s.w)
	s.divertLog(s.w)
	if s.out.terminal {
		s.out.before, s.out.after = nil, nil
	}
}
