// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/registry"
)

func picker(t testing.TB, n *coterie.Node, opts ...registry.PickerOption) *registry.Picker {
	t.Helper()
	p, err := registry.NewPicker(t.Context(), n, service, opts...)
	require.NoError(t, err)
	return p
}

// pick picks many times, and returns how often each instance came.
func pick(t testing.TB, p *registry.Picker, times int, tried ...string) map[string]int {
	t.Helper()
	found := map[string]int{}
	for range times {
		c, err := p.Pick(tried...)
		require.NoError(t, err)
		found[c.ID]++
		c.Done()
	}
	return found
}

func TestPickerFollowsInstances(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		p := picker(t, n)
		_, err := p.Pick()
		require.ErrorIs(t, err, registry.ErrNoInstance)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, p.Wait(ctx), context.DeadlineExceeded)
		register(t, n, instance("a"))
		require.NoError(t, p.Wait(t.Context()))
		b := register(t, n, instance("b"))
		register(t, n, instance("c"))
		synctest.Wait()
		require.Equal(t, map[string]int{"a": 10, "b": 10, "c": 10}, pick(t, p, 30))
		require.Equal(t, map[string]int{"c": 9}, pick(t, p, 9, "a", "b"))
		_, err = p.Pick("c", "b", "a")
		require.ErrorIs(t, err, registry.ErrNoInstance)
		b.Close()
		synctest.Wait()
		require.Equal(t, map[string]int{"a": 15, "c": 15}, pick(t, p, 30))
		require.Equal(t, []registry.Instance{instance("a"), instance("c")}, p.Instances())
		_, err = registry.NewPicker(t.Context(), n, service, registry.WithPolicy(9))
		require.ErrorIs(t, err, coterie.ErrInvalidOption)
	})
}

func TestPolicies(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		for _, i := range []registry.Instance{
			{ID: "a", Addr: "a:80", Zone: "near", Weight: 6, Load: 3},
			{ID: "b", Addr: "b:80", Zone: "near", Weight: 3, Load: 2},
			{ID: "c", Addr: "c:80", Zone: "far", Load: 1},
		} {
			register(t, n, i)
		}
		weighted := pick(t, picker(t, n, registry.WithPolicy(registry.Weighted)), 10000)
		require.InDelta(t, 6000, weighted["a"], 500)
		require.InDelta(t, 3000, weighted["b"], 500)
		require.InDelta(t, 1000, weighted["c"], 300)

		// The policy takes the better of two that it draws: the best of three in two of three cases, and the
		// worst never.
		loaded := pick(t, picker(t, n, registry.WithPolicy(registry.LeastLoaded)), 9000)
		require.InDelta(t, 6000, loaded["c"], 500)
		require.InDelta(t, 3000, loaded["b"], 500)
		require.Zero(t, loaded["a"])

		zone := picker(t, n, registry.WithPreferredZone("near"))
		require.Equal(t, map[string]int{"a": 10, "b": 10}, pick(t, zone, 20))
		require.Equal(t, map[string]int{"c": 1}, pick(t, zone, 1, "a", "b"), "another zone only if all of this one were tried")
		require.Equal(t, map[string]int{"a": 3, "b": 3, "c": 3}, pick(t, picker(t, n, registry.WithPreferredZone("none")), 9))

		busy := picker(t, n, registry.WithPolicy(registry.LeastInFlight))
		held := map[string]int{}
		for range 1000 {
			choice, err := busy.Pick()
			require.NoError(t, err)
			held[choice.ID]++
		}
		require.InDelta(t, 600, held["a"], 20)
		require.InDelta(t, 300, held["b"], 20)
		require.InDelta(t, 100, held["c"], 20)
		// A new list keeps the counts of picks in flight.
		register(t, n, instance("d"))
		synctest.Wait()
		require.Greater(t, pick(t, busy, 900)["d"], 400)
	})
}

func TestPickerWithoutZoneUsesAll(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		near := instance("near")
		near.Zone = "eu-1"
		register(t, n, instance("anywhere"))
		register(t, n, near)
		require.Equal(t, map[string]int{"anywhere": 5, "near": 5}, pick(t, picker(t, n), 10))
	})
}

// One instance with an absurd weight must not break the Pickers of others.
func TestHugeWeightsDoNotOverflow(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		for _, id := range []string{"a", "b", "c"} {
			heavy := instance(id)
			heavy.Weight = math.MaxInt
			register(t, n, heavy)
		}
		require.Len(t, pick(t, picker(t, n, registry.WithPolicy(registry.Weighted)), 1000), 3)
	})
}

func TestQuorumLossKeepsTheList(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for i := range 3 {
			register(t, c.Node(i), instance(fmt.Sprint(i)))
		}
		c.WaitRevision(c.Leader().Status().Revision)
		p := picker(t, c.Node(0))
		c.Partition([]int{0}, []int{1}, []int{2})
		for range 3 {
			time.Sleep(10 * time.Minute)
			require.Equal(t, map[string]int{"0": 1, "1": 1, "2": 1}, pick(t, p, 3))
			late := picker(t, c.Node(1)) // starts without a quorum
			require.Equal(t, map[string]int{"0": 1, "1": 1, "2": 1}, pick(t, late, 3))
		}
		// The quorum returns, and no instance was removed meanwhile.
		fewest := 3
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for instances, err := range registry.Follow(ctx, c.Node(0), service) {
				if err == nil {
					fewest = min(fewest, len(instances))
				}
			}
		}()
		c.Heal()
		c.Leader()
		time.Sleep(time.Minute)
		cancel()
		synctest.Wait()
		require.Equal(t, 3, fewest)

		c.Stop(0)
		<-p.Done()
		require.Len(t, pick(t, p, 3), 3, "the last list stays")
	})
}

func BenchmarkPick(b *testing.B) {
	n, err := coterie.Open(b.Context(), coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	defer n.Close()
	for i := range 10 {
		r := register(b, n, registry.Instance{ID: fmt.Sprint(i), Addr: "a:80", Weight: 1 + i})
		defer r.Close()
	}
	for name, policy := range map[string]registry.Policy{
		"RoundRobin": registry.RoundRobin, "Weighted": registry.Weighted, "LeastLoaded": registry.LeastLoaded,
		"LeastInFlight": registry.LeastInFlight,
	} {
		p := picker(b, n, registry.WithPolicy(policy))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c, err := p.Pick()
					if err != nil {
						b.Error(err)
					}
					c.Done()
				}
			})
		})
	}
}

func TestStaticPickerUsesItsList(t *testing.T) {
	a, b, c := instance("a"), instance("b"), instance("c")
	given := []registry.Instance{c, a, b}
	p, err := registry.NewStaticPicker(given)
	require.NoError(t, err)
	require.NoError(t, p.Wait(t.Context()))
	require.Nil(t, p.Done())
	require.Equal(t, []registry.Instance{c, a, b}, given, "the caller's list is unchanged")
	require.Equal(t, []registry.Instance{a, b, c}, p.Instances())
	require.Equal(t, map[string]int{"a": 2, "b": 1, "c": 1}, pick(t, p, 4))
	require.Equal(t, map[string]int{"b": 1}, pick(t, p.WithInstances(given), 1), "the turn continues")

	none := p.WithInstances(nil)
	_, err = none.Pick()
	require.ErrorIs(t, err, registry.ErrNoInstance)
	_, err = registry.NewStaticPicker(nil, registry.WithPolicy(9))
	require.ErrorIs(t, err, coterie.ErrInvalidOption)

	zoned, err := registry.NewStaticPicker(nil, registry.WithPreferredZone("near"))
	require.NoError(t, err)
	near := registry.Instance{ID: "d", Addr: "d:80", Zone: "near"}
	require.Equal(t, map[string]int{"d": 3}, pick(t, zoned.WithInstances(append(given, near)), 3))
}

func TestInFlightCountSurvivesNewList(t *testing.T) {
	a, b := instance("a"), instance("b")
	p, err := registry.NewStaticPicker([]registry.Instance{a}, registry.WithPolicy(registry.LeastInFlight))
	require.NoError(t, err)
	busy, err := p.Pick()
	require.NoError(t, err)
	both := p.WithInstances([]registry.Instance{b, a})
	require.Equal(t, map[string]int{"b": 20}, pick(t, both, 20))
	busy.Done()
	held, err := both.Pick("a")
	require.NoError(t, err)
	require.Equal(t, map[string]int{"a": 20}, pick(t, both, 20))
	held.Done()
}

// WithoutSelf works with every policy.
func TestWithoutSelfExcludesInstance(t *testing.T) {
	all := []registry.Instance{{ID: "a", Zone: "z"}, {ID: "b"}, {ID: "c"}}
	for _, policy := range []registry.Policy{registry.RoundRobin, registry.Weighted, registry.LeastLoaded, registry.LeastInFlight} {
		p, err := registry.NewStaticPicker(all, registry.WithPolicy(policy), registry.WithPreferredZone("z"), registry.WithoutSelf("a"))
		require.NoError(t, err)
		for _, p := range []*registry.Picker{p, p.WithInstances(all)} {
			for range 100 {
				c, err := p.Pick()
				require.NoError(t, err)
				require.NotEqual(t, "a", c.ID)
			}
			require.Len(t, p.Instances(), 2)
		}
		_, err = p.WithInstances(all[:1]).Pick()
		require.ErrorIs(t, err, registry.ErrNoInstance)
	}
	p, err := registry.NewStaticPicker([]registry.Instance{{Addr: "a:80"}})
	require.NoError(t, err)
	_, err = p.Pick()
	require.NoError(t, err, "no instance is excluded by default")
}

// A ctx bounds NewPicker alone. Close and the node end the Picker, and the last list stays.
func TestPickerOutlivesItsContext(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		reason := errors.New("stop")
		ended, end := context.WithCancelCause(t.Context())
		end(reason)
		watchers := n.Status().Watchers
		_, err := registry.NewPicker(ended, n, service)
		require.ErrorIs(t, err, reason)
		synctest.Wait()
		require.Equal(t, watchers, n.Status().Watchers)

		ctx, cancel := context.WithCancel(t.Context())
		closed, err := registry.NewPicker(ctx, n, service)
		require.NoError(t, err)
		stopped, err := registry.NewPicker(ctx, n, service)
		require.NoError(t, err)
		cancel()
		time.Sleep(time.Minute)
		a := register(t, n, instance("a"))
		synctest.Wait()
		for _, p := range []*registry.Picker{closed, stopped} {
			require.Equal(t, map[string]int{"a": 3}, pick(t, p, 3))
		}

		closed.Close()
		closed.Close()
		<-closed.Done()
		a.Close()
		synctest.Wait()
		require.Equal(t, map[string]int{"a": 3}, pick(t, closed, 3), "the last list stays")
		_, err = stopped.Pick()
		require.ErrorIs(t, err, registry.ErrNoInstance)
		waiting := make(chan error, 1)
		go func() { waiting <- stopped.Wait(t.Context()) }()
		synctest.Wait()
		c.Stop(0)
		require.ErrorIs(t, <-waiting, coterie.ErrClosed)
		stopped.Close()

		static, err := registry.NewStaticPicker([]registry.Instance{instance("a")})
		require.NoError(t, err)
		static.Close()
		require.Equal(t, map[string]int{"a": 3}, pick(t, static, 3))
	})
}
