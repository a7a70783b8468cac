// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/coterie-kv/coterie/internal/raftlog"
)

// onDisk runs fn while the node is opened. fn may wait for the disk, as raft does rather than see it
// fail. When the disk fails or cannot be written, onDisk ends that wait: fn then goes on with what is
// no entry, and its result is dropped. Once the node is open, followDisk does this.
//
// Errors: fn's, or what the disk failed with.
func (n *Node) onDisk(fn func() error) error {
	over, watched := make(chan struct{}), make(chan struct{})
	var fault error
	go func() {
		defer close(watched)
		for fault == nil {
			select {
			case <-n.log.Trouble():
				fault = n.diskFault()
			case <-over:
				return
			}
		}
		n.log.End()
	}()
	err := fn()
	close(over)
	<-watched
	if fault == nil {
		fault = diskError(n.log.Condition().Err)
	}
	return cmp.Or(fault, err)
}

// diskFault returns why the log cannot be written, if so.
func (n *Node) diskFault() error {
	disk := n.log.Condition()
	if disk.Lack != nil {
		return logError(disk.Lack)
	}
	return diskError(disk.Err)
}

// diskError says that the disk has failed, and with what; or that what it holds is not what the cluster
// has.
func diskError(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, raftlog.ErrDiverged) {
		return logError(err)
	}
	return fmt.Errorf("the disk has failed: %w", logError(err))
}

// leave ends raft, if it was started, before the stores it uses are closed.
func (n *Node) leave() error {
	c := n.raft()
	if c == nil {
		return nil
	}
	return errors.Join(c.net.Close(), c.stop())
}
