// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func TestMetricsOfPeers(t *testing.T) {
	var r [3]coterie.ExpvarMetrics
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader := c.Leader()
		at := c.Index(leader)
		for i := range 3 {
			if i != at {
				c.Delay(at, i, 20*time.Millisecond)
			}
		}
		time.Sleep(3 * time.Second)
		put(t, leader, "k", strings.Repeat("v", 1<<20))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.GreaterOrEqual(t, r[at].Value(coterie.MetricHeartbeatSeconds+"_max"), 0.02)
		require.Less(t, r[at].Value(coterie.MetricHeartbeatSeconds+"_max"), 0.2)
		require.Greater(t, r[at].Value(coterie.MetricHeartbeatSeconds+"_count"), 10.0)
		require.GreaterOrEqual(t, r[at].Value(coterie.MetricPeerSentBytes), float64(2<<20), "the entry goes to two nodes")
		for i := range 3 {
			if i != at {
				require.GreaterOrEqual(t, r[i].Value(coterie.MetricPeerReceivedBytes), float64(1<<20))
				require.Less(t, r[i].Value(coterie.MetricPeerReceivedBytes), float64(2<<20))
				require.Zero(t, r[i].Value(coterie.MetricHeartbeatSeconds+"_count"), "a follower sends none")
			}
		}
		require.Zero(t, r[at].Value(coterie.MetricHeartbeatsFailed))

		c.Crash((at + 1) % 3)
		time.Sleep(5 * time.Second)
		require.Positive(t, r[at].Value(coterie.MetricHeartbeatsFailed))
	}, coterietest.WithConfig(func(i int, cfg *coterie.Config) { cfg.Metrics = &r[i] }))
}
