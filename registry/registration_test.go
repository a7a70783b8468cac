// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/registry"
)

const service = "services/orders"

func instance(id string) registry.Instance { return registry.Instance{ID: id, Addr: id + ":80"} }

// register registers an instance until its Close, or until the node closes.
func register(t testing.TB, n *coterie.Node, i registry.Instance, opts ...registry.RegisterOption) *registry.Registration {
	t.Helper()
	r, err := registry.Register(t.Context(), n, service, i, opts...)
	require.NoError(t, err)
	return r
}

// registered returns the IDs of the registered instances.
func registered(t testing.TB, n *coterie.Node) (ids string) {
	t.Helper()
	found, err := registry.Resolve(t.Context(), n, service)
	require.NoError(t, err)
	for _, i := range found {
		ids += i.ID
	}
	return ids
}

// eventually waits, in virtual time, until the registered instances are those of ids, and returns how long that
// took.
func eventually(t testing.TB, n *coterie.Node, ids string) time.Duration {
	t.Helper()
	begin := time.Now()
	for registered(t, n) != ids {
		require.Less(t, time.Since(begin), time.Minute, "%q are registered, not %q", registered(t, n), ids)
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(begin)
}

func TestInstanceListedUntilClose(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		next, stop := iter.Pull2(registry.Follow(t.Context(), c.Node(0), service))
		defer stop()
		list := func() []registry.Instance {
			t.Helper()
			l, err, ok := next()
			require.True(t, ok)
			require.NoError(t, err)
			return l
		}
		require.Empty(t, list())
		full := registry.Instance{
			ID: "a", Addr: "a:80", Zone: "z", Weight: 2, Load: 0.5, Metadata: map[string]string{"version": "7"},
		}
		a := register(t, c.Node(1), full)
		require.Equal(t, []registry.Instance{full}, list())
		b := register(t, c.Node(2), instance("b"))
		require.Equal(t, []registry.Instance{full, instance("b")}, list())
		_, err := c.Node(0).Put(t.Context(), service+"/x", "no instance")
		require.NoError(t, err)
		require.Len(t, list(), 2)

		time.Sleep(time.Minute)
		writes := c.Node(0).Status().Revision
		time.Sleep(10 * time.Minute)
		require.Equal(t, writes, c.Node(0).Status().Revision, "renewals are not writes")
		full.Load = 7
		require.NoError(t, a.Update(full))
		require.Equal(t, full, list()[0])
		require.ErrorIs(t, a.Update(instance("other")), coterie.ErrInvalidOption)

		begin := time.Now()
		a.Close()
		require.Equal(t, []registry.Instance{instance("b")}, list())
		<-a.Done()
		b.Close()
		b.Close()
		require.Empty(t, list())
		require.Zero(t, time.Since(begin).Truncate(100*time.Millisecond), "at once")
		require.ErrorIs(t, a.Err(), coterie.ErrClosed)
		require.EqualError(t, a.Err(), "registry: the registration is closed: coterie: closed")
		require.ErrorIs(t, b.Err(), coterie.ErrClosed)
		require.ErrorIs(t, b.Update(instance("b")), coterie.ErrClosed)
		require.EqualError(t, b.Update(instance("b")), "registry: the registration is closed: coterie: closed")
		require.Zero(t, c.Node(0).Status().Leases)
	})
}

func TestCrashedInstanceExpiresAfterTTL(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		crashed := c.Index(c.Follower())
		register(t, c.Node(crashed), instance("a"), registry.WithTTL(10*time.Second))
		c.Crash(crashed)
		left := c.Leader()
		took := eventually(t, left, "")
		require.InDelta(t, 10*time.Second, took, float64(4*time.Second))
		c.Restart(crashed)
		c.Leader()

		// A process that restarts before its lease has expired replaces its old registration.
		register(t, c.Node(crashed), instance("a"))
		c.Crash(crashed)
		c.Restart(crashed)
		c.Leader()
		require.Equal(t, "a", registered(t, c.Node(crashed)))
		begin := time.Now()
		r := register(t, c.Node(crashed), instance("a"))
		require.Less(t, time.Since(begin), time.Second)
		time.Sleep(time.Minute) // the old lease expires
		require.Equal(t, "a", registered(t, left))
		require.NoError(t, r.Err())
	})
}

// Instances are registered again after an outage of any length, whether their leases survived it or not.
func TestInstancesReturnAfterOutage(t *testing.T) {
	longest := time.Hour
	if testing.Short() {
		longest = time.Minute
	}
	for _, outage := range []time.Duration{5 * time.Second, 20 * time.Second, longest} {
		t.Run(outage.String(), func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				var all []*registry.Registration
				for i := range 3 {
					all = append(all, register(t, c.Node(i), instance(fmt.Sprint(i))))
				}
				// No node has a quorum.
				c.Partition([]int{0}, []int{1}, []int{2})
				time.Sleep(outage)
				c.Heal()
				leader := c.Leader()
				time.Sleep(time.Second)
				require.Equal(t, "012", registered(t, leader))
				for _, r := range all {
					require.NoError(t, r.Err())
				}

				// One node is cut off for longer than its lease.
				cut := c.Index(c.Follower())
				c.Pause(cut)
				time.Sleep(outage)
				leader = c.Leader()
				if outage > 15*time.Second {
					require.NotContains(t, registered(t, leader), fmt.Sprint(cut))
					require.ErrorIs(t, all[cut].Err(), coterie.ErrSessionExpired)
				}
				c.Resume(cut)
				require.NoError(t, c.Node(cut).Ready(t.Context()))
				time.Sleep(time.Second)
				require.Equal(t, "012", registered(t, leader))

				// All nodes crash and keep their disks. The Registrations end, as in a crashed process.
				for i := range 3 {
					c.Crash(i)
				}
				time.Sleep(outage)
				for i := range 3 {
					c.Restart(i)
				}
				c.Leader()
				for i := range 3 {
					<-all[i].Done()
					require.ErrorIs(t, all[i].Err(), coterie.ErrClosed)
					register(t, c.Node(i), instance(fmt.Sprint(i)))
				}
				time.Sleep(time.Minute)
				require.Equal(t, "012", registered(t, c.Leader()))
			})
		})
	}
}

func TestDeletedKeyAndLeaseAreRestored(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		r := register(t, n, instance("a"))
		for range 3 {
			_, err := n.Delete(t.Context(), service+"/a")
			require.NoError(t, err)
			synctest.Wait()
			require.Equal(t, "a", registered(t, n))

			all, err := n.Leases(t.Context())
			require.NoError(t, err)
			require.Len(t, all.Leases, 1)
			_, err = n.Revoke(t.Context(), all.Leases[0])
			require.NoError(t, err)
			require.Less(t, eventually(t, n, "a"), time.Second)
			time.Sleep(time.Minute)
			require.Equal(t, "a", registered(t, n))
			require.NoError(t, r.Err())
		}
	})
}

func TestIDHasOneHolder(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		first := register(t, c.Node(0), instance("a"))
		other := registry.Instance{ID: "a", Addr: "elsewhere:80"}
		_, err := registry.Register(t.Context(), c.Node(1), service, other)
		require.ErrorIs(t, err, registry.ErrIDTaken)
		var taken *registry.IDTakenError
		require.ErrorAs(t, err, &taken)
		require.Equal(t, instance("a"), taken.Holder)
		require.Equal(t, 1, c.Leader().Status().Leases, "nothing is left behind")

		second := register(t, c.Node(1), other, registry.WithTakeover())
		c.WaitRevision(c.Leader().Status().Revision)
		for range 10 { // the replaced Registration waits
			synctest.Wait()
			found, err := registry.Resolve(t.Context(), c.Node(0), service)
			require.NoError(t, err)
			require.Equal(t, []registry.Instance{other}, found)
			require.ErrorIs(t, first.Err(), registry.ErrIDTaken)
			require.NoError(t, second.Err())
			other.Load++
			require.NoError(t, second.Update(other))
			require.NoError(t, first.Update(instance("a")))
			time.Sleep(time.Minute)
		}
		second.Close()
		eventually(t, c.Node(0), "a")
		found, err := registry.Resolve(t.Context(), c.Node(0), service)
		require.NoError(t, err)
		require.Equal(t, []registry.Instance{instance("a")}, found)
		require.NoError(t, first.Err())
	})
}

// The holder of an ID may leave at any moment, also when a takeover has just read its key.
func TestTakeoverWhileHolderLeaves(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n, other := c.Follower(), c.Leader()
		for _, i := range []int{0, 1, 2} {
			if i != c.Index(n) {
				c.Delay(i, c.Index(n), 20*time.Millisecond)
			}
		}
		for after := range 30 {
			_, err := other.Put(t.Context(), service+"/a", `{"id":"a","addr":"b:80"}`)
			require.NoError(t, err)
			gone := time.AfterFunc(time.Duration(after)*5*time.Millisecond, func() {
				if _, err := other.Delete(t.Context(), service+"/a"); err != nil {
					t.Error(err)
				}
			})
			r := register(t, n, instance("a"), registry.WithTakeover())
			gone.Stop()
			eventually(t, n, "a")
			r.Close()
		}
	})
}

// Two Registrations with the same ID and address are a mistake. It must not cause a stream of writes.
func TestSameAddressTwiceDoesNotFight(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		first := register(t, c.Node(0), instance("a"))
		second := register(t, c.Node(0), instance("a"))
		time.Sleep(time.Minute)
		writes := c.Node(0).Status().Revision
		time.Sleep(time.Hour)
		require.Equal(t, writes, c.Node(0).Status().Revision)
		require.ErrorIs(t, first.Err(), registry.ErrIDTaken)
		require.NoError(t, second.Err())
	})
}

// Close revokes a lease that no session renews at the moment, after a new leader has restarted its TTL.
func TestCloseDeregistersAfterQuorumLoss(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		r := register(t, c.Node(0), instance("a"))
		c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(time.Minute)
		require.ErrorIs(t, r.Err(), coterie.ErrSessionExpired)
		c.Heal()
		r.Close()
		require.Empty(t, registered(t, c.Node(0)))
	})
}

func TestNestedServiceNamesAreIndependent(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		_, err := registry.Register(t.Context(), n, service+"/admin", instance("b"))
		require.NoError(t, err)
		register(t, n, instance("a"))
		require.Equal(t, "a", registered(t, n))
		p := picker(t, n)
		synctest.Wait()
		require.Equal(t, []registry.Instance{instance("a")}, p.Instances())
	})
}

func TestInvalidInstancesAreRejected(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		for _, bad := range []registry.Instance{
			{}, {ID: "a"}, {Addr: "a:80"}, {ID: "a/b", Addr: "a:80"}, {ID: "a", Addr: "a:80", Weight: -1},
		} {
			_, err := registry.Register(t.Context(), c.Node(0), service, bad)
			require.ErrorIs(t, err, coterie.ErrInvalidOption)
		}
		_, err := registry.Register(t.Context(), c.Node(0), "", instance("a"))
		require.ErrorIs(t, err, coterie.ErrInvalidOption)
		_, err = registry.Register(t.Context(), c.Node(0), service, instance("a"), registry.WithTTL(300))
		require.ErrorIs(t, err, coterie.ErrTTLRange)
		huge := instance("a")
		huge.Metadata = map[string]string{"x": strings.Repeat("x", 2<<20)}
		_, err = registry.Register(t.Context(), c.Node(0), service, huge)
		require.ErrorIs(t, err, coterie.ErrTooLarge)
		require.Zero(t, c.Node(0).Status().Leases)

		// After an Update that is too large, the last value stays until the next Update.
		r := register(t, c.Node(0), instance("a"))
		require.NoError(t, r.Update(huge))
		synctest.Wait()
		require.ErrorIs(t, r.Err(), coterie.ErrTooLarge)
		time.Sleep(time.Hour)
		require.Equal(t, "a", registered(t, c.Node(0)))
		require.NoError(t, r.Update(instance("a")))
		synctest.Wait()
		require.NoError(t, r.Err())
	})
}

// An instance with a newest value that is too large still survives the loss of its key and of its lease.
func TestTooLargeUpdateKeepsLastValue(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		r := register(t, n, instance("a"))
		busy := instance("a")
		busy.Load = 7
		require.NoError(t, r.Update(busy))
		synctest.Wait()
		huge := instance("a")
		huge.Metadata = map[string]string{"x": strings.Repeat("x", 2<<20)}
		require.NoError(t, r.Update(huge))
		synctest.Wait()
		stored := func() coterie.KeyValue {
			t.Helper()
			eventually(t, n, "a")
			found, err := registry.Resolve(t.Context(), n, service)
			require.NoError(t, err)
			require.Equal(t, []registry.Instance{busy}, found)
			synctest.Wait()
			require.ErrorIs(t, r.Err(), coterie.ErrTooLarge)
			got, err := n.Get(t.Context(), service+"/a")
			require.NoError(t, err)
			return got.KVs[0]
		}
		lease := stored().Lease
		_, err := n.Delete(t.Context(), service+"/a")
		require.NoError(t, err)
		require.Equal(t, lease, stored().Lease)
		_, err = n.Revoke(t.Context(), lease)
		require.NoError(t, err)
		require.NotEqual(t, lease, stored().Lease)
		_, err = n.Put(t.Context(), service+"/a", "no instance", coterie.WithIgnoreLease())
		require.NoError(t, err)
		stored()
		writes := n.Status().Revision
		time.Sleep(time.Hour)
		require.Equal(t, writes, n.Status().Revision, "it does not retry for ever")

		require.NoError(t, r.Update(instance("a")))
		synctest.Wait()
		require.NoError(t, r.Err())
		found, err := registry.Resolve(t.Context(), n, service)
		require.NoError(t, err)
		require.Equal(t, []registry.Instance{instance("a")}, found)
	})
}

func TestRegisterReturnsWhenContextEnds(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		_, err := registry.Register(ctx, c.Node(0), service, instance("a"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(begin))
		c.Heal()
		c.Leader()
		time.Sleep(time.Minute)
		require.Empty(t, registered(t, c.Node(0)))
	})
}

func TestRegisterManyDuringLeaderChanges(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		const many = 300
		var all sync.WaitGroup
		for i := range many {
			all.Go(func() {
				_, err := registry.Register(t.Context(), c.Node(i%3), service, instance(fmt.Sprint(i)))
				if err != nil {
					t.Error(err)
				}
			})
		}
		for range 3 {
			cut := c.Index(c.Leader())
			c.Pause(cut)
			time.Sleep(8 * time.Second)
			c.Resume(cut)
			time.Sleep(8 * time.Second)
		}
		all.Wait()
		c.Leader()
		time.Sleep(time.Second)
		for i := range 3 {
			found, err := registry.Resolve(t.Context(), c.Node(i), service)
			require.NoError(t, err)
			require.Len(t, found, many)
		}
	})
}

// Other versions and other languages read this form.
func TestStoredFormOfInstance(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		r := register(t, n, registry.Instance{
			ID: "a", Addr: "a:80", Zone: "z", Weight: 2, Load: 0.5, Metadata: map[string]string{"k": "v"},
		})
		stored := func() coterie.KeyValue {
			got, err := n.Get(t.Context(), "services/orders/a")
			require.NoError(t, err)
			require.Len(t, got.KVs, 1)
			require.NotZero(t, got.KVs[0].Lease)
			return got.KVs[0]
		}
		require.Equal(t, `{"id":"a","addr":"a:80","zone":"z","weight":2,"load":0.5,"metadata":{"k":"v"}}`, stored().Value)
		require.NoError(t, r.Update(instance("a")))
		synctest.Wait()
		require.Equal(t, `{"id":"a","addr":"a:80"}`, stored().Value)
	})
}

// A Register that ends with its ctx reports the last failure.
func TestRegisterErrorNamesTheCause(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		c.Partition() // each alone
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := registry.Register(ctx, n, service, instance("a"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, coterie.ErrNoLeader)
		require.ErrorContains(t, err, service+"/a is not registered")
		c.Heal()
	})
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		for err := error(nil); !errors.Is(err, coterie.ErrNoSpace); {
			_, err = n.Put(t.Context(), rand.Text(), strings.Repeat("v", 10_000))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := registry.Register(ctx, n, service, instance("a"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, coterie.ErrNoSpace)
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.QuotaBytes = 1 << 20 }))
}

// A ctx bounds Register alone. Its end after the return changes nothing; Close and the node end the
// Registration.
func TestRegistrationOutlivesItsContext(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		for _, id := range []string{"a", "b"} {
			ctx, cancel := context.WithCancel(t.Context())
			r, err := registry.Register(ctx, n, service, instance(id))
			require.NoError(t, err)
			cancel()
			time.Sleep(time.Hour)
			require.Contains(t, registered(t, n), id)
			require.NoError(t, r.Err())
			_, err = n.Delete(t.Context(), service+"/"+id)
			require.NoError(t, err)
			synctest.Wait()
			require.Contains(t, registered(t, n), id, "it is registered again")
			if id == "a" {
				r.Close()
				require.Empty(t, registered(t, n))
			} else {
				c.Stop(0)
				<-r.Done()
			}
			require.ErrorIs(t, r.Err(), coterie.ErrClosed)
		}
	})
}

func TestCancelledRegisterLeavesNothing(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		reason := errors.New("stop")
		ended, end := context.WithCancelCause(t.Context())
		end(reason)
		_, err := registry.Register(ended, c.Node(0), service, instance("a"))
		require.ErrorIs(t, err, reason)

		n := c.Follower()
		for i := range 3 {
			if i != c.Index(n) {
				c.Delay(i, c.Index(n), 20*time.Millisecond)
			}
		}
		cancelled := 0
		for after := range 30 { // at each moment of the call
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Duration(after)*5*time.Millisecond, func() { cancel(reason) })
			r, err := registry.Register(ctx, n, service, instance("a"))
			if err == nil {
				r.Close()
				continue
			}
			require.ErrorIs(t, err, reason)
			cancelled++
			time.Sleep(time.Second)
			require.Empty(t, registered(t, n))
		}
		time.Sleep(time.Minute) // the lease of a cancelled grant expires
		require.Zero(t, c.Leader().Status().Leases)
		require.Positive(t, cancelled)
		require.Less(t, cancelled, 30)
	})
}
