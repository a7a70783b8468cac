// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

func ask(n *coterie.Node, method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	coterie.HealthHandler(n).ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

// requireHealth checks the status codes of both endpoints, and that they answer at once.
func requireHealth(t *testing.T, n *coterie.Node, live, ready int, reasons ...string) {
	t.Helper()
	begin := time.Now()
	l, r := ask(n, "GET", "/livez"), ask(n, "GET", "/readyz")
	require.Zero(t, time.Since(begin))
	require.Equal(t, live, l.Code, l.Body)
	require.Equal(t, ready, r.Code, r.Body)
	for _, reason := range reasons {
		require.Contains(t, r.Body.String(), "[-] "+reason)
	}
}

func TestWithoutQuorumLiveButNotReady(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for _, n := range c.Nodes() {
			require.NoError(t, n.Ready(t.Context()))
			requireHealth(t, n, 200, 200)
		}
		require.Equal(t, "readyz passes\n", ask(c.Node(0), "GET", "/readyz").Body.String())
		require.Equal(t, "[+] running\n[+] open\n[+] leader\n[+] contact\n[+] applied\n[+] disk\nreadyz passes\n",
			ask(c.Node(0), "GET", "/readyz?verbose").Body.String())

		c.Partition([]int{0}, []int{1, 2})
		time.Sleep(10 * time.Second)
		requireHealth(t, c.Node(0), 200, 503, "leader: no leader is known", "contact: the leader was last heard")
		requireHealth(t, c.Node(1), 200, 200)
		c.Heal()
		time.Sleep(5 * time.Second)
		requireHealth(t, c.Node(0), 200, 200)

		for i := range 3 {
			c.FillDisk(i, true)
			c.StallDisk(i, true)
		}
		requireHealth(t, c.Node(0), 200, 200)
		c.Heal()
	})
}

func TestSurvivorsOfALeaderCrashStayReady(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for i := range 3 {
			for j := range 3 {
				c.Delay(i, j, 30*time.Millisecond) // an election takes longer than Crash does
			}
		}
		for range 20 {
			lost := c.Index(c.Leader())
			for _, n := range c.Nodes() {
				require.NoError(t, n.Ready(t.Context()))
			}
			c.Crash(lost)
			leaderless := false
			for range 400 {
				time.Sleep(10 * time.Millisecond)
				for _, n := range c.Nodes() {
					leaderless = leaderless || n.Status().Leaderless > 0
					requireHealth(t, n, 200, 200)
				}
			}
			require.True(t, leaderless, "the crash went unnoticed")
			c.Restart(lost)
		}
	})
}

func TestLostQuorumIsNotReadyAfterGrace(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Leader()
		for _, other := range c.Nodes() {
			if other != n {
				c.Crash(c.Index(other))
			}
		}
		for n.Status().Leader != 0 {
			time.Sleep(time.Millisecond)
		}
		for s := n.Status(); max(s.Leaderless, s.LastContact) < 2900*time.Millisecond; s = n.Status() {
			requireHealth(t, n, 200, 200)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(200 * time.Millisecond)
		requireHealth(t, n, 200, 503, "leader: no leader is known for 3.", "contact: the leader was last heard")

		i := c.Index(n)
		c.Crash(i)
		c.Restart(i)
		requireHealth(t, c.Node(i), 200, 503, "leader: no leader is known", "contact: no leader was ever heard")
	})
}

// Such a node still hears its leader, but neither applies entries nor accepts writes.
func TestUnwritableDiskIsNotReady(t *testing.T) {
	for fault, reason := range map[string]string{"full": "disk: the log could not be written for", "stalled": "disk: a write to it has hung for"} {
		t.Run(fault, func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				leader, n := c.Leader(), c.Follower()
				i, patience := c.Index(n), 5*time.Second
				if fault == "full" {
					patience = time.Second
					c.FillDisk(i, true)
					for n.Status().DiskRefused == 0 { // until the space that the log has reserved is used up
						put(t, leader, "k", string(make([]byte, 1<<20)))
						time.Sleep(time.Millisecond)
					}
				} else {
					c.StallDisk(i, true)
					put(t, leader, "k", "v")
				}
				write := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
					defer cancel()
					_, err := n.Put(ctx, "k", "w")
					return err
				}
				time.Sleep(patience - 500*time.Millisecond)
				requireHealth(t, n, 200, 200)
				require.ErrorIs(t, write(), context.DeadlineExceeded)
				time.Sleep(time.Second)
				requireHealth(t, n, 200, 503, reason)
				require.Equal(t, fault == "full", errors.Is(write(), coterie.ErrNoSpace), "a full disk refuses the write")
				requireHealth(t, leader, 200, 200)
				c.Heal()
				time.Sleep(time.Second)
				requireHealth(t, n, 200, 200)
			})
		})
	}
}

func TestNeverHeardALeaderIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := coterie.Open(t.Context(), coterie.Config{
			InMemory: true, Name: "a", Addr: "a:1", Network: coterie.NewMemoryNetwork(), Founders: []coterie.Founder{{"a", "a:1"}, {"b", "b:1"}},
		})
		require.NoError(t, err)
		requireHealth(t, n, 200, 503, "leader: no leader is known", "contact: no leader was ever heard")
		require.NoError(t, n.Close())
		requireHealth(t, n, 200, 503, "open: the node is closed")
	})
}

func TestFailedDiskFailsLiveness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewForgetful()
		n, err := coterie.Open(vfs.With(t.Context(), disk.Mount()), coterie.Config{InMemory: true})
		require.NoError(t, err)
		put(t, n, "k", "v")
		requireHealth(t, n, 200, 200)
		disk.FailSync(errors.New("broken"))
		_, err = n.Put(t.Context(), "k", "w")
		require.ErrorIs(t, err, coterie.ErrClosed)
		<-n.Done()
		requireHealth(t, n, 503, 503, "running: the disk has failed: ", "open: ")
		n.Close()
	})
}

func TestHealthHandlerRejectsOtherRequests(t *testing.T) {
	n := open(t)
	require.Equal(t, http.StatusNotFound, ask(n, "GET", "/").Code)
	require.Equal(t, http.StatusNotFound, ask(n, "GET", "/health/livez").Code)
	require.Equal(t, http.StatusMethodNotAllowed, ask(n, "POST", "/livez").Code)
	require.Equal(t, 200, ask(n, "HEAD", "/livez").Code)
	w := httptest.NewRecorder()
	http.StripPrefix("/health", coterie.HealthHandler(n)).ServeHTTP(w, httptest.NewRequest("GET", "/health/livez", nil))
	require.Equal(t, 200, w.Code)
}

// BenchmarkStatus shows that the cost of Status does not grow with the state: probes call it often.
func BenchmarkStatus(b *testing.B) {
	n := open(b, func(cfg *coterie.Config) { cfg.MaxTxnOps = 10_000 })
	key := func(i int) string { return fmt.Sprintf("%07d", i) }
	for i := range 100 {
		var puts []coterie.Op
		for j := range 10_000 {
			puts = append(puts, coterie.OpPut(key(i*10_000+j), "v"))
		}
		_, err := n.Txn(b.Context()).Then(puts...).Commit()
		require.NoError(b, err)
	}
	for i := range 10_000 {
		n.WatchChan(b.Context(), key(i))
	}
	for n.Status().Watchers < 10_000 {
		time.Sleep(time.Millisecond)
	}
	require.Equal(b, 1_000_000, n.Status().Keys)
	for b.Loop() {
		n.Status()
	}
}
