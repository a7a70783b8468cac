// SPDX-License-Identifier: Apache-2.0

package grpcresolver_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/grpcresolver"
	"github.com/coterie-kv/coterie/registry"
)

func TestMain(m *testing.M) {
	balancer.Register(grpcresolver.NewBalancer())
	os.Exit(m.Run())
}

// differentInstances returns instances that differ in every field.
func differentInstances() []registry.Instance {
	return []registry.Instance{
		{ID: "a", Addr: "a:80", Zone: "near", Weight: 6, Load: 3},
		{ID: "b", Addr: "b:80", Zone: "near", Weight: 3, Load: 2},
		{ID: "c", Addr: "c:80", Zone: "far", Load: 1},
	}
}

func TestBalancerPolicies(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		w.serveAll(t, "a", "b", "c")
		for _, i := range differentInstances() {
			register(t, c.Node(0), i)
		}
		answers := func(config string, times int) map[string]int {
			conn := w.client(t, c.Node(0), target, balancerConfig(config))
			connect(conn)
			return calls(t, conn, times)
		}
		require.Equal(t, map[string]int{"a": 5, "b": 5, "c": 5}, answers(`{}`, 15))
		require.Equal(t, map[string]int{"a": 5, "b": 5}, answers(`{"zone": "near", "unknown": 1}`, 10))
		require.Equal(t, map[string]int{"a": 2, "b": 2, "c": 2}, answers(`{"zone": "nowhere"}`, 6))
		weighted := answers(`{"policy": "weighted"}`, 2000)
		require.InDelta(t, 1200, weighted["a"], 200)
		require.InDelta(t, 600, weighted["b"], 200)
		require.InDelta(t, 200, weighted["c"], 100)
		loaded := answers(`{"policy": "least_loaded"}`, 900)
		require.InDelta(t, 600, loaded["c"], 150)
		require.Zero(t, loaded["a"])
	})
}

func TestBalancerUsesReportedLoad(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		w.serveAll(t, "a", "b")
		a, b := instance("a"), instance("b")
		a.Load = 1
		register(t, c.Node(0), a)
		r := register(t, c.Node(0), b)
		conn := w.client(t, c.Node(0), target, balancerConfig(`{"policy": "least_loaded"}`))
		connect(conn)
		require.Equal(t, map[string]int{"b": 10}, calls(t, conn, 10))
		b.Load = 2
		require.NoError(t, r.Update(b))
		synctest.Wait()
		require.Equal(t, map[string]int{"a": 10}, calls(t, conn, 10))
	})
}

func TestOtherZonesOnlyIfPreferredIsDown(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		w.serveAll(t, "c")
		a, _ := w.serve(t, "a", func(context.Context) {})
		for _, i := range differentInstances() { // no server runs for b
			register(t, c.Node(0), i)
		}
		conn := w.client(t, c.Node(0), target, balancerConfig(`{"zone": "near"}`))
		connect(conn)
		require.Equal(t, map[string]int{"a": 10}, calls(t, conn, 10))
		w.kill("a", a)
		synctest.Wait()
		require.Equal(t, map[string]int{"c": 10}, calls(t, conn, 10))
		w.serveAll(t, "b")
		time.Sleep(5 * time.Minute) // gRPC has connected again
		require.Equal(t, map[string]int{"b": 10}, calls(t, conn, 10))
	})
}

func TestBalancerLeastInFlight(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		over := make(chan struct{})
		w.serve(t, "slow", func(context.Context) { <-over })
		w.serveAll(t, "b", "c")
		register(t, c.Node(0), instance("slow"))
		conn := w.client(t, c.Node(0), target, balancerConfig(`{"policy": "least_in_flight"}`))
		connect(conn)
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if _, err := call(t, conn); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		register(t, c.Node(0), instance("b"))
		synctest.Wait()
		require.Equal(t, map[string]int{"b": 20}, calls(t, conn, 20), "a new list keeps the counts of calls in flight")
		register(t, c.Node(0), instance("c"))
		synctest.Wait()
		answered := calls(t, conn, 60)
		require.Zero(t, answered["slow"])
		require.Len(t, answered, 2)
		close(over)
		waiting.Wait()
		require.Len(t, calls(t, conn, 200), 3, "the slow instance has nothing in flight")
	})
}

// A call that ends with an error is no longer in flight.
func TestFailedCallIsNotInFlight(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		over := make(chan struct{})
		w.serve(t, "a", func(context.Context) { <-over })
		w.serveAll(t, "b")
		register(t, c.Node(0), instance("a"))
		conn := w.client(t, c.Node(0), target, balancerConfig(`{"policy": "least_in_flight"}`))
		_, err := call(t, conn) // after a minute
		require.Equal(t, codes.DeadlineExceeded, status.Code(err))
		close(over)
		register(t, c.Node(0), instance("b"))
		synctest.Wait()
		require.Len(t, calls(t, conn, 200), 2)
	})
}

func TestUnreachableInstanceFailsNoCall(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		w := newNetwork()
		w.serveAll(t, "a")
		register(t, c.Node(0), instance("absent"))
		conn := w.client(t, c.Node(0), target, balancerConfig(`{}`))
		_, err := call(t, conn)
		require.Equal(t, codes.Unavailable, status.Code(err))
		require.ErrorContains(t, err, "no server at absent:80")
		register(t, c.Node(0), instance("a"))
		synctest.Wait()
		require.Equal(t, map[string]int{"a": 10}, calls(t, conn, 10))
	})
}

func TestBalancerWithoutInstances(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		_, err := call(t, newNetwork().client(t, c.Node(0), target, balancerConfig(`{}`)))
		require.ErrorContains(t, err, registry.ErrNoInstance.Error())
	})
}

func TestBalancerConfigIsChecked(t *testing.T) {
	for config, reason := range map[string]string{
		`{"policy": "best"}`: `unknown policy "best"`,
		`{"zone": 1}`:        "config of the balancer",
	} {
		_, err := grpc.NewClient("passthrough:///a",
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(balancerConfig(config)))
		require.ErrorContains(t, err, reason)
	}
}

func TestCallsReportTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := manual.NewBuilderWithScheme("other")
		other.InitialState(resolver.State{})
		conn := newNetwork().client(t, nil, "other:///x", balancerConfig(`{}`), grpc.WithResolvers(other))
		connect(conn)
		reason := func() string {
			_, err := call(t, conn)
			require.Equal(t, codes.Unavailable, status.Code(err))
			return status.Convert(err).Message()
		}
		require.Equal(t, registry.ErrNoInstance.Error(), reason())
		other.CC().ReportError(errors.New("broken"))
		synctest.Wait()
		require.Equal(t, "broken", reason())
		_ = other.CC().UpdateState(resolver.State{})
		synctest.Wait()
		require.Equal(t, registry.ErrNoInstance.Error(), reason())
	})
}

// Other resolvers, such as gRPC's own for proxies, give addresses without instances.
func TestBalancerWithOtherResolvers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newNetwork()
		w.serveAll(t, "a", "b")
		other := manual.NewBuilderWithScheme("other")
		other.InitialState(resolver.State{Endpoints: []resolver.Endpoint{
			{Addresses: []resolver.Address{{Addr: "a:80"}}}, {Addresses: []resolver.Address{{Addr: "b:80"}}},
		}})
		conn := w.client(t, nil, "other:///x", balancerConfig(`{}`), grpc.WithResolvers(other))
		connect(conn)
		require.Equal(t, map[string]int{"a": 5, "b": 5}, calls(t, conn, 10))
	})
}
