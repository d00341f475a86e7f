package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress is a bar on stderr for long work. A nil progress shows nothing.
type progress struct {
	mu    sync.Mutex
	bar   *progressbar.ProgressBar
	out   *output
	w     io.Writer
	bytes bool // total counts bytes of input, not entries
	label string
	done  int       // entries
	total int64     // 0 if it is not known
	shown time.Time // when the label was last updated
}

// newProgress starts a bar for a total of entries or bytes; 0 means an unknown total. It
// returns nil, no bar, for a negative total.
func (k *call) newProgress(label string, total int64, bytes bool) *progress {
	if !k.showsProgress() || total < 0 {
		return nil
	}
	most := total
	if most == 0 {
		most = -1
	}
	p := &progress{out: k.out, w: k.messages, bytes: bytes, label: label, total: total}
	p.bar = progressbar.NewOptions64(most,
		progressbar.OptionSetWriter(k.messages),
		progressbar.OptionSetDescription(label),
		progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetSpinnerChangeInterval(0), // no spinner: nothing could wait for its goroutine
		progressbar.OptionShowBytes(bytes && total > 0),
		progressbar.OptionSetPredictTime(total > 0),
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionSetRenderBlankState(true),
	)
	if k.out.terminal {
		k.out.before = p.clear
	}
	return p
}

// add counts entries and the bytes of input from which they were read.
func (p *progress) add(entries int, bytes int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += entries
	p.step(entries, bytes)
}

// step advances the bar. It updates the label ten times a second at most.
func (p *progress) step(entries int, bytes int64) {
	if time.Since(p.shown) >= 100*time.Millisecond {
		p.shown = time.Now()
		p.bar.Describe(p.text())
	}
	switch {
	case p.total == 0:
		p.bar.Add(0)
	case p.bytes:
		p.bar.Add64(bytes)
	default:
		if int64(p.done) > p.total { // entries were added meanwhile
			p.total = int64(p.done)
			p.bar.ChangeMax64(p.total)
		}
		p.bar.Add(entries)
	}
}

func (p *progress) text() string { return fmt.Sprintf("%s %d", p.label, p.done) }

// clear removes the bar before a write to the terminal. The next step draws it again.
func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bar.Clear()
}

// end stops the bar and leaves its last count on a line of its own.
func (p *progress) end() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bar.Describe(p.text())
	p.bar.Exit()
	fmt.Fprintln(p.w)
	if p.out.terminal {
		p.out.before = nil
	}
}
