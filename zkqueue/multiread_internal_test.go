package zkqueue

import (
	"encoding/binary"
	"errors"
	"testing"
)

// TestAMalformedMultiReadAnswerIsRefused cuts an answer at each byte, appends to it, and
// changes each of its bytes. The result is the answer's values or an error, and never more
// than was sent.
func TestAMalformedMultiReadAnswerIsRefused(t *testing.T) {
	good := func(value string) []byte {
		b := appendBytes(appendPartHeader(nil, opGetData), []byte(value))
		b = append(b, make([]byte, 68)...)
		b = binary.BigEndian.AppendUint32(appendPartHeader(b, opEnd), ^uint32(100)) // -101: no node
		return appendPartHeader(b, opEnd)
	}
	ask := &multiRead{fullPaths: []string{"/a", "/b"}}
	answer := good("value")
	nodes, err := ask.parse(answer)
	if err == nil {
		t.Fatalf("an error in the place of the end was taken: %v", nodes)
	}
	// The server sets done in the last part, and not in an error's part.
	answer[len(answer)-9-4-5] = 0
	nodes, err = ask.parse(answer)
	if err != nil || string(nodes[0].value) != "value" || nodes[1] != nil {
		t.Fatalf("parsed as %v, %v", nodes, err)
	}
	for n := range answer {
		if nodes, err := ask.parse(answer[:n]); !errors.Is(err, errMalformed) {
			t.Errorf("%d of %d bytes: %v, %v", n, len(answer), nodes, err)
		}
	}
	if nodes, err := ask.parse(append(answer[:len(answer):len(answer)], 0)); !errors.Is(err, errMalformed) {
		t.Errorf("a byte more: %v, %v", nodes, err)
	}
	for n := range answer {
		for _, x := range []byte{0x01, 0x80, 0xff} {
			b := append([]byte(nil), answer...)
			b[n] ^= x
			if nodes, err := ask.parse(b); err == nil && (len(nodes) != 2 || nodes[1] != nil && !nodes[1].unreadable || nodes[0] != nil && len(nodes[0].value) > len(answer)) {
				t.Errorf("byte %d changed by %#x: %v", n, x, nodes)
			}
		}
	}
	refusal := func(code int32) ([]*data, error) {
		b := binary.BigEndian.AppendUint32([]byte{0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff}, uint32(code))
		return (&multiRead{fullPaths: []string{"/a"}}).parse(append(b, appendPartHeader(nil, opEnd)...))
	}
	if nodes, err := refusal(codeNoAuth); err != nil || !nodes[0].unreadable {
		t.Errorf("no auth: %v, %v", nodes, err)
	}
	if nodes, err := refusal(-1); !errors.Is(err, errUnreadableNode) {
		t.Errorf("system error: %v, %v", nodes, err)
	}
}

// TestFewerNodesAreAskedForWhereValuesAreLarge, and nodes are read one by one where
// multiRead fails.
func TestFewerNodesAreAskedForWhereValuesAreLarge(t *testing.T) {
	var r multiReadSupport
	for _, step := range []struct{ size, many int }{{0, 32}, {100, 32}, {1 << 20, 32}, {4 << 20, 8}, {100, 8}, {64 << 20, 1}} {
		r.noteValues([]*data{nil, {value: make([]byte, step.size)}})
		if n := r.nodesPerRequest(); n != step.many {
			t.Errorf("after a value of %d bytes %d are asked for at once, want %d", step.size, n, step.many)
		}
	}
	r.largestValue.Store(0)
	r.failures.Store(maxFailures)
	if n := r.nodesPerRequest(); n != 1 {
		t.Errorf("after %d failures in a row %d are asked for at once", maxFailures, n)
	}
}
