// SPDX-License-Identifier: Apache-2.0

package coterietest

import (
	"context"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// Inspect does what [coterie.Inspect] does to the directory of a node that is down.
func (c *Cluster) Inspect(i int) (coterie.Inspection, error) {
	return coterie.Inspect(c.onDisk(i), c.nodes[i].cfg.Dir)
}

// Recover does what [coterie.Recover] does to the directory of a node that is down. Restart opens it
// again.
func (c *Cluster) Recover(i int, survivors ...coterie.Inspection) (coterie.Recovery, error) {
	return coterie.Recover(c.onDisk(i), c.nodes[i].cfg.Dir, survivors...)
}

// onDisk returns a context that has a node's disk, if that is one in memory.
func (c *Cluster) onDisk(i int) context.Context {
	if disk := c.nodes[i].disk; disk != nil {
		return vfs.With(context.Background(), disk.Mount())
	}
	return context.Background()
}
