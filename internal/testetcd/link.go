package testetcd

import (
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/zkq/zkq/internal/testproxy"
)

// Link is one client's network connection to a cluster: a proxy for each member. It can lose
// the answer to a single transaction, unless the connection is encrypted.
type Link struct{ *testproxy.Link }

// NewLink returns a link that listens until the test ends.
func NewLink(t testing.TB, members ...string) *Link {
	t.Helper()
	return &Link{testproxy.NewFor(t, newProtocol, members...)}
}

const txnPath = "/etcdserverpb.KV/Txn"

// transactions follows the transactions on one connection. In gRPC each request is a stream
// of HTTP/2.
type transactions struct {
	headers *hpack.Decoder // of requests; its state depends on all headers before
	path    string         // in the headers that are being decoded
	bodies  map[uint32][]byte
	meant   map[uint32]struct{} // streams whose answers may be lost
}

func newProtocol() testproxy.Protocol {
	isGreeted := false
	requestLength := func(b []byte) int {
		switch {
		case isGreeted:
			return frameLength(b)
		case !strings.HasPrefix(http2.ClientPreface, string(b[:min(len(b), len(http2.ClientPreface))])):
			return -1
		case len(b) >= len(http2.ClientPreface):
			isGreeted = true
			return len(http2.ClientPreface)
		}
		return 0
	}
	t := &transactions{bodies: make(map[uint32][]byte), meant: make(map[uint32]struct{})}
	t.headers = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":path" {
			t.path = f.Value
		}
	})
	p := testproxy.NewFramed(requestLength, frameLength)
	p.Request = func(f []byte, isMeant func([]byte) bool) {
		if string(f) != http2.ClientPreface {
			t.request(f, isMeant)
		}
	}
	p.Reply = func(f []byte) bool {
		kind := frame(f).kind()
		_, found := t.meant[frame(f).stream()]
		return found && (kind == http2.FrameHeaders || kind == http2.FrameData)
	}
	return p
}

func frameLength(b []byte) int {
	if len(b) < 9 {
		return 0
	}
	return 9 + int(b[0])<<16 + int(b[1])<<8 + int(b[2])
}

// frame is a frame of HTTP/2.
type frame []byte

func (f frame) kind() http2.FrameType     { return http2.FrameType(f[3]) }
func (f frame) has(flag http2.Flags) bool { return http2.Flags(f[4]).Has(flag) }
func (f frame) stream() uint32 {
	return (uint32(f[5])<<24 | uint32(f[6])<<16 | uint32(f[7])<<8 | uint32(f[8])) & (1<<31 - 1)
}

// payload returns the content of the frame, without padding and without the priority of
// headers.
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

// request follows a frame of the client.
func (t *transactions) request(f frame, isMeant func([]byte) bool) {
	id := f.stream()
	switch f.kind() {
	case http2.FrameHeaders, http2.FrameContinuation:
		t.headers.Write(f.payload())
		if !f.has(http2.FlagHeadersEndHeaders) {
			return
		}
		t.headers.Close()
		if t.path == txnPath {
			t.bodies[id] = []byte{}
		}
		t.path = ""
	case http2.FrameData:
		body, isTransaction := t.bodies[id]
		if !isTransaction {
			return
		}
		t.bodies[id] = append(body, f.payload()...)
		if f.has(http2.FlagDataEndStream) {
			if isMeant(t.bodies[id]) {
				t.meant[id] = struct{}{}
			}
			delete(t.bodies, id)
		}
	case http2.FrameRSTStream:
		delete(t.bodies, id)
		delete(t.meant, id)
	}
}
