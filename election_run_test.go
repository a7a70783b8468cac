// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func TestRunAsLeaderReturnsTheBodysResult(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		body := func(context.Context, int64) error { return coterie.ErrStopCampaign }
		require.NoError(t, coterie.RunAsLeader(t.Context(), n, "election", "a", func(_ context.Context, token int64) error {
			require.Positive(t, token)
			return nil
		}))
		require.Empty(t, get(t, n, "election", coterie.WithPrefix()).KVs, "it resigned")
		err := coterie.RunAsLeader(t.Context(), n, "election", "a", body, coterie.WithTTL(300))
		require.ErrorIs(t, err, coterie.ErrTTLRange)
		bounded, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		large := strings.Repeat("v", 2<<20)
		err = coterie.RunAsLeader(bounded, n, "election", large, body)
		require.ErrorIs(t, err, coterie.ErrTooLarge, "no retry can succeed")

		// The leader's key is deleted: the context of the body ends, and RunAsLeader campaigns again.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		terms := 0
		err = coterie.RunAsLeader(ctx, n, "election", "a", func(ctx context.Context, _ int64) error {
			if terms++; terms == 1 {
				del(t, n, "election/", coterie.WithPrefix())
			}
			<-ctx.Done()
			return nil
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 2, terms)

		// RunAsLeader drops the error that a body returns after a loss, even one that would otherwise end it.
		terms = 0
		require.NoError(t, coterie.RunAsLeader(t.Context(), n, "election", "a", func(ctx context.Context, _ int64) error {
			if terms++; terms == 2 {
				return nil
			}
			del(t, n, "election/", coterie.WithPrefix())
			<-ctx.Done()
			return coterie.ErrTooLarge
		}))
		require.Equal(t, 2, terms)
	})
}

// Each of three bodies returns an error. Then one of them leads again.
func TestRunAsLeaderContinuesAfterErrors(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ctx, cancel := context.WithCancel(t.Context())
		leads, told := make(chan string, 3), make(chan error, 3)
		var wg sync.WaitGroup
		for i, n := range c.Nodes() {
			wg.Go(func() {
				runs := 0
				err := coterie.RunAsLeader(ctx, n, "election", fmt.Sprint(i), func(ctx context.Context, _ int64) error {
					if runs++; runs == 1 {
						return coterie.ErrOverloaded
					}
					leads <- fmt.Sprint(i)
					<-ctx.Done()
					return nil
				}, coterie.WithOnError(func(err error) { told <- err }))
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		for range 3 {
			require.ErrorIs(t, <-told, coterie.ErrOverloaded)
		}
		name := <-leads
		for info, err := range coterie.ObserveElection(ctx, c.Leader(), "election") {
			require.NoError(t, err)
			require.Equal(t, name, info.Value)
			break
		}
		cancel()
		wg.Wait()
	})
}

// Each further error doubles the pause, up to 30 s. A long leadership resets it.
func TestRunAsLeaderBacksOff(t *testing.T) {
	h := &logged{}
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		failed := errors.New("failed")
		var begins []time.Time
		err := coterie.RunAsLeader(t.Context(), c.Node(0), "election", "a", func(context.Context, int64) error {
			begins = append(begins, time.Now())
			switch len(begins) {
			case 12:
				time.Sleep(30 * time.Second)
			case 14:
				return fmt.Errorf("%w: %w", coterie.ErrStopCampaign, failed)
			}
			return failed
		})
		require.ErrorIs(t, err, coterie.ErrStopCampaign)
		require.ErrorIs(t, err, failed)
		require.Len(t, begins, 14)
		pause := 100 * time.Millisecond
		for i := range 11 {
			require.InDelta(t, pause, begins[i+1].Sub(begins[i]), float64(50*time.Millisecond), "%d", i)
			pause = min(2*pause, 30*time.Second)
		}
		require.InDelta(t, 30100*time.Millisecond, begins[12].Sub(begins[11]), float64(50*time.Millisecond))
		synctest.Wait()
		require.Len(t, h.of("leader function failed, campaigning again"), 13)
		require.Empty(t, get(t, c.Node(0), "election", coterie.WithPrefix()).KVs, "it resigned")
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Logger = slog.New(h) }))
}

// ErrStopCampaign ends the campaign whether the body still leads or not.
func TestRunAsLeaderStopsAfterALoss(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		err := coterie.RunAsLeader(t.Context(), n, "election", "a", func(ctx context.Context, _ int64) error {
			del(t, n, "election/", coterie.WithPrefix())
			<-ctx.Done()
			return coterie.ErrStopCampaign
		})
		require.ErrorIs(t, err, coterie.ErrStopCampaign)
	})
}

func TestRunAsLeaderResignsOnPanic(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		require.PanicsWithValue(t, "body", func() {
			_ = coterie.RunAsLeader(t.Context(), n, "election", "a", func(context.Context, int64) error { panic("body") })
		})
		begin := time.Now()
		require.NoError(t, coterie.RunAsLeader(t.Context(), n, "election", "b", func(context.Context, int64) error { return nil }))
		require.Less(t, time.Since(begin), time.Second)
	})
}

// An error of a body that is due to a closing node is not logged.
func TestRunAsLeaderEndsWithItsNode(t *testing.T) {
	h := &logged{}
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n, leads := c.Node(0), make(chan struct{})
		ended := make(chan error, 1)
		go func() {
			ended <- coterie.RunAsLeader(t.Context(), n, "election", "a", func(ctx context.Context, _ int64) error {
				close(leads)
				for {
					if _, err := n.Put(ctx, "k", "v"); err != nil {
						return err
					}
				}
			})
		}()
		<-leads
		c.Stop(0)
		require.ErrorIs(t, <-ended, coterie.ErrClosed)
		synctest.Wait()
		require.Empty(t, h.of("leader function failed, campaigning again"))
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Logger = slog.New(h) }))
}

// logged is a handler that keeps the lines of a log.
type logged struct {
	slog.Handler
	mu    sync.Mutex
	lines []slog.Record
}

func (h *logged) Enabled(context.Context, slog.Level) bool { return true }
func (h *logged) WithAttrs([]slog.Attr) slog.Handler       { return h }

func (h *logged) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, r)
	return nil
}

// of returns the lines with the message.
func (h *logged) of(message string) (lines []slog.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.lines {
		if r.Message == message {
			lines = append(lines, r)
		}
	}
	return lines
}

// A leader with a key that is older than the history notices that the key is deleted.
func TestRunAsLeaderNoticesALateLoss(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		first := coterie.NewElection(session(t, n), "election")
		require.NoError(t, first.Campaign(t.Context(), "first"))
		ctx, cancel := context.WithCancel(t.Context())
		leading, ended := make(chan struct{}, 2), make(chan error)
		go func() {
			ended <- coterie.RunAsLeader(ctx, n, "election", "second", func(ctx context.Context, _ int64) error {
				leading <- struct{}{}
				<-ctx.Done()
				return nil
			})
		}()
		for range 60 {
			time.Sleep(time.Minute)
			put(t, n, "other", "v")
		}
		require.NoError(t, first.Resign(t.Context()))
		<-leading
		time.Sleep(time.Minute)
		info, err := first.Leader(t.Context())
		require.NoError(t, err)
		del(t, n, info.Key)
		<-leading // for the second time, since the first body has ended
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func TestRunAsLeaderReplacesAMissingLease(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		body := func(context.Context, int64) error { return nil }
		require.NoError(t, coterie.RunAsLeader(t.Context(), n, "election", "a", body, coterie.WithExistingLease(7)))
	})
}

// K3: bodies that end with their contexts never overlap, whatever the network does.
func TestK3_BodiesDoNotOverlap(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ctx, cancel := context.WithCancel(t.Context())
		var running, terms atomic.Int32
		var last atomic.Int64
		var wg sync.WaitGroup
		for i := range 3 {
			n := c.Node(i)
			wg.Go(func() {
				err := coterie.RunAsLeader(ctx, n, "election", fmt.Sprint(i), func(ctx context.Context, token int64) error {
					if running.Add(1) != 1 {
						t.Error("two leaders at once")
					}
					if before := last.Swap(token); before >= token {
						t.Errorf("token %d after %d", token, before)
					}
					terms.Add(1)
					<-ctx.Done()
					running.Add(-1)
					return ctx.Err()
				}, coterie.WithTTL(5*time.Second))
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		for i := range 12 {
			time.Sleep(20 * time.Second)
			c.Pause(i % 3)
			time.Sleep(20 * time.Second)
			c.Heal()
		}
		require.Greater(t, terms.Load(), int32(3))
		t.Log(terms.Load(), "terms")
		cancel()
		wg.Wait()
	})
}

// If the guarded write of a body is rejected, the body may know of its loss before RunAsLeader does.
func TestRunAsLeaderSeesARejectedGuard(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		for range 200 {
			ctx, cancel := context.WithCancel(t.Context())
			runs := make(chan struct{}, 2)
			ended := make(chan error, 1)
			go func() {
				ended <- coterie.RunAsLeader(ctx, n, "lead", "", func(ctx context.Context, _ int64) error {
					runs <- struct{}{}
					for {
						r, err := n.Txn(ctx).If(coterie.GuardFromContext(ctx)).Then(coterie.OpPut("k", "v")).Commit()
						if err != nil {
							return err
						}
						if !r.Succeeded {
							return errors.New("rejected")
						}
					}
				})
			}()
			<-runs
			_, err := n.Delete(t.Context(), "lead/", coterie.WithPrefix())
			require.NoError(t, err)
			select {
			case <-runs:
			case err := <-ended:
				require.NoError(t, err)
			}
			cancel()
			require.ErrorIs(t, <-ended, context.Canceled)
		}
	})
}
