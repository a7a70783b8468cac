// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"testing"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// Those whom a node asks to let it in may be cut off from the leader themselves, and keep it waiting.
func TestANodeIsLetInByWhoeverCan(t *testing.T) {
	coterietest.Run(t, 7, func(t *testing.T, c *coterietest.Cluster) {
		var cut, up []string
		for i, n := range c.Nodes() {
			if n != c.Leader() && len(cut) < 3 {
				c.Pause(i)
				cut = append(cut, n.Status().Addr)
			} else {
				up = append(up, n.Status().Addr)
			}
		}
		ready(t, c.Node(c.Join(func(cfg *coterie.Config) { cfg.Join = append(cut, up[0]) })))
	})
}
