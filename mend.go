// SPDX-License-Identifier: Apache-2.0

package coterie

// mend makes the log and the state machine fit for raft to be started on them again, after it has
// ended amid whatever it was doing. It drops a log that went astray. And if raft had received a
// snapshot, but not given it to the state machine yet, it does that: raft begins behind its newest
// snapshot, and would never give what is in it.
func (n *Node) mend() error {
	if err := n.log.Realign(); err != nil {
		return logError(err)
	}
	snapshots, err := n.log.Snapshots().List()
	if err != nil {
		return logError(err)
	}
	if len(snapshots) == 0 || snapshots[0].Index <= n.fsm.state.View().Index {
		return nil
	}
	_, r, err := n.log.Snapshots().Open(snapshots[0].ID)
	if err != nil {
		return logError(err)
	}
	return n.fsm.Restore(r)
}
