// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/coterie-kv/coterie/internal/raftlog"
)

// A cluster is founded by founders that all are new. A founder with an empty directory may be new, or
// it may have lost a directory. If a majority of empty directories could found a cluster, two lost
// directories of three would end what the third one still has. So a founder takes no part in the
// founding before it has gathered: before every other founder has answered that it is on record
// nowhere and has nothing beyond the founding entries. That it has gathered is durable, so a founding
// that a crash interrupts is finished by those who have.
//
// Why this is safe: let a majority have founded the cluster. A founder of that majority that loses its
// directory gathers again only if all the others of that majority have lost theirs, too. Until then it
// neither votes nor stands for election. Every other majority has such a founder, or one that has kept
// its directory.

// errGathering: this founder has yet to meet the others.
var errGathering = errors.New("coterie: the founding waits for all founders")

// errNotFirst: the founder with the least ID stands for election first. Raft asks again.
var errNotFirst = errors.New("coterie: another founder stands for election first")

// gatherInterval is how often a founder looks for the others, for an election timeout; then it does so
// four times within one.
const gatherInterval = 10 * time.Millisecond

// tellInterval is how long a founder that waits is silent at least before it tells of other reasons.
const tellInterval = 10 * time.Second

// isNew reports whether this node is on record nowhere, as far as it knows, and its log has nothing
// beyond the founding entries.
func (n *Node) isNew() bool { return n.identity.Load().Since == 0 && n.raft().founding() }

// gathered reports whether this node may take part in elections: it has gathered, or is not new.
func (n *Node) gathered() bool { return n.identity.Load().Gathered || !n.isNew() }

// gathers reports whether this node is a founder that has yet to meet the others.
func (n *Node) gathers() bool { return !n.gathered() && slices.Contains(n.voterIDs(), n.id) }

// voterIDs returns the members that have a vote, in the newest configuration of the log.
func (n *Node) voterIDs() (ids []MemberID) {
	for _, id := range n.raft().voters() {
		ids = append(ids, memberOf(id))
	}
	return ids
}

// gather makes a new founder take part in the founding when it has met the others. The founder with the
// least ID stands for election as soon as all have gathered, so that a new cluster does not wait for a
// timeout and each founder votes; a node alone stands at once.
func (n *Node) gather() {
	founders := n.voterIDs()
	if !slices.Contains(founders, n.id) {
		return
	}
	if len(founders) > 1 {
		isNew := func(p pong) bool { return p.founding }
		hasGathered := func(p pong) bool { return p.gathered }
		if n.gathered() || !n.askAll(n.life.Context(), founders, isNew) || !n.noteGathered() {
			return
		}
		ctx, cancel := context.WithTimeout(n.life.Context(), n.cfg.ElectionTimeout)
		defer cancel()
		if n.id == slices.Min(founders) {
			n.askAll(ctx, founders, hasGathered)
		}
	}
	if n.id == slices.Min(founders) {
		n.raft().elect()
	}
}

// noteGathered makes it durable that this founder has met the others. It tries again while the disk does
// not take it, and returns false if the node closes before that.
func (n *Node) noteGathered() bool {
	for {
		err := n.identify(func(id *raftlog.Identity) { id.Gathered = true })
		if err == nil {
			return true
		}
		n.cfg.Logger.Warn("the founding waits for the disk", "err", err)
		select {
		case <-time.After(n.cfg.ElectionTimeout):
		case <-n.life.Closing():
			return false
		}
	}
}

// askAll asks the other founders again and again until each has given a reply that is as wanted. It
// returns false if ctx ends or the node closes before that, or if the founding is over: this node is on
// record, for others have founded the cluster.
func (n *Node) askAll(ctx context.Context, founders []MemberID, wanted func(pong) bool) bool {
	type reply struct {
		door string
		pong pong
		err  error
	}
	replies, done := make(chan reply), make(chan struct{})
	defer close(done)
	asked, satisfied := map[string]bool{}, map[MemberID]bool{n.id: true}
	isMissing := func(id MemberID) bool { return !satisfied[id] }
	begun := time.Now()
	told, toldAt := "", time.Time{}
	for slices.ContainsFunc(founders, isMissing) {
		interval := gatherInterval
		if time.Since(begun) >= n.cfg.ElectionTimeout {
			interval = max(interval, n.cfg.ElectionTimeout/4)
			if err := n.noLeader(); err.Error() != told && time.Since(toldAt) >= tellInterval {
				told, toldAt = err.Error(), time.Now()
				n.cfg.Logger.Info("the founding waits for all founders", "err", err)
			}
		}
		for _, door := range n.doors() {
			if asked[door] {
				continue
			}
			asked[door] = true
			n.life.Go(func() {
				ctx, cancel := context.WithTimeout(n.life.Context(), n.cfg.ElectionTimeout)
				defer cancel()
				p, err := n.ping(ctx, 0, door)
				select {
				case replies <- reply{door, p, err}:
				case <-done:
				}
			})
		}
		confirmed := n.confirmed.Wait()
		if !n.isNew() {
			return false
		}
		again := time.NewTimer(interval)
		for waiting := true; waiting; {
			select {
			case r := <-replies:
				asked[r.door] = false
				if r.err == nil && wanted(r.pong) {
					satisfied[MemberID(r.pong.member)] = true
				}
				waiting = slices.ContainsFunc(founders, isMissing)
			case <-again.C:
				waiting = false
			case <-confirmed:
				waiting = false
			case <-ctx.Done():
				again.Stop()
				return false
			case <-n.life.Closing():
				again.Stop()
				return false
			}
		}
		again.Stop()
	}
	return true
}

// mayStand waits until this node may ask for votes. If it had to wait, the founder with the least ID
// goes first.
func (n *Node) mayStand(ctx context.Context) error {
	if n.gathered() {
		return nil
	}
	for {
		changed := n.confirmed.Wait()
		if n.gathered() {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errGathering
		case <-n.life.Closing():
			return n.life.Err()
		}
	}
	if n.id != slices.Min(n.voterIDs()) {
		return errNotFirst
	}
	return nil
}
