// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// Connections can die silently: messages are lost, neither end gets an error, and new connections work. The writes of
// every node continue within three election timeouts, even if the node with the dead connections is needed for a
// majority.
func TestWritesOutliveSilentConnections(t *testing.T) {
	const electionTimeout = time.Second
	for run := range 10 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(run), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				if run%2 == 0 { // each write then needs both remaining nodes
					c.Crash(c.Index(c.Follower()))
				}
				for range 5 {
					leader := c.Leader()
					struck := leader
					if random.IntN(2) == 0 {
						struck = c.Follower()
					}
					slowest := writeMeanwhile(t, c, func() {
						time.Sleep(time.Duration(random.IntN(int(time.Second))))
						for _, other := range c.Nodes() {
							if other != struck {
								c.BlackholeConnections(c.Index(struck), c.Index(other))
							}
						}
						time.Sleep(3 * electionTimeout)
					})
					t.Logf("connections of the leader: %v; the slowest write took %v", struck == leader, slowest)
					require.LessOrEqual(t, slowest, 3*electionTimeout)
				}
			}, coterietest.WithSeed(seed), coterietest.WithConfig(func(_ int, cfg *coterie.Config) {
				cfg.ElectionTimeout = electionTimeout
			}))
		})
	}
}

// writeMeanwhile writes on every node while fn runs, and returns the duration of the slowest write.
func writeMeanwhile(t *testing.T, c *coterietest.Cluster, fn func()) (slowest time.Duration) {
	var mu sync.Mutex
	var writers sync.WaitGroup
	over := make(chan struct{})
	for i, n := range c.Nodes() {
		writers.Go(func() {
			for tick := time.NewTicker(time.Duration(40+i) * time.Millisecond); ; {
				begin := time.Now()
				if _, err := n.Put(t.Context(), fmt.Sprint("k", i), "v"); err != nil {
					t.Error(err)
				}
				mu.Lock()
				slowest = max(slowest, time.Since(begin))
				mu.Unlock()
				select {
				case <-tick.C:
				case <-over:
					tick.Stop()
					return
				}
			}
		})
	}
	fn()
	close(over)
	writers.Wait()
	return slowest
}
