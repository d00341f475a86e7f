package coordtest

import "slices"

// Backup is what a service held at one instant: see [Store.Backup].
type Backup struct{ st state }

// Backup saves what the service holds, as an operator does.
func (s *Store) Backup() *Backup {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Backup{s.st.saved()}
}

// Restore puts the service back to a backup of it. What was written since then is gone,
// and revisions and fences go back: they will be given again. Every session ends, and the
// ephemeral nodes of the backup are gone with those that owned them.
func (s *Store) Restore(b *Backup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range slices.Clone(s.remotes) {
		s.end(r)
	}
	keep := s.st.keepLog
	s.st = b.st.saved()
	s.st.keepLog = keep
	for _, c := range s.clients {
		c.view, c.seen = s.st.revision, s.st.revision
	}
	s.arm()
	if s.simulated {
		s.nudge()
	}
}

// saved copies the state, without ephemeral nodes.
func (st *state) saved() state {
	to := state{etcd: st.etcd, revision: st.revision, stamps: st.stamps, nodes: make(map[string]*node, len(st.nodes)), dirs: make(map[string]*dir, len(st.dirs))}
	for at, d := range st.dirs {
		to.dirs[at] = &dir{names: slices.Clone(d.names), creates: d.creates, stamp: d.stamp}
	}
	for at, n := range st.nodes {
		if n.owner != "" {
			parent, name := split(at)
			d := to.dirs[parent]
			d.names = remove(d.names, name)
			continue
		}
		was := *n
		to.nodes[at] = &was
	}
	return to
}
