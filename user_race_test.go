// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// A span is a range of revisions during which a user had no permission.
type span struct{ after, until int64 }

// Users write on all nodes while their permission comes and goes, and while leaders do. No write is applied between the
// revocation and the next grant, and a write that was denied is never applied.
func TestT49_NoWriteAfterRevocation(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		a := administrator{t, c.Node(0)}
		a.user("alice", coterie.Permission{Type: coterie.PermReadWrite, Key: "k/", RangeEnd: "k0"})
		a.enable()
		for i := range 3 {
			require.NoError(t, c.Node(i).Ready(t.Context()))
		}
		end, stop := context.WithCancel(t.Context())
		var mu sync.Mutex
		denied, acknowledged := map[string]bool{}, map[string]int64{}
		var work sync.WaitGroup
		for i := range 3 {
			n := c.Node(i)
			alice := coterie.NewUserView(n, "alice")
			work.Go(func() {
				for end.Err() == nil {
					n.Put(end, "other", "v") // so that revisions go on
					time.Sleep(time.Millisecond)
				}
			})
			for w := range 4 {
				work.Go(func() {
					for j := 0; end.Err() == nil; j++ {
						key := fmt.Sprintf("k/%d-%d-%d", i, w, j)
						var rev int64
						var err error
						switch w {
						case 0:
							var r *coterie.TxnResponse
							r, err = alice.Txn(end).Then(coterie.OpPut(key, "v"), coterie.OpGet("k/")).Commit()
							if err == nil {
								rev = r.Revision
							}
						default:
							var r *coterie.PutResponse
							r, err = alice.Put(end, key, "v")
							if err == nil {
								rev = r.Revision
							}
						}
						mu.Lock()
						switch {
						case err == nil:
							acknowledged[key] = rev
						case errors.Is(err, coterie.ErrPermissionDenied):
							denied[key] = true
						}
						mu.Unlock()
						time.Sleep(time.Millisecond)
					}
				})
			}
		}
		var without []span
		for i := range 20 {
			time.Sleep(50 * time.Millisecond)
			switch i {
			case 5:
				c.Crash(c.Index(c.Leader()))
			case 8, 16:
				for m := range 3 {
					if !c.Up(m) {
						c.Restart(m)
					}
				}
			case 12:
				c.Crash(c.Index(c.Follower()))
			}
			a.Auth = c.Nodes()[i%len(c.Nodes())]
			r, err := a.UserRevokeRole(t.Context(), "alice", "alice")
			require.NoError(t, err)
			time.Sleep(20 * time.Millisecond)
			g, err := a.UserGrantRole(t.Context(), "alice", "alice")
			require.NoError(t, err)
			without = append(without, span{r.Revision, g.Revision})
		}
		stop()
		work.Wait()

		var writes int
		for r, err := range c.Node(1).Watch(t.Context(), "k/", coterie.WithPrefix(), coterie.WithRevision(2), coterie.WithProgressRequests(closedAfterOne())) {
			require.NoError(t, err)
			if len(r.Events) == 0 {
				break
			}
			for _, e := range r.Events {
				writes++
				require.False(t, denied[e.KV.Key], "%s was denied and applied", e.KV.Key)
				for _, s := range without {
					require.False(t, e.KV.ModRevision > s.after && e.KV.ModRevision <= s.until,
						"%s was applied at %d, without a permission from %d to %d", e.KV.Key, e.KV.ModRevision, s.after, s.until)
				}
				delete(acknowledged, e.KV.Key)
			}
		}
		require.Empty(t, acknowledged, "acknowledged, and not there")
		longest := int64(0)
		for _, s := range without {
			longest = max(longest, s.until-s.after)
		}
		t.Log(writes, "writes,", len(denied), "denied; at most", longest, "revisions without a permission")
		require.NotZero(t, len(denied))
		require.NotZero(t, longest)
	})
}

// closedAfterOne returns a channel with one request for progress.
func closedAfterOne() <-chan struct{} {
	requests := make(chan struct{}, 1)
	requests <- struct{}{}
	close(requests)
	return requests
}

// A node that cannot write its log asks the leader to evaluate reads. The leader checks the permissions of the user.
func TestForwardedReadsAreChecked(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, n := c.Leader(), c.Follower()
		a := administrator{t, leader}
		a.user("alice", coterie.Permission{Type: coterie.PermRead, Key: "k"})
		a.enable()
		put(t, leader, "k", "1")
		c.WaitRevision(2)
		alice := coterie.NewUserView(n, "alice")
		pinned := alice.WithAuthRevision(a.revision())
		require.Equal(t, "1", firstValue(t, alice, "k"))

		c.RefuseDisk(c.Index(n), syscall.ENOSPC)
		put(t, leader, "k", "2")
		require.Equal(t, "2", firstValue(t, alice, "k"))
		require.ErrorIs(t, errOf(alice.Get(t.Context(), "z")), coterie.ErrPermissionDenied)
		require.ErrorIs(t, transact(alice, nil, []coterie.Op{coterie.OpGet("z")}, nil), coterie.ErrPermissionDenied)
		require.ErrorIs(t, errOf(coterie.NewUserView(n, "").Get(t.Context(), "k")), coterie.ErrUserEmpty)

		// This node does not know of the revocation, which its leader has applied.
		a.must(a.UserRevokeRole(t.Context(), "alice", "alice"))
		require.ErrorIs(t, errOf(alice.Get(t.Context(), "k")), coterie.ErrPermissionDenied)
		require.ErrorIs(t, errOf(pinned.Get(t.Context(), "k")), coterie.ErrAuthOldRevision)
		c.Heal()
		require.NoError(t, n.Ready(t.Context()))
		require.ErrorIs(t, errOf(alice.Get(t.Context(), "k", coterie.WithSerializable())), coterie.ErrPermissionDenied)
	})
}

func firstValue(t *testing.T, kv coterie.KV, key string) string {
	t.Helper()
	r, err := kv.Get(t.Context(), key)
	require.NoError(t, err)
	var values []string
	for _, kv := range r.KVs {
		values = append(values, kv.Value)
	}
	return strings.Join(values, " ")
}
