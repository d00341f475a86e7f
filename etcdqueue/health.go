package etcdqueue

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// monitorConnection looks after the connection: while nothing comes on it, it asks the member
// how it is, and leaves one that says nothing. (gRPC's own keepalive does so too,
// but not before ten seconds.) It also asks each new member, and when commits take
// long.
func (c *Coordinator) monitorConnection() {
	interval := min(time.Second, c.cfg.SessionTimeout/6)
	limit := min(2*time.Second, max(c.cfg.SessionTimeout/4, 500*time.Millisecond))
	tick := time.NewTicker(max(interval, time.Millisecond))
	defer tick.Stop()
	var last *conn
	var reads int64
	for {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
		now := c.dialer.liveConn()
		if now == nil {
			continue
		}
		idle := now == last && now.reads.Load() == reads
		if idle || now != last || c.inFlight.hasSlow(time.Now()) {
			ctx, cancel := context.WithTimeout(c.ctx, limit)
			c.checkMember(ctx)
			cancel()
		}
		if idle && now.reads.Load() == reads && c.ctx.Err() == nil {
			now.Close()
		}
		last, reads = now, now.reads.Load()
	}
}

// checkMember asks the member for its version, and warns of one that is too old. It also
// notices a service that was restored, while nothing else asks it.
func (c *Coordinator) checkMember(ctx context.Context) {
	r, err := pb.NewMaintenanceClient(c.client.ActiveConnection()).Status(ctx, &pb.StatusRequest{}, waitForReady...)
	if err != nil {
		return
	}
	if r.Leader == 0 {
		c.dialer.noteNoLeader()
	} else {
		c.inFlight.observeTerm(r.RaftTerm, time.Now())
	}
	if c.revisions.current().isAheadOf(r.Header) {
		// The member is behind, or was restored: a linearizable answer tells.
		_, _ = c.kv.Range(ctx, &pb.RangeRequest{Key: c.key("/zkq/format"), CountOnly: true}, waitForReady...)
	}
	why := versionWarning(r.Version)
	c.mu.Lock()
	first := !c.warned[why]
	c.warned[why] = true
	c.mu.Unlock()
	if why != "" && first {
		c.cfg.Warn(why)
	}
}

// safeVersions are the first releases of each line that never answer a linearizable read
// from the past (https://github.com/etcd-io/etcd/issues/20418).
var safeVersions = [][3]int{{3, 6, 9}, {3, 7, 0}}

// versionWarning says, in a sentence, why a server's version should be changed; "" if
// it need not.
func versionWarning(version string) string {
	var v [3]int
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	for i, p := range parts {
		p, _, _ = strings.Cut(p, "-")
		n, err := strconv.Atoi(p)
		if err != nil || len(parts) != 3 {
			return "" // nothing that we could compare
		}
		v[i] = n
	}
	for _, s := range safeVersions {
		if v[0] == s[0] && v[1] == s[1] && v[2] >= s[2] {
			return ""
		}
	}
	if slices.Compare(v[:], safeVersions[len(safeVersions)-1][:]) > 0 {
		return ""
	}
	return fmt.Sprintf("etcd %s may answer a read from the past after it was paused, and then two puts may be turned round: use 3.6.9 or newer (https://github.com/etcd-io/etcd/issues/20418)", version)
}
