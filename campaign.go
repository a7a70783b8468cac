// SPDX-License-Identifier: Apache-2.0

package coterie

import "time"

// Raft looks for its leader after a random time between one and two election timeouts, and after another
// such time if the leader was silent for less than one. So a follower notices up to three election
// timeouts after a crash that its leader has gone. It then asks the others for an election, and those
// refuse that have not noticed yet. Two things make that one election timeout:
//
//   - campaign has raft look when the leader has been silent for an election timeout. The voters take
//     turns, so that they do not stand all at once and split the votes;
//   - a voter whose leader has been silent for half of that does not refuse others for the leader's sake:
//     see raftnet.

// turnsPerTimeout is how many voters get their turn within an election timeout. Followers hear the last
// heartbeat of a leader at moments up to a fifth of a timeout apart.
const turnsPerTimeout = 3

// campaign has this node stand for election when its leader is silent and the node's turn has come. What
// raft asks for before that waits for the turn, too.
func (n *Node) campaign() {
	for {
		wait := n.cfg.ElectionTimeout // raft goes on by itself
		if left := time.Until(n.turnToStand()); left > 0 {
			wait = left
		} else {
			n.raft().look()
		}
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-n.life.Context().Done():
			again.Stop()
			return
		}
	}
}

// turnToStand returns when it is this node's turn to stand for election if its leader stays silent.
func (n *Node) turnToStand() time.Time {
	leader, since := n.raft().silence()
	rank := rank(n.id, leader, n.voterIDs())
	turn := since.Add(n.cfg.ElectionTimeout * time.Duration(turnsPerTimeout+rank) / turnsPerTimeout)
	if yields := n.raft().net.Yields(); yields.After(turn) {
		return yields
	}
	return turn
}

// rank returns how many voters have their turn before a node. The first is the one that follows the leader
// in the order of IDs, which goes on with the least after the greatest.
func rank(node, leader MemberID, voters []MemberID) (before int) {
	for _, v := range voters {
		if v != leader && v-leader < node-leader {
			before++
		}
	}
	return before
}
