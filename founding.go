// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/raftlog"
)

// A cluster is founded by founders that are all new. A founder with an empty directory may be new, or it
// may have lost a directory. If a majority of empty directories could found a cluster, two lost directories
// of three would discard the data of the third. So a founder takes part in the founding only when it has
// gathered: when every other founder has answered that it is on record nowhere and has nothing beyond the
// founding entries. That a founder has gathered is durable, so the founders that have gathered finish a
// founding that a crash interrupts.
//
// This is safe: let a majority have founded the cluster. A founder of that majority that loses its
// directory gathers again only if all the others of that majority have lost theirs, too. Until then it
// neither votes nor stands for election. Every other majority has such a founder, or one that has kept its
// directory.

// errGathering: this founder has not met all the others yet.
var errGathering = errors.New("coterie: the founding waits for all founders")

// errNotFirst: the founder with the least ID stands for election first. Raft asks again.
var errNotFirst = errors.New("coterie: another founder stands for election first")

// gatherInterval is how often a founder asks the others during the first election timeout. After it, a
// founder asks four times in each election timeout.
const gatherInterval = 10 * time.Millisecond

// gatherLogInterval is how long a waiting founder logs nothing, though the reasons have changed.
const gatherLogInterval = 10 * time.Second

// gather makes a new founder take part in the founding once it has met the others. As soon as all have
// gathered, the founder with the least ID stands for election: so a new cluster waits for no timeout, and
// each founder votes. A founder alone stands at once.
func (j *joiner) gather() {
	founders := j.raft().voterIDs()
	if !slices.Contains(founders, j.id) {
		return
	}
	if len(founders) > 1 {
		isNew := func(p membership.Pong) bool { return p.New }
		hasGathered := func(p membership.Pong) bool { return p.Gathered }
		if j.identity.hasGathered() || !j.askAll(j.life.Context(), founders, isNew) || !j.noteGathered() {
			return
		}
		ctx, cancel := context.WithTimeout(j.life.Context(), j.cfg.ElectionTimeout)
		defer cancel()
		if j.id == slices.Min(founders) {
			j.askAll(ctx, founders, hasGathered)
		}
	}
	if j.id == slices.Min(founders) {
		j.raft().elect()
	}
}

// noteGathered makes it durable that this founder has met the others. It tries again while the disk fails,
// and returns false if the node closes before it succeeds.
func (j *joiner) noteGathered() bool {
	for {
		err := j.identity.update(func(record *raftlog.Identity) { record.Gathered = true })
		if err == nil {
			return true
		}
		j.cfg.Logger.Warn("the founding waits for the disk", "err", err)
		select {
		case <-time.After(j.cfg.ElectionTimeout):
		case <-j.life.Closing():
			return false
		}
	}
}

// askAll asks the other founders until each has given a reply as wanted. It returns false if ctx ends or
// the node closes before that. It also returns false if the founding is over: this node is on record, so
// others have founded the cluster.
func (j *joiner) askAll(ctx context.Context, founders []MemberID, wanted func(membership.Pong) bool) bool {
	type reply struct {
		addr string
		pong membership.Pong
		err  error
	}
	replies, done := make(chan reply), make(chan struct{})
	defer close(done)
	asked, satisfied := map[string]bool{}, map[MemberID]bool{j.id: true}
	isMissing := func(id MemberID) bool { return !satisfied[id] }
	begun := time.Now()
	logged, loggedAt := "", time.Time{}
	for slices.ContainsFunc(founders, isMissing) {
		interval := gatherInterval
		if time.Since(begun) >= j.cfg.ElectionTimeout {
			interval = max(interval, j.cfg.ElectionTimeout/4)
			if err := j.peers.noLeader(); err.Error() != logged && time.Since(loggedAt) >= gatherLogInterval {
				logged, loggedAt = err.Error(), time.Now()
				j.cfg.Logger.Info("the founding waits for all founders", "err", err)
			}
		}
		for _, addr := range j.peers.dialable() {
			if asked[addr] {
				continue
			}
			asked[addr] = true
			j.life.Go(func() {
				ctx, cancel := context.WithTimeout(j.life.Context(), j.cfg.ElectionTimeout)
				defer cancel()
				p, err := j.ping(ctx, 0, addr)
				select {
				case replies <- reply{addr, p, err}:
				case <-done:
				}
			})
		}
		changed := j.identity.Changed()
		if !j.identity.isNew() {
			return false
		}
		again := time.NewTimer(interval)
		for waiting := true; waiting; {
			select {
			case r := <-replies:
				asked[r.addr] = false
				if r.err == nil && wanted(r.pong) {
					satisfied[MemberID(r.pong.Member)] = true
				}
				waiting = slices.ContainsFunc(founders, isMissing)
			case <-again.C:
				waiting = false
			case <-changed:
				waiting = false
			case <-ctx.Done():
				again.Stop()
				return false
			case <-j.life.Closing():
				again.Stop()
				return false
			}
		}
		again.Stop()
	}
	return true
}

// mayStand waits until this node may ask for votes. If it had to wait, only the founder with the least ID
// may: the others follow.
func (j *joiner) mayStand(ctx context.Context) error {
	if j.identity.hasGathered() {
		return nil
	}
	for {
		changed := j.identity.Changed()
		if j.identity.hasGathered() {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errGathering
		case <-j.life.Closing():
			return j.life.Err()
		}
	}
	if j.id != slices.Min(j.raft().voterIDs()) {
		return errNotFirst
	}
	return nil
}
