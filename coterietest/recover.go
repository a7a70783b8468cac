// SPDX-License-Identifier: Apache-2.0

package coterietest

import (
	"context"

	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// Inspect calls [datadir.Inspect] with the directory of a node that is down.
func (c *Cluster) Inspect(i int) (datadir.Inspection, error) {
	return datadir.Inspect(c.onDisk(i), c.nodes[i].cfg.Dir)
}

// Recover calls [datadir.Recover] with the directory of a node that is down. Restart opens it again.
func (c *Cluster) Recover(i int, survivors ...datadir.Inspection) (datadir.Recovery, error) {
	return datadir.Recover(c.onDisk(i), c.nodes[i].cfg.Dir, survivors...)
}

// onDisk returns a context that has a node's disk, if the disk is one in memory.
func (c *Cluster) onDisk(i int) context.Context {
	if disk := c.nodes[i].disk; disk != nil {
		return vfs.With(context.Background(), disk.Mount())
	}
	return context.Background()
}
