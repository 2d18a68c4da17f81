package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"httpowerd/internal/admin"
	"httpowerd/internal/policy"
	"httpowerd/internal/policy/dedup"
	"httpowerd/internal/policy/ratelimit"
	"httpowerd/internal/state"
	"httpowerd/internal/state/redis"
)

// pauseShared is for how long limits ask nothing after a failure; the client asks as often whether the server is back.
const pauseShared = time.Second

// openState connects to what daemons share, and takes over what an earlier process left. Neither keeps the daemon from starting: the server may come
// later, and a file that cannot be used is set aside.
func (d *Daemon) openState(o Options) error {
	kept := map[string]state.Keeps{"breaker": d.rooms.Breaker, "tenants": d.rooms.Tenants}
	if d.settings.State.Backend == policy.BackendRedis {
		if err := d.share(); err != nil {
			return err
		}
	} else {
		kept["rate_limit"] = d.rooms.RateLimit
	}
	if o.NoState {
		return nil
	}
	d.kept = state.NewFile(d.settings.State.Dir, d.log, kept)
	d.kept.Load()
	return nil
}

// share makes limits, gates and keyed writes those of all daemons. Where the server is away, writes are refused whatever on_failure says: sent by two
// daemons is what their keys are there to prevent.
func (d *Daemon) share() (err error) {
	s := d.settings.State
	d.shared, err = redis.Open(redis.Config{URL: s.URL, Prefix: s.Prefix, Timeout: s.Timeout.D(), Secret: s.Secret, CA: s.CA}, d.metrics, d.log)
	if err != nil {
		return err
	}
	secret := d.shared.Secret("credentials")
	err = d.rooms.RateLimit.Share(sharedLimits{d.shared.Limits, d.shared.Gates}, ratelimit.ShareOptions{
		Secret: secret[:], Daemons: s.Share, Refuse: s.OnFailure == policy.OnFailRefuse, Timeout: s.Timeout.D(), Pause: pauseShared})
	if err != nil {
		return fmt.Errorf("limits cannot be shared: %w", err)
	}
	d.rooms.Dedup.Share(sharedWrites{d.shared.Writes}, d.shared.Secret("writes"))
	return nil
}

// closeState saves what should outlive the process, before the rooms forget it.
func (d *Daemon) closeState() {
	if d.kept == nil {
		return
	}
	d.kept.Save()
	if err := d.kept.Close(); err != nil {
		d.log.Warn("the state file was not closed", "error", err)
	}
}

// leaveShared ends the connections to what daemons share, after the last who used them.
func (d *Daemon) leaveShared() {
	if d.shared == nil {
		return
	}
	if err := d.shared.Close(); err != nil {
		d.log.Warn("the shared state was not left in order", "error", err)
	}
}

// stateStatus is how the state stands, for the admin API.
func (d *Daemon) stateStatus() admin.StateStatus {
	s := admin.StateStatus{Backend: d.settings.State.Backend, Up: true}
	if d.shared != nil {
		now := d.shared.Status()
		s.Up, s.Since, s.LastError, s.LastErrorTime = now.Up, now.Since, now.LastError, now.LastErrorTime
		s.OnFailure, s.Share = d.settings.State.OnFailure, d.settings.State.Share
	}
	return s
}

// sharedLimits is what rate limits share. A value of a gate that makes no sense is none, and one that is too large stays here; both were counted. They
// must not look as if the server were away.
type sharedLimits struct {
	*redis.Limits
	gates *redis.Gates
}

// Publish implements ratelimit.Shared.
func (s sharedLimits) Publish(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return unlessValue(s.gates.Publish(ctx, key, value, ttl))
}

// Fetch implements ratelimit.Shared.
func (s sharedLimits) Fetch(ctx context.Context, key string) (value []byte, left time.Duration, err error) {
	value, left, err = s.gates.Fetch(ctx, key)
	return value, left, unlessValue(err)
}

func unlessValue(err error) error {
	var e *redis.Error
	if errors.As(err, &e) && e.Class == redis.Value {
		return nil
	}
	return err
}

// sharedWrites is the store of keyed writes.
type sharedWrites struct{ writes *redis.Writes }

func claim(c dedup.Claim) redis.Claim {
	return redis.Claim{Key: c.Key, Fingerprint: c.Fingerprint, Owner: c.Owner}
}

// Begin implements dedup.Store.
func (s sharedWrites) Begin(ctx context.Context, c dedup.Claim, lease time.Duration) (dedup.Standing, error) {
	got, err := s.writes.Begin(ctx, claim(c), lease)
	if e := (*redis.Error)(nil); errors.As(err, &e) && e.Class == redis.Away {
		err = fmt.Errorf("%w: %w", dedup.ErrUnclaimed, err)
	}
	if err != nil {
		return dedup.Standing{}, err
	}
	states := map[redis.State]dedup.State{redis.Claimed: dedup.Claimed, redis.Running: dedup.Running, redis.Finished: dedup.Finished, redis.Mismatch: dedup.Mismatch}
	return dedup.Standing{State: states[got.State], Record: got.Record}, nil
}

// Finish implements dedup.Store.
func (s sharedWrites) Finish(ctx context.Context, c dedup.Claim, record []byte, keep time.Duration) error {
	return s.writes.Finish(ctx, claim(c), record, keep)
}

// Release implements dedup.Store.
func (s sharedWrites) Release(ctx context.Context, c dedup.Claim, keep time.Duration) error {
	return s.writes.Release(ctx, claim(c), keep)
}
