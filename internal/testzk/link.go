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

// Link is one client's network connection to a cluster: a proxy for each server. It can lose
// the answer to a single transaction, and it knows the client's session.
type Link struct {
	*testproxy.Link
	servers []string

	mu      sync.Mutex
	session []byte // timeout, id and password, of the last one granted
}

// NewLink returns a link that listens until the test ends.
func NewLink(t testing.TB, servers ...string) *Link {
	t.Helper()
	l := &Link{servers: servers}
	l.Link = testproxy.NewFor(t, func() testproxy.Protocol { return newProtocol(l.recordSession) }, servers...)
	return l
}

func (l *Link) recordSession(session []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = session
}

// Expire has the service end the client's session, from another connection. It reports
// whether there was one.
func (l *Link) Expire() (bool, error) {
	l.mu.Lock()
	session := l.session
	l.session = nil
	l.mu.Unlock()
	defer l.BlockNew()() // so that the client does not take its session back
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

// closeSession connects with a session (timeout, id and password) and closes it.
func closeSession(server string, session []byte) error {
	c, err := net.DialTimeout("tcp", server, 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
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
		return nil // the session is over already
	}
	if _, err := c.Write([]byte{0, 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xf5}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c) // until the server has closed it
	return err
}

// writes are the operations that change something: create, delete, setData, multi, create2.
var writes = map[uint32]bool{1: true, 2: true, 5: true, 14: true, 15: true}

// newProtocol returns ZooKeeper's protocol for one connection. Each frame follows its length.
// The first frame of each direction establishes the session; then come requests (xid,
// operation, ...) and answers (xid, ...). It calls granted with each session that the server
// grants.
func newProtocol(granted func(session []byte)) testproxy.Protocol {
	var isConnecting, isConnected bool  // the first frame was sent, was answered
	meant := make(map[[4]byte]struct{}) // xids of the writes whose answers may be lost
	p := testproxy.NewFramed(frameLength, frameLength)
	p.Request = func(frame []byte, isMeant func([]byte) bool) {
		if isConnecting && len(frame) >= 12 && writes[binary.BigEndian.Uint32(frame[8:])] && isMeant(frame[12:]) {
			meant[[4]byte(frame[4:8])] = struct{}{}
		}
		isConnecting = true
	}
	p.Reply = func(frame []byte) bool {
		const grant = 4 + 4 + 4 + 8 + 4 + 16 // its own length, version, timeout, session, password
		switch {
		case !isConnected:
			if len(frame) >= grant && binary.BigEndian.Uint64(frame[12:]) != 0 {
				granted(slices.Clone(frame[8:grant]))
			}
			isConnected = true
		case len(frame) >= 8:
			_, found := meant[[4]byte(frame[4:8])]
			return found
		}
		return false
	}
	return p
}

func frameLength(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	n := binary.BigEndian.Uint32(b)
	if n > 64<<20 {
		return -1 // a four letter word, or the answer to it
	}
	return 4 + int(n)
}
