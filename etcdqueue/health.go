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

// monitorConnection asks the connected member for its status: when nothing was received for
// an interval, when the connection is new, and when commits are slow. It closes a
// connection on which nothing is received after that either, so that gRPC dials the next
// member. gRPC's own keepalive would do that only after ten seconds.
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
		conn := c.dialer.liveConn()
		if conn == nil {
			continue
		}
		// A connection on which nothing came for an interval may lead to a frozen member.
		idle := conn == last && conn.reads.Load() == reads
		if idle || conn != last || c.inFlight.hasSlow(time.Now()) {
			ctx, cancel := context.WithTimeout(c.ctx, limit)
			c.checkMember(ctx)
			cancel()
		}
		if idle && conn.reads.Load() == reads && c.ctx.Err() == nil {
			conn.Close()
		}
		last, reads = conn, conn.reads.Load()
	}
}

// checkMember asks the member for its version and its leader, and warns about a version
// that is too old. It also notices a restored service while nothing else asks it.
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
		// The member lags behind, or the service was restored: the header of a linearizable read
		// shows which.
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

// safeVersions are the first releases of each line whose linearizable reads are never stale
// (https://github.com/etcd-io/etcd/issues/20418).
var safeVersions = [][3]int{{3, 6, 9}, {3, 7, 0}}

// versionWarning returns a sentence that says why a server's version should be changed, or
// "".
func versionWarning(version string) string {
	var v [3]int
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	for i, p := range parts {
		p, _, _ = strings.Cut(p, "-")
		n, err := strconv.Atoi(p)
		if err != nil || len(parts) != 3 {
			return "" // not a version
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
