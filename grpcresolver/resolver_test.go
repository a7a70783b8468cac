// SPDX-License-Identifier: Apache-2.0

package grpcresolver_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/health" // clients check the health of servers
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/grpcresolver"
	"github.com/coterie-kv/coterie/registry"
)

func TestCallsFollowInstances(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		w.serveAll(t, "a", "b", "c")
		register(t, c.Node(0), instance("a"))
		b := register(t, c.Node(1), instance("b"))
		conn := w.client(t, c.Follower(), target, roundRobin)
		connect(conn)
		time.Sleep(time.Second) // until the node has applied the registrations
		require.Equal(t, map[string]int{"a": 5, "b": 5}, calls(t, conn, 10))

		begin := time.Now()
		register(t, c.Node(2), instance("c"))
		time.Sleep(100 * time.Millisecond)
		require.Equal(t, map[string]int{"a": 3, "b": 3, "c": 3}, calls(t, conn, 9))
		b.Close()
		time.Sleep(100 * time.Millisecond)
		require.Equal(t, map[string]int{"a": 3, "c": 3}, calls(t, conn, 6))
		require.Less(t, time.Since(begin), 5*time.Second)
	})
}

// An instance that crashes gets no more calls, because its connection breaks. It leaves the list when its lease
// expires.
func TestDeadInstanceGetsNoCalls(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		w.serveAll(t, "b")
		server, _ := w.serve(t, "a", func(context.Context) {})
		follower := c.Index(c.Follower())
		register(t, c.Node(follower), instance("a"))
		n := c.Node((follower + 1) % 3)
		register(t, n, instance("b"))
		conn := w.client(t, n, target, roundRobin)
		connect(conn)
		time.Sleep(time.Second)
		require.Equal(t, map[string]int{"a": 5, "b": 5}, calls(t, conn, 10))
		w.kill("a", server)
		c.Crash(follower)
		synctest.Wait()
		require.Equal(t, map[string]int{"b": 10}, calls(t, conn, 10))
		dials := w.dials("a:80")
		time.Sleep(time.Minute)
		found, err := registry.Resolve(t.Context(), n, service)
		require.NoError(t, err)
		require.Len(t, found, 1)
		require.Greater(t, w.dials("a:80"), dials, "gRPC dials it while it is listed")
		dials = w.dials("a:80")
		time.Sleep(10 * time.Minute)
		require.Equal(t, dials, w.dials("a:80"), "and not later")
		c.Restart(follower)
	})
}

func TestCallsContinueWithoutQuorum(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		w.serveAll(t, "a", "b", "c")
		n := c.Node(0)
		register(t, n, instance("a"))
		register(t, n, instance("b"))
		before := w.client(t, n, target, roundRobin)
		connect(before)
		require.Equal(t, map[string]int{"a": 5, "b": 5}, calls(t, before, 10))
		c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(10 * time.Minute) // every lease is due, and cannot expire without a quorum
		require.Equal(t, map[string]int{"a": 5, "b": 5}, calls(t, before, 10))
		// A new client starts with the list of its node.
		during := w.client(t, n, target, roundRobin)
		connect(during)
		require.Equal(t, map[string]int{"a": 5, "b": 5}, calls(t, during, 10))
		c.Heal()
		c.Leader()
		register(t, n, instance("c"))
		time.Sleep(2 * time.Second)
		for _, conn := range []*grpc.ClientConn{before, during} {
			require.Equal(t, map[string]int{"a": 4, "b": 4, "c": 4}, calls(t, conn, 12))
		}
	})
}

func TestCallsContinueDuringLeaderChange(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		w.serveAll(t, "a", "b", "c")
		leader := c.Index(c.Leader())
		n := c.Node((leader + 1) % 3)
		register(t, n, instance("a"))
		register(t, n, instance("b"))
		conn := w.client(t, n, target, roundRobin)
		connect(conn)
		c.Pause(leader)
		for range 100 {
			calls(t, conn, 1)
			time.Sleep(100 * time.Millisecond)
		}
		register(t, n, instance("c"))
		synctest.Wait()
		require.Equal(t, map[string]int{"a": 2, "b": 2, "c": 2}, calls(t, conn, 6))
		c.Resume(leader)
	})
}

func TestCallsToEmptyService(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		for i, config := range []string{roundRobin, balancerConfig(`{}`), `{}`} {
			w := newNetwork()
			id := fmt.Sprint("a", i)
			w.serveAll(t, id)
			conn := w.client(t, c.Node(0), target, config)
			begin := time.Now()
			_, err := call(t, conn)
			require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
			require.Less(t, time.Since(begin), time.Second)

			answered := make(chan string, 1)
			go func() {
				got, err := call(t, conn, grpc.WaitForReady(true))
				answered <- fmt.Sprint(got, err)
			}()
			time.Sleep(30 * time.Second)
			require.Empty(t, answered)
			r := register(t, c.Node(0), instance(id))
			require.Equal(t, id+"<nil>", <-answered)
			r.Close()
			synctest.Wait()
			_, err = call(t, conn)
			require.Equal(t, codes.Unavailable, status.Code(err), "no instance is left: %v", err)
		}
	})
}

// Calls must not hang when a node has just started and cannot reach the cluster.
func TestCallsFailIfClusterIsSilent(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		w.serveAll(t, "a")
		c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(10 * time.Second)
		conn := w.client(t, c.Node(0), target, balancerConfig(`{}`))
		begin := time.Now()
		_, err := call(t, conn)
		require.Equal(t, codes.Unavailable, status.Code(err))
		require.ErrorContains(t, err, "no instance of services/orders is known")
		require.Equal(t, 5*time.Second, time.Since(begin))
		c.Heal()
		register(t, c.Leader(), instance("a"))
		time.Sleep(10 * time.Second)
		require.Equal(t, map[string]int{"a": 3}, calls(t, conn, 3))
	})
}

func TestFirstCallWaitsForCluster(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		w.serveAll(t, "a")
		leader := c.Index(c.Leader())
		cut := (leader + 1) % 3
		c.Partition([]int{cut}, []int{leader, (leader + 2) % 3})
		register(t, c.Node(leader), instance("a"))
		conn := w.client(t, c.Node(cut), target, roundRobin)
		connect(conn)
		time.AfterFunc(2*time.Second, c.Heal)
		require.Equal(t, map[string]int{"a": 1}, calls(t, conn, 1), "the client does not get an empty list first")
	})
}

func TestClosedNodeKeepsTheLastList(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		for _, config := range []string{roundRobin, balancerConfig(`{}`)} {
			w := newNetwork()
			w.serveAll(t, "a", "b")
			r, s := register(t, c.Node(0), instance("a")), register(t, c.Node(0), instance("b"))
			conn, unused := w.client(t, c.Node(0), target, config), w.client(t, c.Node(0), target, config)
			connect(conn)
			c.Stop(0)
			synctest.Wait()
			require.Equal(t, map[string]int{"a": 5, "b": 5}, calls(t, conn, 10))
			_, err := call(t, unused)
			require.Equal(t, codes.Unavailable, status.Code(err))
			require.ErrorContains(t, err, coterie.ErrClosed.Error())
			r.Close()
			s.Close()
			c.Restart(0)
		}
	})
}

func TestInvalidTargetsAreRejected(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		for target, reason := range map[string]string{
			"coterie:///":                      "is empty",
			"coterie://services/orders":        "three slashes",
			"coterie:///services/orders?zone=": "query",
			"coterie:///services/orders#a":     "fragment",
		} {
			_, err := call(t, w.client(t, c.Node(0), target, roundRobin))
			require.Equal(t, codes.Unavailable, status.Code(err), target)
			require.ErrorContains(t, err, grpcresolver.ErrInvalidTarget.Error())
			require.ErrorContains(t, err, reason)
		}
	})
}

// gRPC builds resolvers in its own goroutines, where a panic would end the program.
func TestResolverWithoutNode(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		_, err := call(t, newNetwork().client(t, nil, "coterie:///services/orders", roundRobin))
		require.Equal(t, codes.Unavailable, status.Code(err))
		require.ErrorContains(t, err, "no node")
	})
}

func TestServiceNamesInTargets(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		w.serveAll(t, "a")
		for target, service := range map[string]string{
			"coterie:///orders":          "orders",
			"coterie:orders":             "orders",
			"coterie:////orders":         "/orders",
			"coterie:///orders/":         "orders/",
			"coterie:///what%3F/a%20b/ü": "what?/a b/ü",
		} {
			r, err := registry.Register(t.Context(), c.Node(0), service, instance("a"))
			require.NoError(t, err)
			require.Equal(t, map[string]int{"a": 1}, calls(t, w.client(t, c.Node(0), target, roundRobin), 1), target)
			r.Close()
		}
	})
}

// A connection outlives each change of its instance, except of the address.
func TestUpdateKeepsTheConnection(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		for i, config := range []string{roundRobin, balancerConfig(`{}`), `{}`} {
			w := newNetwork()
			id := fmt.Sprint("a", i)
			w.serveAll(t, id)
			r := register(t, c.Node(0), instance(id))
			conn := w.client(t, c.Node(0), target, config)
			calls(t, conn, 1)
			for load := range 10 {
				changed := instance(id)
				changed.Load, changed.Weight, changed.Metadata = float64(load), load, map[string]string{"k": fmt.Sprint(load)}
				require.NoError(t, r.Update(changed))
				synctest.Wait()
				calls(t, conn, 1)
			}
			require.Equal(t, 1, w.dials(id+":80"))
			r.Close()
		}
	})
}

func TestUnhealthyInstanceGetsNoCalls(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		for _, policy := range []string{"round_robin", "coterie"} {
			w := newNetwork()
			w.serveAll(t, "b")
			_, health := w.serve(t, "a", func(context.Context) {})
			r, s := register(t, c.Node(0), instance("a")), register(t, c.Node(0), instance("b"))
			conn := w.client(t, c.Node(0), target,
				`{"healthCheckConfig": {"serviceName": ""}, "loadBalancingConfig": [{"`+policy+`": {}}]}`)
			connect(conn)
			require.Equal(t, map[string]int{"a": 5, "b": 5}, calls(t, conn, 10), policy)
			health.Shutdown()
			synctest.Wait()
			require.Equal(t, map[string]int{"b": 10}, calls(t, conn, 10), policy)
			r.Close()
			s.Close()
		}
	})
}

// gRPC closes the resolver of an idle client, and builds another one for the next call.
func TestClientReturnsFromIdleness(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		w.serveAll(t, "a", "b")
		register(t, c.Node(0), instance("a"))
		conn := w.client(t, c.Node(0), target, roundRobin, grpc.WithIdleTimeout(time.Minute))
		calls(t, conn, 1)
		synctest.Wait() // until the resolver watches
		watches := c.Node(0).Status().Watchers
		time.Sleep(2 * time.Minute)
		require.Equal(t, watches-1, c.Node(0).Status().Watchers)
		register(t, c.Node(0), instance("b"))
		connect(conn)
		require.Equal(t, map[string]int{"a": 3, "b": 3}, calls(t, conn, 6))
	})
}

func TestManyClientsLeaveNoWatches(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		w.serveAll(t, "a", "b", "c")
		for i, id := range []string{"a", "b", "c"} {
			register(t, c.Node(i), instance(id))
		}
		time.Sleep(time.Second)
		var watches [3]int
		for i := range watches {
			watches[i] = c.Node(i).Status().Watchers
		}
		var all sync.WaitGroup
		for i := range 90 {
			all.Go(func() {
				conn := w.client(t, c.Node(i%3), target, []string{roundRobin, balancerConfig(`{"policy": "least_in_flight"}`)}[i%2])
				for range 5 {
					if _, err := call(t, conn); err != nil {
						t.Error(err)
					}
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		// Meanwhile the list keeps changing.
		for range 20 {
			r := register(t, c.Node(0), instance("elsewhere"))
			time.Sleep(10 * time.Millisecond)
			r.Close()
		}
		all.Wait()
		synctest.Wait()
		for i := range watches {
			require.Equal(t, watches[i], c.Node(i).Status().Watchers)
		}
	})
}
