package sim

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"time"

	"github.com/zkq/zkq/coord/coordtest/internal/memory"
)

// event is what happened in one step.
type event struct {
	at      time.Duration
	client  string
	act     string
	outcome string
	request *memory.Request
}

// trace is a hash of all events, and the last of them.
type trace struct {
	hash  uint64
	steps int
	last  [6000]event // a ring; event n is at n modulo its length
}

func newTrace() trace { return trace{hash: 1} }

func (t *trace) add(e event) {
	t.last[t.steps%len(t.last)] = e
	t.steps++
	t.addNumber(uint64(e.at))
	t.addText(e.client)
	t.addText(e.act)
	t.addText(e.outcome)
	if e.request == nil {
		return
	}
	t.addText(e.request.Actor)
	t.addText(e.request.Kind)
	for _, path := range e.request.Paths {
		t.addText(path)
	}
	for _, op := range e.request.Ops {
		t.addNumber(uint64(op.Kind))
		t.addText(op.Path)
		t.addNumber(uint64(op.Fence))
		t.addText(string(op.Value))
	}
}

func (t *trace) addText(text string) {
	t.addNumber(uint64(len(text)))
	for ; len(text) >= 8; text = text[8:] {
		t.addNumber(binary.LittleEndian.Uint64([]byte(text[:8])))
	}
	for i := range len(text) {
		t.addNumber(uint64(text[i]))
	}
}

// addNumber mixes n into the hash. It uses both halves of the product: with one alone
// the high bits of earlier numbers would be lost.
func (t *trace) addNumber(n uint64) {
	high, low := bits.Mul64(t.hash^n, 0x9e3779b97f4a7c15)
	t.hash = high ^ low + 0x632be59bd9b4e019
}

// String writes the last events, one to a line.
func (t *trace) String() string {
	var b strings.Builder
	for i := max(0, t.steps-len(t.last)); i < t.steps; i++ {
		e := t.last[i%len(t.last)]
		actor := e.client
		if e.request != nil && e.request.Actor != "" {
			actor += " " + e.request.Actor
		}
		fmt.Fprintf(&b, "%6d %12v %-11s %s", i+1, e.at, actor, e.act)
		if q := e.request; q != nil {
			fmt.Fprintf(&b, " %s", q.Kind)
			for _, path := range q.Paths {
				fmt.Fprintf(&b, " %s", path)
			}
			for _, op := range q.Ops {
				fmt.Fprintf(&b, " {%v %s %d %.40q}", op.Kind, op.Path, op.Fence, op.Value)
			}
		}
		if e.outcome != "" {
			fmt.Fprintf(&b, ": %s", e.outcome)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
