package coordtest

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
	"time"
)

// step is what happened at one instant.
type step struct {
	at      time.Duration
	client  string
	act     string
	outcome string
	q       *request
}

// trace is a hash of all steps, and the last of them.
type trace struct {
	hash  uint64
	steps int
	last  [6000]step
}

func newTrace() trace { return trace{hash: 1} }

func (t *trace) add(st step) {
	t.last[t.steps%len(t.last)] = st
	t.steps++
	t.number(uint64(st.at))
	t.text(st.client)
	t.text(st.act)
	t.text(st.outcome)
	if st.q == nil {
		return
	}
	t.text(st.q.actor)
	t.text(st.q.kind)
	for _, path := range st.q.where {
		t.text(path)
	}
	for _, op := range st.q.ops {
		t.number(uint64(op.Kind))
		t.text(op.Path)
		t.number(uint64(op.Fence))
		t.text(string(op.Value))
	}
}

func (t *trace) text(s string) {
	t.number(uint64(len(s)))
	for ; len(s) >= 8; s = s[8:] {
		t.number(binary.LittleEndian.Uint64([]byte(s[:8])))
	}
	for i := range len(s) {
		t.number(uint64(s[i]))
	}
}

// number mixes n in. Both halves of the product count, or the high bits of what
// went before would be lost.
func (t *trace) number(n uint64) {
	high, low := bits.Mul64(t.hash^n, 0x9e3779b97f4a7c15)
	t.hash = high ^ low + 0x632be59bd9b4e019
}

func (t *trace) String() string {
	var b strings.Builder
	for i := max(0, t.steps-len(t.last)); i < t.steps; i++ {
		st := t.last[i%len(t.last)]
		who := st.client
		if st.q != nil && st.q.actor != "" {
			who += " " + st.q.actor
		}
		fmt.Fprintf(&b, "%6d %12v %-11s %s", i+1, st.at, who, st.act)
		if q := st.q; q != nil {
			fmt.Fprintf(&b, " %s", q.kind)
			for _, path := range q.where {
				fmt.Fprintf(&b, " %s", path)
			}
			for _, op := range q.ops {
				fmt.Fprintf(&b, " {%v %s %d %.40q}", op.Kind, op.Path, op.Fence, op.Value)
			}
		}
		if st.outcome != "" {
			fmt.Fprintf(&b, ": %s", st.outcome)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
