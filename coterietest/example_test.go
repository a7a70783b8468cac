// SPDX-License-Identifier: Apache-2.0

package coterietest_test

import (
	"testing"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// t is the test: func TestFailover(t *testing.T), for example.
var t *testing.T

// The examples have no output, so go test does not run them by itself.
func TestExamples(test *testing.T) {
	for name, example := range map[string]func(){"failover": Example, "lease expires": ExampleRun} {
		test.Run(name, func(sub *testing.T) {
			t = sub
			example()
		})
	}
}

// Three nodes go on after their leader has crashed, and the crashed node catches up.
func Example() {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		crashed := c.Index(c.Leader())
		c.Crash(crashed)
		put, err := c.Leader().Put(t.Context(), "k", "v") // by a new leader
		if err != nil {
			t.Fatal(err)
		}
		c.Restart(crashed)
		c.WaitRevision(put.Revision)
		got, err := c.Node(crashed).Get(t.Context(), "k", coterie.WithSerializable())
		if err != nil || got.Count != 1 {
			t.Fatal("the crashed node did not catch up:", err)
		}
	})
}

// A lease of a minute expires in a test that takes milliseconds. In Run time is virtual, and advances at once
// when all goroutines wait.
func ExampleRun() {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ctx, n := t.Context(), c.Follower()
		lease, err := n.Grant(ctx, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Put(ctx, "k", "v", coterie.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
		count := func() int64 {
			got, err := n.Get(ctx, "k")
			if err != nil {
				t.Fatal(err)
			}
			return got.Count
		}
		time.Sleep(59 * time.Second)
		if count() != 1 {
			t.Fatal("the lease expired too early")
		}
		time.Sleep(2 * time.Second)
		if count() != 0 {
			t.Fatal("the lease did not expire")
		}
	})
}
