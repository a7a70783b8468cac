// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/coterie-kv/coterie"
)

// interval returns how often the leader compares the data of the members, or 0. One comparison serves both of etcd's flags.
func (c *Checks) interval() time.Duration {
	every := c.CorruptTime
	if c.Hashes && (every == 0 || c.HashTime < every) {
		every = c.HashTime
	}
	return every
}

// checkInitially waits until the node is up to date, and returns an error if its data differs from that of the majority.
func checkInitially(ctx context.Context, n *coterie.Node) error {
	if err := n.Ready(ctx); err != nil {
		return err
	}
	r, err := n.CompareMembers(ctx)
	if err != nil {
		return fmt.Errorf("the initial corruption check: %w", err)
	}
	if slices.Contains(r.Divergent, n.ID()) || slices.Contains(r.Divergent, 0) {
		return fmt.Errorf("the initial corruption check found data inconsistency with peers at revision %d: remove this member and add it again with an empty directory",
			r.HashRevision)
	}
	return nil
}
