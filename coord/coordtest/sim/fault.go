package sim

import "time"

// CutOff cuts the client off that was opened by that name, for d.
func (s *Simulator) CutOff(name string, d time.Duration) {
	s.harm(name, "cut", func(c *simClient) {
		c.cutUntil = time.Now().Add(d)
		c.CutLocked()
	})
}

// StandStill stops the process of a client for d: nothing is delivered to it, and it sends
// nothing new.
func (s *Simulator) StandStill(name string, d time.Duration) {
	s.harm(name, "stands still", func(c *simClient) {
		c.pausedUntil = time.Now().Add(d)
		c.PauseLocked()
	})
}

// Expire ends the session of a client at the service.
func (s *Simulator) Expire(name string) {
	s.harm(name, "expire", func(c *simClient) {
		if c.HasSessionLocked() {
			c.ExpireLocked()
		}
	})
}

// harm does something to an open client.
func (s *Simulator) harm(name, act string, do func(*simClient)) {
	s.service.Lock()
	defer s.service.Unlock()
	for _, c := range s.clients {
		if c.Name() == name && !c.IsClosedLocked() && !c.IsCutLocked() && !c.IsPausedLocked() {
			s.recordLocked(event{client: name, act: act})
			do(c)
		}
	}
	s.service.AnnounceWork()
}
