package testetcd

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/zkq/zkq/internal/testproxy"
)

// Link is one client's way to a cluster: a proxy for each member, which knows transactions, unless they are encrypted.
type Link struct{ *testproxy.Link }

// NewLink returns a link that listens until the test ends.
func NewLink(t testing.TB, members ...string) *Link {
	t.Helper()
	return &Link{testproxy.NewFor(t, newTalk, members...)}
}

// talk is gRPC on one connection: HTTP/2's frames, in which every request is a stream.
type talk struct {
	requests, replies testproxy.Frames

	mu      sync.Mutex
	headers *hpack.Decoder // of requests: each stands on those before it
	path    string         // in the headers that are being decoded
	txns    map[uint32][]byte
	meant   map[uint32]struct{} // transactions whose answers may be lost
}

const txnPath = "/etcdserverpb.KV/Txn"

func newTalk() testproxy.Protocol {
	t := &talk{txns: make(map[uint32][]byte), meant: make(map[uint32]struct{})}
	greeted := false
	t.requests.Length = func(b []byte) int {
		switch {
		case greeted:
			return frameLength(b)
		case !strings.HasPrefix(http2.ClientPreface, string(b[:min(len(b), len(http2.ClientPreface))])):
			return -1
		case len(b) >= len(http2.ClientPreface):
			greeted = true
			return len(http2.ClientPreface)
		}
		return 0
	}
	t.replies.Length = frameLength
	t.headers = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":path" {
			t.path = f.Value
		}
	})
	return t
}

func frameLength(b []byte) int {
	if len(b) < 9 {
		return 0
	}
	return 9 + int(b[0])<<16 + int(b[1])<<8 + int(b[2])
}

// frame is one of HTTP/2's.
type frame []byte

func (f frame) kind() http2.FrameType     { return http2.FrameType(f[3]) }
func (f frame) has(flag http2.Flags) bool { return http2.Flags(f[4]).Has(flag) }
func (f frame) stream() uint32 {
	return (uint32(f[5])<<24 | uint32(f[6])<<16 | uint32(f[7])<<8 | uint32(f[8])) & (1<<31 - 1)
}

// payload is what the frame carries, without what pads it and, in headers, without a priority.
func (f frame) payload() []byte {
	b := f[9:]
	if f.kind() != http2.FrameContinuation && f.has(http2.FlagDataPadded) {
		b = b[1 : len(b)-int(b[0])]
	}
	if f.kind() == http2.FrameHeaders && f.has(http2.FlagHeadersPriority) {
		b = b[5:]
	}
	return b
}

func (t *talk) Dialer() string { return "" }

func (t *talk) Requests(b []byte, meant func([]byte) bool) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	frames, raw := t.requests.Add(b)
	for _, f := range frames {
		if string(f) != http2.ClientPreface {
			t.request(f, meant)
		}
	}
	return slices.Concat(append(frames, raw)...)
}

func (t *talk) request(f frame, meant func([]byte) bool) {
	id := f.stream()
	switch f.kind() {
	case http2.FrameHeaders, http2.FrameContinuation:
		t.headers.Write(f.payload())
		if !f.has(http2.FlagHeadersEndHeaders) {
			return
		}
		t.headers.Close()
		if t.path == txnPath {
			t.txns[id] = []byte{}
		}
		t.path = ""
	case http2.FrameData:
		body, txn := t.txns[id]
		if !txn {
			return
		}
		t.txns[id] = append(body, f.payload()...)
		if f.has(http2.FlagDataEndStream) {
			if meant(t.txns[id]) {
				t.meant[id] = struct{}{}
			}
			delete(t.txns, id)
		}
	case http2.FrameRSTStream:
		delete(t.txns, id)
		delete(t.meant, id)
	}
}

func (t *talk) Replies(b []byte, lose func() bool) (may []byte, last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.requests.Raw() {
		return b, false
	}
	frames, raw := t.replies.Add(b)
	for _, f := range frames {
		answer := frame(f).kind() == http2.FrameHeaders || frame(f).kind() == http2.FrameData
		if _, meant := t.meant[frame(f).stream()]; meant && answer && lose() {
			return may, true
		}
		may = append(may, f...)
	}
	return append(may, raw...), false
}
