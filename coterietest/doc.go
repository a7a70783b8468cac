// SPDX-License-Identifier: Apache-2.0

// Package coterietest runs clusters for tests, as net/http/httptest runs servers: in one process, on a
// network in memory that a test can cut, delay and break, and on disks in memory that survive a crash.
//
// # Virtual time
//
// [Run] runs a test in a bubble of package testing/synctest, in which time is virtual: the clock advances at
// once when all goroutines of the test and of the cluster wait. A test that waits for the expiry of a lease of
// an hour takes milliseconds.
//
//	func TestFailover(t *testing.T) {
//		coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
//			c.Crash(c.Index(c.Leader()))
//			_, err := c.Leader().Put(t.Context(), "k", "v")
//			…
//		})
//	}
//
// [NewCluster] does the same without a bubble: in real time, or in a bubble that the test makes itself. With
// [WithTCP] the nodes use loopback TCP.
//
// # Nodes
//
// [Cluster.Node] returns the node with an index, from 0. The node with index 0 is named "node1", the next one
// "node2", as the nodes of [coterie.OpenCluster] are. [Cluster.Leader] and [Cluster.Follower] find nodes by
// role. [Cluster.Join] adds a node. [WithConfig] changes the configuration of nodes.
//
// # Faults
//
// The network: [Cluster.Partition], [Cluster.Block], [Cluster.Delay], [Cluster.BreakConnections],
// [Cluster.BlackholeConnections]. Disks: [Cluster.StallDisk], [Cluster.SlowDisk], [Cluster.FillDisk],
// [Cluster.RefuseDisk]. Nodes: [Cluster.Pause], [Cluster.Crash], [Cluster.Wipe], [Cluster.Stop],
// [Cluster.Restart]. [Cluster.Heal] ends all faults of the network and of the disks. Random faults
// depend on a seed that the test logs: [WithSeed] repeats it.
//
// # The end of a test
//
// At the end of a test every node is checked with [coterie.Node.Check] and closed. The test fails if a check
// fails or a goroutine of the cluster is left.
package coterietest
