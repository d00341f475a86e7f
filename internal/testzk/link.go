package testzk

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zkq/zkq/internal/testproxy"
)

// Link is one client's way to a cluster, by a proxy for each of its servers. It knows transactions, and the client's
// session.
type Link struct {
	*testproxy.Link
	servers []string

	mu      sync.Mutex
	session []byte // the last connect response that named one
}

// NewLink returns a link that listens until the test ends.
func NewLink(t testing.TB, servers ...string) *Link {
	t.Helper()
	l := &Link{servers: servers}
	l.Link = testproxy.NewFor(t, func() testproxy.Protocol { return newTalk(l.granted) }, servers...)
	return l
}

func (l *Link) granted(session []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = session
}

// Expire has the service end the client's session, from another connection, and
// reports whether there was one.
func (l *Link) Expire() (bool, error) {
	l.mu.Lock()
	session := l.session
	l.session = nil
	l.mu.Unlock()
	defer l.Bar()() // or the client might take its session back
	if session == nil {
		return false, nil
	}
	var errs []error
	for _, server := range l.servers {
		err := closeSession(server, session)
		if err == nil {
			return true, nil
		}
		errs = append(errs, err)
	}
	return false, errors.Join(errs...)
}

// closeSession takes a session over (timeout, id and password) and closes it.
func closeSession(server string, session []byte) error {
	c, err := net.DialTimeout("tcp", server, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(session)))
	b = append(b, make([]byte, 12)...) // version, last zxid seen
	b = append(b, session...)
	if _, err := c.Write(b); err != nil {
		return err
	}
	answer := make([]byte, 20)
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(answer[12:]) == 0 {
		return nil // it was over
	}
	if _, err := c.Write([]byte{0, 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xf5}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c) // until the server has closed it
	return err
}

// talk is ZooKeeper's protocol on one connection: frames behind their length, first one each way for the session, then
// requests (xid, operation, ...) and answers (xid, ...).
type talk struct {
	granted           func(session []byte)
	requests, replies testproxy.Frames

	mu              sync.Mutex
	asked, answered bool                 // for the session
	meant           map[[4]byte]struct{} // xids of the writes whose answers may be lost
}

// writes are the operations that change something: create, delete, setData, multi, create2.
var writes = map[uint32]bool{1: true, 2: true, 5: true, 14: true, 15: true}

func newTalk(granted func([]byte)) *talk {
	t := &talk{granted: granted, meant: make(map[[4]byte]struct{})}
	t.requests.Length, t.replies.Length = frameLength, frameLength
	return t
}

func frameLength(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	n := binary.BigEndian.Uint32(b)
	if n > 64<<20 {
		return -1 // a four letter word, and what answers it
	}
	return 4 + int(n)
}

func (t *talk) Dialer() string { return "" }

func (t *talk) Requests(b []byte, meant func([]byte) bool) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	frames, raw := t.requests.Add(b)
	for _, f := range frames {
		if t.asked && len(f) >= 12 && writes[binary.BigEndian.Uint32(f[8:])] && meant(f[12:]) {
			t.meant[[4]byte(f[4:8])] = struct{}{}
		}
		t.asked = true
	}
	return slices.Concat(append(frames, raw)...)
}

func (t *talk) Replies(b []byte, lose func() bool) (may []byte, last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.requests.Raw() {
		return b, false
	}
	frames, raw := t.replies.Add(b)
	for _, f := range frames {
		const grant = 4 + 4 + 4 + 8 + 4 + 16 // its own length, version, timeout, session, password
		switch {
		case !t.answered:
			if len(f) >= grant && binary.BigEndian.Uint64(f[12:]) != 0 {
				t.granted(slices.Clone(f[8:grant]))
			}
			t.answered = true
		case len(f) >= 8:
			if _, meant := t.meant[[4]byte(f[4:8])]; meant && lose() {
				return may, true
			}
		}
		may = append(may, f...)
	}
	return append(may, raw...), false
}
