// SPDX-License-Identifier: Apache-2.0

package grpcresolver_test

import (
	"math"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/experimental/balancer/weight"
	"google.golang.org/grpc/resolver"

	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/grpcresolver"
	"github.com/coterie-kv/coterie/registry"
)

// A recorder records the calls of a resolver.
type recorder struct {
	resolver.ClientConn
	states []resolver.State
	errs   []error
}

func (h *recorder) UpdateState(s resolver.State) error {
	h.states = append(h.states, s)
	return nil
}

func (h *recorder) ReportError(err error) { h.errs = append(h.errs, err) }

func (h *recorder) last() resolver.State { return h.states[len(h.states)-1] }

// resolve starts to resolve the service, and waits until the resolver is idle.
func resolve(t *testing.T, b resolver.Builder) (resolver.Resolver, *recorder) {
	t.Helper()
	h := &recorder{}
	var target resolver.Target
	target.URL.Scheme, target.URL.Path = b.Scheme(), "/"+service
	r, err := b.Build(target, h, resolver.BuildOptions{})
	require.NoError(t, err)
	synctest.Wait()
	return r, h
}

func TestInstanceFromEndpoint(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		full := registry.Instance{
			ID: "a", Addr: "a:80", Zone: "z", Weight: 2, Load: 0.5, Metadata: map[string]string{"k": "v"},
		}
		a := register(t, c.Node(0), full)
		b := register(t, c.Node(0), instance("b"))
		r, h := resolve(t, grpcresolver.New(c.Node(0)))
		first := h.last()
		require.Len(t, first.Endpoints, 2)
		require.Equal(t, []resolver.Address{{Addr: "a:80"}, {Addr: "b:80"}}, first.Addresses)
		for i, want := range []registry.Instance{full, instance("b")} {
			e := first.Endpoints[i]
			require.Equal(t, []resolver.Address{{Addr: want.Addr}}, e.Addresses)
			got, ok := grpcresolver.InstanceFromEndpoint(e)
			require.True(t, ok)
			require.Equal(t, want, got)
			require.EqualValues(t, max(want.Weight, 1), weight.FromEndpoint(e).Weight)
			require.Contains(t, e.Attributes.String(), want.ID+" at "+want.Addr)
		}
		_, ok := grpcresolver.InstanceFromEndpoint(resolver.Endpoint{})
		require.False(t, ok)

		full.Metadata = map[string]string{"k": "w"}
		require.NoError(t, a.Update(full))
		synctest.Wait()
		second := h.last()
		require.False(t, first.Endpoints[0].Attributes.Equal(second.Endpoints[0].Attributes))
		require.True(t, first.Endpoints[1].Attributes.Equal(second.Endpoints[1].Attributes))

		huge := instance("b")
		full.Weight, huge.Weight = math.MaxInt, math.MaxInt
		require.NoError(t, a.Update(full))
		require.NoError(t, b.Update(huge))
		synctest.Wait()
		sum := uint64(0)
		for _, e := range h.last().Endpoints {
			sum += uint64(weight.FromEndpoint(e).Weight)
		}
		require.LessOrEqual(t, sum, uint64(math.MaxUint32), "the sum of the weights fits in 32 bits")
		r.Close()
	})
}

func TestResolverClose(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		watchers := c.Node(0).Status().Watchers
		r, h := resolve(t, grpcresolver.New(c.Node(0)))
		require.Equal(t, watchers+1, c.Node(0).Status().Watchers)
		require.Len(t, h.states, 1, "an empty list")
		require.Empty(t, h.last().Endpoints)
		r.ResolveNow(resolver.ResolveNowOptions{})
		r.Close()
		require.Equal(t, watchers, c.Node(0).Status().Watchers, "Close has waited")
		register(t, c.Node(0), instance("a"))
		require.Len(t, h.states, 1)
		require.Empty(t, h.errs, "Close is not an error")
	})
}

func TestResolverReportsClosedNode(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		registration := register(t, c.Node(0), instance("a"))
		r, h := resolve(t, grpcresolver.New(c.Node(0)))
		c.Stop(0)
		synctest.Wait()
		require.Len(t, h.errs, 1)
		require.Len(t, h.last().Endpoints, 1)
		r.Close()
		registration.Close()
	})
}
