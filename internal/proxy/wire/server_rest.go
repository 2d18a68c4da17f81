package wire

import "time"

// A connection that waits costs a goroutine, and its stack is as large as its requests were deep. Where many wait, those that have waited for a while rest:
// they have none, and the watcher says when to start one. That costs some of a request's time, so a few keep theirs, and those that come back soon are let rest
// ever later.
const (
	restAfter = 100 * time.Millisecond // at least; up to twice as long
	restless  = 128                    // so many connections may wait with a goroutine for as long as they like
	restSoon  = 10 * time.Second       // who rests for less than this might as well not have
	restLater = 8                      // by so many times longer waits who came back soon
	restMost  = 256                    // sweeps that a connection is waited for, and no longer
)

// spares and spareTime bound the goroutines that wait for another connection when theirs has ended or rests: their stacks have grown already.
const (
	spares    = 64
	spareTime = time.Second
)

// start serves a connection in another goroutine.
func (s *Server) start(c *serverConn) {
	select {
	case s.jobs <- c:
	default:
		go s.work(c)
	}
}

// work serves connections, one after another.
func (s *Server) work(c *serverConn) {
	for {
		s.run(c)
		if s.spare.Add(1) > spares {
			s.spare.Add(-1)
			return
		}
		timer := time.NewTimer(spareTime)
		select {
		case c = <-s.jobs:
		case <-timer.C:
			c = nil
		case <-s.quit:
			c = nil
		}
		timer.Stop()
		s.spare.Add(-1)
		if c == nil {
			return
		}
	}
}

// wakeful counts a connection in among those that may rest. s.mu is held.
func (s *Server) wakeful(c *serverConn) {
	if s.awake == nil {
		s.awake = map[*serverConn]struct{}{}
	}
	s.awake[c] = struct{}{}
	if !s.sweeping && len(s.awake) > s.few() && !s.draining.Load() {
		s.sweeping = true
		time.AfterFunc(restAfter, s.sweep)
	}
}

// few is how many may wait with a goroutine.
func (s *Server) few() int {
	if s.restless > 0 {
		return s.restless
	}
	return restless
}

// sweep nudges connections that have waited since before the last sweep, for as long as there are more than a few.
func (s *Server) sweep() {
	began, now := time.Now(), s.sweeps.Add(1)
	var waiting []*serverConn
	s.mu.Lock()
	many := len(s.awake) - s.few()
	again := many > 0 && !s.draining.Load()
	s.sweeping = again
	if again {
		for c := range s.awake {
			if len(waiting) == many {
				break
			}
			if c.state.Load() == parked && now-c.parkedAt.Load() > c.patience {
				waiting = append(waiting, c)
			}
		}
	}
	s.mu.Unlock()
	for _, c := range waiting {
		c.nudge()
	}
	if again {
		time.AfterFunc(max(restAfter, 100*time.Since(began)), s.sweep) // a hundredth of a core at most
	}
}

// nudge wakes the goroutine of a connection that waits, so that it gives up.
func (c *serverConn) nudge() {
	c.mu.Lock() // until the deadline is set: see settled
	defer c.mu.Unlock()
	if c.state.CompareAndSwap(parked, nudged) {
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
}

// settled waits until a nudge is over.
func (c *serverConn) settled() {
	c.mu.Lock()
	c.mu.Unlock() //nolint:staticcheck // nothing is done but waiting
}

// rest lets a connection that was nudged wait without a goroutine; false: it cannot, and is not asked again.
func (s *Server) rest(c *serverConn) bool {
	c.settled()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.awake, c)
	if c.in != nil || s.draining.Load() {
		return false
	}
	c.state.Store(rested) // before the watcher may tell of what is here already: rouse waits for s.mu then
	if !s.watch.expect(c, true) {
		c.state.Store(nudged)
		return false
	}
	c.restedAt = time.Now()
	s.atRest++
	if !s.expiring && s.Idle > 0 {
		s.expiring = true
		time.AfterFunc(s.Idle/8, s.expire)
	}
	return true
}

// rouse serves a connection on that rests; false: it does not rest.
func (s *Server) rouse(c *serverConn) bool {
	if c.state.Load() != rested {
		return false
	}
	s.mu.Lock()
	if c.state.Load() != rested {
		s.mu.Unlock()
		return false
	}
	s.atRest--
	if time.Since(c.restedAt) < restSoon {
		c.patience = min(restLater*c.patience, restMost)
	} else {
		c.patience = 1
	}
	c.state.Store(parked)
	c.parkedAt.Store(s.sweeps.Load())
	s.wakeful(c)
	s.mu.Unlock()
	s.start(c)
	return true
}

// expire closes connections that have rested for too long.
func (s *Server) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for c := range s.conns {
		if c.state.Load() == rested && c.deadline.Before(now) {
			s.drop(c)
		}
	}
	if s.expiring = s.atRest > 0; s.expiring {
		time.AfterFunc(s.Idle/8, s.expire)
	}
}

// drop closes a connection that rests. s.mu is held.
func (s *Server) drop(c *serverConn) {
	c.state.Store(finished)
	s.atRest--
	delete(s.conns, c)
	s.watch.remove(c.id)
	s.hangUp(c)
}
