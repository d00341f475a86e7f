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

// status is a consumer's status line on stderr. On a terminal the line stays below all
// other output and is drawn again after each write. Elsewhere it is a new line every
// few seconds. A nil status shows nothing.
type status struct {
	out   *output
	w     io.Writer
	width func() int // columns of the terminal; nil if stderr is none
	log   hclog.Logger
	total int // entries that the consumer will handle; 0 if unknown
	begun time.Time

	mu      sync.Mutex // guards the fields below; held between before and after
	running int        // attempts in progress
	tally   tally
	ended   [rateWindow]int // finished attempts, by second modulo window
	second  int64           // the newest second in ended, counted from begun
	drawn   int             // columns that the line takes now
	shown   string          // the text drawn last
	midline bool            // other output ends without a newline: no room for the line

	quit    chan struct{}
	drawing sync.WaitGroup
}

// rateWindow is the number of seconds over which the rate is measured.
const rateWindow = 10

// The time between two updates of the line, on a terminal and elsewhere.
const (
	drawEvery = 200 * time.Millisecond
	tellEvery = 10 * time.Second
)

// showsProgress reports whether to show progress on stderr.
func (k *call) showsProgress() bool {
	return k.settings.progress == "always" ||
		k.settings.progress == "auto" && isTerminal(k.stderr) && k.env["TERM"] != "dumb"
}

// newStatus starts a status line, and diverts the log and standard output on the same
// terminal through it. The caller calls end.
func (k *call) newStatus(total int) *status {
	if !k.showsProgress() {
		return nil
	}
	s := &status{out: k.out, w: k.messages, log: k.log, total: total, begun: time.Now(), quit: make(chan struct{})}
	every := tellEvery
	if s.width = k.stderrWidth(); s.width != nil {
		every = drawEvery
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

// stderrWidth returns a function that returns the columns of the terminal on stderr; nil if stderr
// is no terminal.
func (k *call) stderrWidth() func() int {
	if !isTerminal(k.stderr) {
		return nil
	}
	fd := int(k.stderr.(*os.File).Fd())
	return func() int {
		w, _, err := term.GetSize(fd)
		if err != nil || w <= 0 {
			w = 80
		}
		return w
	}
}

// divertLog makes the log write to w.
func (s *status) divertLog(w io.Writer) {
	if l, ok := s.log.(hclog.OutputResettable); ok {
		l.ResetOutput(&hclog.LoggerOptions{Output: w})
	}
}

// stderr returns the writer for other output on stderr. On a terminal that is the status
// itself, which makes room for the output; otherwise it is to.
func (s *status) stderr(to io.Writer) io.Writer {
	if !s.onTerminal() {
		return to
	}
	return s
}

// onTerminal reports whether the status line is drawn on a terminal. All other output
// there must go through the status's Write.
func (s *status) onTerminal() bool { return s != nil && s.width != nil }

// start counts an attempt that begins.
func (s *status) start() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running++
}

// finish counts the outcome of an attempt.
func (s *status) finish(outcome string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	s.tally.add(outcome)
	s.advanceWindow()
	s.ended[s.second%rateWindow]++
}

// advanceWindow advances ended to the current second and clears the seconds that left the window.
func (s *status) advanceWindow() {
	now := int64(time.Since(s.begun) / time.Second)
	for s.second < now {
		s.second++
		s.ended[s.second%rateWindow] = 0
		if now-s.second > rateWindow {
			s.second = now - rateWindow
		}
	}
}

// rate returns the finished attempts per second in the window.
func (s *status) rate() float64 {
	s.advanceWindow()
	sum := 0
	for _, n := range s.ended {
		sum += n
	}
	within := time.Since(s.begun)
	if whole := within.Truncate(time.Second); within > rateWindow*time.Second {
		within -= whole - (rateWindow-1)*time.Second // the current, partial second and the full ones before it
	}
	return float64(sum) / max(within.Seconds(), 1)
}

// text returns the status line without its newline.
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
	// After a line of the terminal's full width, some terminals start an empty one.
	text = text[:min(len(text), s.width()-1)]
	if s.midline || text == s.shown && s.drawn > 0 {
		return
	}
	fmt.Fprintf(s.w, "\r%s%s", text, strings.Repeat(" ", max(0, s.drawn-len(text))))
	s.shown, s.drawn = text, len(text)
}

// clear removes the line from the terminal.
func (s *status) clear() {
	if s.drawn > 0 {
		fmt.Fprintf(s.w, "\r%s\r", strings.Repeat(" ", min(s.drawn, s.width()-1)))
		s.drawn = 0
	}
}

// before and after enclose other writes to the same terminal. before removes the line and
// locks the status. after unlocks it, and draws the line unless the output ended within a
// line.
func (s *status) before() {
	s.mu.Lock()
	s.clear()
}

func (s *status) after(last byte) {
	s.midline = last != '\n'
	s.draw()
	s.mu.Unlock()
}

// Write writes to stderr above the status line.
func (s *status) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.before()
	defer s.after(b[len(b)-1])
	return s.w.Write(b)
}

// end stops the updates and leaves the last line on the screen.
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
