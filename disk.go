// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"errors"
	"fmt"
)

// onDisk runs what may wait for the disk, as raft does rather than to see it fail, and ends that
// when the disk has failed: fn then goes on with what is no entry, and nothing that comes of it is
// of use. Once the node is open, followDisk does this.
//
// Errors: fn's, or what the disk failed with.
func (n *Node) onDisk(fn func() error) error {
	over, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for n.log.Condition().Err == nil {
			select {
			case <-n.log.Trouble():
			case <-over:
				return
			}
		}
		n.log.End()
	}()
	err := fn()
	close(over)
	<-watched
	if disk := n.log.Condition().Err; disk != nil {
		return diskError(disk)
	}
	return err
}

// diskError says that the disk has failed, and with what.
func diskError(err error) error { return fmt.Errorf("the disk has failed: %w", logError(err)) }

// leave ends raft, if it was started, before the stores it uses are closed.
func (n *Node) leave() error {
	c := n.raft()
	if c == nil {
		return nil
	}
	return errors.Join(c.net.Close(), c.stop())
}
