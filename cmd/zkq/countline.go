package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// countLine is a line on stderr that says how many entries a change of many has reached, and how
// many a second. A goroutine of its own draws it, so the change never waits for a terminal that
// was stopped. On a terminal the line is drawn again and again; elsewhere it is a new line every
// few seconds. A nil countLine shows nothing.
type countLine struct {
	out   *output
	w     io.Writer
	width func() int // columns of the terminal; nil if stderr is none
	label string
	begun time.Time
	done  atomic.Int64

	mu    sync.Mutex // guards drawn, and is held during a write
	drawn int        // columns that the line takes now

	quit    chan struct{}
	stopped chan struct{} // closed when the goroutine has ended
}

// newCountLine starts a line, if the settings ask for progress. The caller calls end.
func newCountLine(k *call, label string) *countLine {
	if !k.showsProgress() {
		return nil
	}
	c := &countLine{
		out: k.out, w: k.messages, width: k.stderrWidth(), label: label, begun: time.Now(),
		quit: make(chan struct{}), stopped: make(chan struct{}),
	}
	every := tellEvery
	if c.width != nil {
		every = drawEvery
		if k.out.terminal {
			k.out.before = c.clear
		}
	}
	go func() {
		defer close(c.stopped)
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-c.quit:
				return
			case <-t.C:
				c.draw()
			}
		}
	}()
	return c
}

// add counts entries. It waits for nothing.
func (c *countLine) add(entries int) {
	if c != nil {
		c.done.Add(int64(entries))
	}
}

// text returns the line without its newline.
func (c *countLine) text() string {
	done := c.done.Load()
	rate := float64(done) / max(time.Since(c.begun).Seconds(), 0.001)
	return fmt.Sprintf("%s %s, %.0f/s", c.label, pluralize(int(done), "entry", "entries"), rate)
}

// draw writes the line: over the last one on a terminal, otherwise as a new line.
func (c *countLine) draw() {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := c.text()
	if c.width == nil {
		fmt.Fprintln(c.w, text)
		return
	}
	text = text[:min(len(text), max(c.width()-1, 0))]
	fmt.Fprintf(c.w, "\r%s%s", text, strings.Repeat(" ", max(0, c.drawn-len(text))))
	c.drawn = len(text)
}

// clear removes the line from the terminal before other output. The next tick draws it again.
func (c *countLine) clear() {
	if c == nil || c.width == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drawn > 0 {
		fmt.Fprintf(c.w, "\r%s\r", strings.Repeat(" ", c.drawn))
		c.drawn = 0
	}
}

// endWait is how long the end of a countLine waits for a terminal that does not take the line.
const endWait = 100 * time.Millisecond

// end stops the line and leaves the last count on the screen, unless the terminal is stopped.
func (c *countLine) end() {
	if c == nil {
		return
	}
	close(c.quit)
	select {
	case <-c.stopped:
	case <-time.After(endWait):
		return
	}
	c.draw()
	if c.width != nil {
		fmt.Fprintln(c.w)
	}
	if c.out.terminal {
		c.out.before = nil
	}
}
