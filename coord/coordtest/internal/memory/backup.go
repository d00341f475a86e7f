package memory

import "slices"

// Backup is what a service held at one instant.
type Backup struct{ state state }

// Backup copies what the service holds, without ephemeral nodes.
func (s *Service) Backup() *Backup {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Backup{s.state.withoutEphemerals()}
}

// Restore ends every session and puts the service back to the backup, revisions
// included.
func (s *Service) Restore(b *Backup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, kept := range slices.Clone(s.sessions) {
		s.endSessionLocked(kept)
	}
	keepsHistory := s.state.keepsHistory
	s.state = b.state.withoutEphemerals()
	s.state.keepsHistory = keepsHistory
	for _, c := range s.clients {
		c.listRevision, c.seenRevision = s.state.revision, s.state.revision
	}
	s.armTimerLocked()
	if s.isStepped {
		s.AnnounceWork()
	}
}

// withoutEphemerals copies the state, but for ephemeral nodes and history.
func (st *state) withoutEphemerals() state {
	to := state{
		countsLikeEtcd: st.countsLikeEtcd, revision: st.revision, lastStamp: st.lastStamp,
		nodes: make(map[string]*node, len(st.nodes)), dirs: make(map[string]*dir, len(st.dirs)),
	}
	for path, d := range st.dirs {
		to.dirs[path] = &dir{names: slices.Clone(d.names), creates: d.creates, stamp: d.stamp}
	}
	for path, n := range st.nodes {
		if n.owner != "" {
			parent, name := splitPath(path)
			d := to.dirs[parent]
			d.names = removeName(d.names, name)
			continue
		}
		copied := *n
		to.nodes[path] = &copied
	}
	return to
}
