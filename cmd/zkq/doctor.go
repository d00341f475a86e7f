package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/zkq/zkq"
	"github.com/zkq/zkq/coord"
)

func doctorVerb() verb {
	return verb{
		name:  "doctor",
		usage: "say what was reached, how it does, and what to fix",
		more: `Asks each server for its version and mode, shows the granted session timeout and the
limits, tries whether it may write by creating and removing a node of its own, and
compares the clocks where the service has one. What should be fixed comes last.`,
		example: []string{"zkq -c zk://h1,h2,h3 doctor", "zkq -o json doctor | jq '.fix'"},
		run:     doctor,
	}
}

// examination holds what doctor finds. It is also doctor's JSON.
type examination struct {
	Coordinator string         `json:"coordinator"`
	Service     string         `json:"service"`
	Servers     []serverRecord `json:"servers"`
	Session     float64        `json:"session_timeout_seconds"`
	Asked       float64        `json:"session_timeout_asked_seconds"`
	ValueBytes  int            `json:"value_bytes"`
	CommitBytes int            `json:"commit_bytes"`
	CommitOps   int            `json:"commit_ops"`
	Write       *float64       `json:"write_seconds"`
	Skew        *float64       `json:"clock_skew_seconds"`
	Fix         []string       `json:"fix"`
}

// serverRecord is the JSON of one server.
type serverRecord struct {
	Address string `json:"address"`
	InUse   bool   `json:"in_use"`
	Version string `json:"version"`
	Mode    string `json:"mode"`
	Error   string `json:"error"`
}

// text returns one line about the server.
func (s serverRecord) text(service string) string {
	parts := []string{}
	if s.Version != "" {
		parts = append(parts, service+" "+s.Version)
	}
	if s.Mode != "" {
		parts = append(parts, s.Mode)
	}
	if s.InUse {
		parts = append(parts, "in use")
	}
	if s.Error != "" {
		parts = append(parts, s.Error)
	}
	return s.Address + ": " + strings.Join(parts, ", ")
}

// worstSkew is the largest difference of two clocks that needs no advice.
const worstSkew = time.Second

// doctor examines the servers and the session, tries a write, and prints what it found.
// It returns the error of the write, after the output.
func doctor(ctx context.Context, k *call) error {
	var mu sync.Mutex
	var fix []string
	advise := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fix = append(fix, fmt.Sprintf(format, args...))
	}
	k.warn = func(message string) { advise("%s", message) }
	return k.withCoordinator(ctx, func(c coord.Coordinator) error {
		ctx, cancel := k.changeContext(ctx)
		defer cancel()
		x := &examination{Coordinator: k.settings.target.String(), Asked: k.settings.sessionTimeout.Seconds(), Servers: []serverRecord{}}
		s, err := c.Session(ctx)
		if err != nil {
			return k.describe(err)
		}
		if err := x.servers(ctx, c, advise); err != nil {
			return k.describe(err)
		}
		x.session(s)
		if k.settings.target.scheme != "zk" && k.settings.target.scheme != "zks" && x.Session != x.Asked { // ZooKeeper's driver warns
			advise("the service granted a session timeout of %v, not the %v asked for: a dead process keeps its entries that long",
				s.Timeout(), k.settings.sessionTimeout)
		}
		if x.ValueBytes < zkq.MaxValue {
			advise("this service takes values of up to %d bytes, others take %d: raise the server's limit if you need larger ones", x.ValueBytes, zkq.MaxValue)
		}
		writeErr := x.write(ctx, s, advise)
		mu.Lock()
		x.Fix = append([]string{}, fix...)
		mu.Unlock()
		if err := x.print(k.out); err != nil {
			return k.describe(err)
		}
		return k.describe(writeErr)
	})
}

// servers records each server, and advises on those that do not answer.
func (x *examination) servers(ctx context.Context, c coord.Coordinator, advise func(string, ...any)) error {
	d, ok := c.(coord.Describer)
	if !ok {
		return nil
	}
	service, err := d.Describe(ctx)
	if err != nil {
		return err
	}
	x.Service = service.Name
	for _, s := range service.Servers {
		r := serverRecord{Address: s.Address, InUse: s.InUse, Version: s.Version, Mode: s.Mode}
		if s.Err != nil {
			r.Error = errorText(s.Err)
			advise("server %s: %s", s.Address, r.Error)
		}
		x.Servers = append(x.Servers, r)
	}
	if len(service.Servers) == 1 && service.Name == "ZooKeeper" && (x.Servers[0].Mode == "leader" || x.Servers[0].Mode == "follower") {
		advise("the URL names one server of a cluster: name the others too, or zkq is cut off when that one fails")
	}
	return nil
}

// session records the limits of a session.
func (x *examination) session(s coord.Session) {
	limits := s.Limits()
	x.Session = s.Timeout().Seconds()
	x.ValueBytes = min(limits.ValueBytes, zkq.MaxValue)
	x.CommitBytes, x.CommitOps = limits.CommitBytes, limits.CommitOps
}

// write creates an ephemeral node, compares its time with this machine's clock, and
// removes it. It returns the error of the first step that failed.
func (x *examination) write(ctx context.Context, s coord.Session, advise func(string, ...any)) error {
	var id [16]byte
	rand.Read(id[:])
	path := "/zkq/doctor-" + hex.EncodeToString(id[:])
	began := time.Now()
	rs, err := s.Commit(ctx, coord.CreateEphemeral(path, nil))
	took := time.Since(began)
	if errors.Is(err, coord.ErrForbidden) {
		advise("the credentials may not write below %s: grant that right, or nothing can be put or taken", x.Coordinator)
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	seconds := took.Seconds()
	x.Write = &seconds
	n, err := s.Get(ctx, path)
	if err != nil {
		return fmt.Errorf("read what was written: %w", err)
	}
	if !n.Created.IsZero() {
		// The service created it at some time during the call: assume the middle.
		skew := n.Created.Sub(began.Add(took / 2))
		seconds := skew.Seconds()
		x.Skew = &seconds
		if skew.Abs() > worstSkew+took/2 {
			advise("this machine's clock and the service's differ by %v: set both by NTP, or delays and times to live are wrong by as much", skew.Abs().Round(time.Millisecond))
		}
	}
	if _, err := s.Commit(ctx, coord.Delete(path, rs[0].Fence)); err != nil {
		return fmt.Errorf("remove what was written: %w", err)
	}
	return nil
}

// print writes the examination as JSON or as a table.
func (x *examination) print(out *output) error {
	if out.json {
		return out.record(x)
	}
	t := out.table("what", "found")
	seconds := func(v *float64) string {
		if v == nil {
			return ""
		}
		return time.Duration(*v * float64(time.Second)).Round(100 * time.Microsecond).String()
	}
	rows := [][2]string{{"coordinator", x.Coordinator}}
	for _, s := range x.Servers {
		rows = append(rows, [2]string{"server", s.text(x.Service)})
	}
	rows = append(rows,
		[2]string{"session timeout", fmt.Sprintf("%s, asked for %s", seconds(&x.Session), seconds(&x.Asked))},
		[2]string{"largest value", fmt.Sprintf("%d bytes", x.ValueBytes)},
		[2]string{"largest commit", fmt.Sprintf("%d bytes, %d operations", x.CommitBytes, x.CommitOps)},
		[2]string{"one write", seconds(x.Write)},
		[2]string{"clock skew", seconds(x.Skew)})
	for _, f := range x.Fix {
		rows = append(rows, [2]string{"fix", f})
	}
	for _, r := range rows {
		if err := t.row(nil, r[0], r[1]); err != nil {
			return err
		}
	}
	return t.end()
}
