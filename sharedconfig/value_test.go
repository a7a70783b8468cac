// SPDX-License-Identifier: Apache-2.0

package sharedconfig_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/sharedconfig"
)

type limits struct {
	Rate  int
	Burst int               `json:",omitempty"`
	Hosts []string          `json:",omitempty"`
	Tags  map[string]string `json:",omitempty"`
}

var errRate = errors.New("the rate must be positive")

func (l limits) check() error {
	if l.Rate <= 0 {
		return errRate
	}
	return nil
}

func config(keys ...string) sharedconfig.Config[limits] {
	return sharedconfig.Config[limits]{Keys: keys, Default: limits{Rate: 100}, Validate: limits.check}
}

func open[T any](t testing.TB, n *coterie.Node, cfg sharedconfig.Config[T]) *sharedconfig.Value[T] {
	t.Helper()
	v, err := sharedconfig.Open(t.Context(), n, cfg)
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

func put(t testing.TB, n *coterie.Node, key, val string) int64 {
	t.Helper()
	r, err := n.Put(t.Context(), key, val)
	require.NoError(t, err)
	return r.Revision
}

// stored returns the value of a key, or "".
func stored(t testing.TB, n *coterie.Node, key string) string {
	t.Helper()
	r, err := n.Get(t.Context(), key)
	require.NoError(t, err)
	if len(r.KVs) == 0 {
		return ""
	}
	return r.KVs[0].Value
}

func rate(t testing.TB, v *sharedconfig.Value[limits], rate int) int64 {
	t.Helper()
	rev, err := v.Update(t.Context(), func(l limits) (limits, error) { l.Rate = rate; return l, nil })
	require.NoError(t, err)
	require.Equal(t, rate, v.Load().Rate, "the Value has its own update")
	return rev
}

func TestAllNodesSeeAnUpdate(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		var values []*sharedconfig.Value[limits]
		for i := range 3 {
			values = append(values, open(t, c.Node(i), config("limits")))
			require.Equal(t, limits{Rate: 100}, values[i].Load())
		}
		for round := range 4 {
			rev := rate(t, values[c.Index(c.Leader())], 200+round)
			c.WaitRevision(rev)
			synctest.Wait()
			for _, v := range values {
				require.Equal(t, sharedconfig.Current[limits]{Value: limits{Rate: 200 + round}, Revision: rev}, v.Current())
			}
			if round == 1 {
				require.NoError(t, c.Leader().TransferLeadership(t.Context(), c.Follower().ID()))
			}
		}
	})
}

func TestBadValueKeepsTheGoodOne(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		v := open(t, n, config("limits"))
		ctx, cancel := context.WithCancel(t.Context())
		next, stop := iter.Pull2(v.Follow(ctx))
		defer stop()
		see := func() sharedconfig.Current[limits] {
			t.Helper()
			c, err, ok := next()
			require.True(t, ok)
			require.NoError(t, err)
			return c
		}
		good := rate(t, v, 50)
		require.Equal(t, 50, see().Value.Rate)

		var rejected *sharedconfig.RejectedError
		_, err := v.Update(t.Context(), func(l limits) (limits, error) { l.Rate = 0; return l, nil })
		require.ErrorIs(t, err, errRate)
		require.ErrorAs(t, err, &rejected)
		require.Zero(t, rejected.Revision)
		require.Equal(t, "limits", rejected.Key)
		require.ErrorContains(t, err, "the value for limits is bad and was not stored")
		require.Equal(t, `{"Rate":50}`, stored(t, n, "limits"))
		refusal := errors.New("no")
		_, err = v.Update(t.Context(), func(limits) (limits, error) { return limits{Rate: 7}, refusal })
		require.Equal(t, refusal, err)
		require.NoError(t, v.Err())

		for _, bad := range []string{`{"Rate":-1}`, `{"Rate":`, `{"Rate":1} x`, `7`, `{"Rate":"x"}`} {
			rev := put(t, n, "limits", bad)
			is := see()
			require.Equal(t, limits{Rate: 50}, is.Value)
			require.Equal(t, good, is.Revision)
			require.ErrorAs(t, is.Err, &rejected)
			require.Equal(t, rev, rejected.Revision)
			require.Equal(t, "limits", rejected.Key)
			require.ErrorContains(t, is.Err, fmt.Sprintf("the value of limits at revision %d is bad", rev))
			require.Equal(t, is.Err, v.Err())
			require.Equal(t, 50, v.Load().Rate)
		}
		_, err = v.Update(t.Context(), func(l limits) (limits, error) { return l, nil })
		require.ErrorAs(t, err, &rejected, "an update of a bad value is not stored")
		late := open(t, n, config("limits"))
		require.Equal(t, limits{Rate: 100}, late.Load(), "the default is the only good value")
		require.Error(t, late.Err())
		noDefault := config("limits")
		noDefault.Default.Rate = 0
		_, err = sharedconfig.Open(t.Context(), n, noDefault)
		require.ErrorAs(t, err, &rejected)

		put(t, n, "limits", `{"Rate":60}`)
		require.Equal(t, 60, see().Value.Rate)
		require.NoError(t, v.Err())
		cancel()
		_, err, _ = next()
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestOpenWithoutQuorumUsesTheNode(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		rate(t, open(t, c.Node(0), config("limits")), 42)
		c.WaitRevision(c.Leader().Status().Revision)
		c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		v, err := sharedconfig.Open(ctx, c.Node(1), config("limits"))
		require.NoError(t, err)
		defer v.Close()
		require.Equal(t, 42, v.Load().Rate)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = sharedconfig.Open(ctx, c.Node(1), config("never stored"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = v.Update(ctx, func(l limits) (limits, error) { return l, nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, v.Err())

		c.Heal()
		c.Leader()
		other := open(t, c.Node(2), config("limits"))
		c.WaitRevision(rate(t, other, 43))
		synctest.Wait()
		require.Equal(t, 43, v.Load().Rate)
	})
}

func TestValueEndsWithCloseOrNode(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		v, with := open(t, c.Node(0), config("limits")), open(t, c.Node(0), config("limits"))
		v.Close()
		v.Close()
		rate(t, v, 9)
		synctest.Wait()
		for _, err := range v.Follow(t.Context()) {
			if err != nil {
				require.EqualError(t, err, "sharedconfig: the value is closed: coterie: closed")
			}
		}
		c.Stop(0)
		for _, v := range []*sharedconfig.Value[limits]{v, with} {
			for _, err := range v.Follow(t.Context()) {
				if err != nil {
					require.ErrorIs(t, err, coterie.ErrClosed)
				}
			}
			_, err := v.Update(t.Context(), func(l limits) (limits, error) { return l, nil })
			require.ErrorIs(t, err, coterie.ErrClosed)
			require.Equal(t, 9, v.Load().Rate)
		}
	})
}

// A ctx bounds Open alone. If it ends before there is a value, nothing is left.
func TestValueOutlivesContextOfOpen(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		ctx, cancel := context.WithCancel(t.Context())
		v, err := sharedconfig.Open(ctx, n, config("limits"))
		require.NoError(t, err)
		defer v.Close()
		cancel()
		time.Sleep(time.Minute)
		c.WaitRevision(put(t, c.Leader(), "limits", `{"Rate":7}`))
		synctest.Wait()
		require.Equal(t, 7, v.Load().Rate)
		require.NoError(t, v.Err())

		c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(10 * time.Second)
		reason := errors.New("stop")
		ctx, end := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { end(reason) })
		watchers := n.Status().Watchers
		_, err = sharedconfig.Open(ctx, n, config("never stored"))
		require.ErrorIs(t, err, reason)
		synctest.Wait()
		require.Equal(t, watchers, n.Status().Watchers)
	})
}

func BenchmarkLoad(b *testing.B) {
	n, err := coterie.Open(b.Context(), coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	defer n.Close()
	v := open(b, n, config("limits"))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if v.Load().Rate != 100 {
				b.Error("not the default")
			}
		}
	})
}

// All keys change in one revision. The watches of all keys find the same bad value, perhaps at different revisions.
func TestFollowYieldsABadValueOnce(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		v := open(t, n, config("a", "b", "c"))
		ctx, cancel := context.WithCancel(t.Context())
		yielded := 0
		go func() {
			for range v.Follow(ctx) {
				yielded++
			}
		}()
		synctest.Wait()
		for range 100 {
			yielded = 0
			var writes sync.WaitGroup
			writes.Go(func() {
				_, err := n.Txn(ctx).Then(coterie.OpPut("a", "bad"), coterie.OpPut("b", "bad"), coterie.OpPut("c", "bad")).Commit()
				if err != nil {
					t.Error(err)
				}
			})
			for range 5 {
				writes.Go(func() { _, _ = n.Put(ctx, "elsewhere", "") })
			}
			writes.Wait()
			synctest.Wait()
			require.Equal(t, 1, yielded)
			require.Error(t, v.Err())
		}
		cancel()
	})
}

// Other versions read this form.
func TestStoredFormOfValue(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		cfg := config("general", "limits")
		cfg.File = filepath.Join(t.TempDir(), "limits.json")
		v := open(t, c.Node(0), cfg)
		first := rate(t, v, 1)
		second := rate(t, v, 2)
		synctest.Wait()
		require.Equal(t, `{"Rate":2}`, stored(t, c.Node(0), "limits"))
		require.Equal(t, `{"Rate":1}`, stored(t, c.Node(0), fmt.Sprintf("limits@%019d", first)))
		file, err := os.ReadFile(cfg.File)
		require.NoError(t, err)
		content := fmt.Sprintf(`{"cluster":%d,"revision":%d,"keys":["general","limits"],"documents":[null,"eyJSYXRlIjoyfQ=="]}`,
			c.Node(0).Status().ClusterID, second)
		crc := crc32.Checksum([]byte(content), crc32.MakeTable(crc32.Castagnoli))
		require.Equal(t, fmt.Sprintf(`{"crc32c":%d,"content":%s}`, crc, content), string(file))
	})
}
