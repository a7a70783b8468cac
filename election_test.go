// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
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

func TestElectionGuards(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		e := coterie.NewElection(session(t, n), "election")
		require.ErrorIs(t, e.Proclaim(ctx, "x"), coterie.ErrNotOwner)
		require.ErrorIs(t, e.Resign(ctx), coterie.ErrNotOwner)
		held := func() bool { return commit(t, n.Txn(ctx).If(e.Guard())).Succeeded }
		require.False(t, held())
		require.NoError(t, e.Campaign(ctx, "a"))
		require.True(t, held())
		require.NoError(t, e.Campaign(ctx, "b"), "to campaign again is to proclaim")
		info, err := e.Leader(ctx)
		require.NoError(t, err)
		require.Equal(t, "b", info.Value)
		del(t, n, info.Key)
		require.False(t, held())
		require.ErrorIs(t, e.Proclaim(ctx, "c"), coterie.ErrNotOwner)
		require.NoError(t, e.Campaign(ctx, "d"))
		require.NoError(t, e.Resign(ctx))
	})
}

func TestResumeElectionLeadsOn(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ctx, n := t.Context(), c.Follower()
		before := coterie.NewElection(session(t, n, coterie.WithTTL(time.Minute)), "job")
		require.Empty(t, before.Key())
		require.NoError(t, before.Campaign(ctx, "before"))
		rival := coterie.NewElection(session(t, c.Leader(), coterie.WithTTL(time.Hour)), "job")
		won := make(chan error, 1)
		go func() { won <- rival.Campaign(ctx, "rival") }()
		time.Sleep(time.Second)
		key, token := before.Key(), before.Token()
		lease := get(t, n, key).KVs[0].Lease
		c.Crash(c.Index(n))
		time.Sleep(20 * time.Second)

		n = c.Leader()
		s := session(t, n, coterie.WithExistingLease(lease))
		e, err := coterie.ResumeElection(ctx, s, "job")
		require.NoError(t, err)
		require.Equal(t, key, e.Key())
		require.Equal(t, token, e.Token())
		require.True(t, commit(t, n.Txn(ctx).If(e.Guard())).Succeeded)
		require.NoError(t, e.Campaign(ctx, "after"))
		require.Equal(t, key, e.Key(), "there was no other election")
		leader, err := e.Leader(ctx)
		require.NoError(t, err)
		require.Equal(t, coterie.ElectionLeader{Key: key, Value: "after", Token: token, Elected: true}, leader)
		time.Sleep(10 * time.Minute)
		require.Empty(t, won)
		require.NoError(t, e.Resign(ctx))
		require.NoError(t, <-won)
		require.Empty(t, e.Key())
	})
}

func TestResumeElectionWithoutLeadership(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		s := session(t, n)
		e, err := coterie.ResumeElection(ctx, s, "job")
		require.NoError(t, err)
		require.Empty(t, e.Key())
		require.Zero(t, e.Token())
		require.NoError(t, e.Campaign(ctx, "first"))

		// A candidacy of the lease that nothing waits for any more would lead, and do nothing.
		other := session(t, n)
		forgotten := make(chan error, 1)
		go func() { forgotten <- coterie.NewElection(other, "job").Campaign(ctx, "forgotten") }()
		put(t, n, fmt.Sprintf("job/%v-note", other.Lease()), "no candidacy")
		put(t, n, fmt.Sprintf("job/2/%v-00000000", other.Lease()), "of another prefix")
		synctest.Wait()
		resumed, err := coterie.ResumeElection(ctx, session(t, n, coterie.WithExistingLease(other.Lease())), "job")
		require.NoError(t, err)
		require.Empty(t, resumed.Key())
		require.Len(t, get(t, n, "job/", coterie.WithPrefix()).KVs, 3)
		require.NoError(t, e.Resign(ctx))
		require.ErrorIs(t, <-forgotten, coterie.ErrNotOwner)
		require.NoError(t, resumed.Campaign(ctx, "resumed"))

		_, err = coterie.ResumeElection(ctx, other, "")
		require.ErrorIs(t, err, coterie.ErrInvalidOption)
		require.NoError(t, other.Close())
		_, err = coterie.ResumeElection(ctx, other, "job")
		require.ErrorIs(t, err, coterie.ErrSessionExpired)
	})
}

// Two elections of one lease led one after the other: the first is resumed, the second deleted.
func TestResumeElectionOfTwoCandidacies(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		s := session(t, n)
		first, second := coterie.NewElection(s, "job"), coterie.NewElection(s, "job")
		require.NoError(t, first.Campaign(t.Context(), "first"))
		lost := make(chan error, 1)
		go func() { lost <- second.Campaign(t.Context(), "second") }()
		synctest.Wait()
		e, err := coterie.ResumeElection(t.Context(), s, "job")
		require.NoError(t, err)
		require.Equal(t, first.Key(), e.Key())
		require.NoError(t, e.Resign(t.Context()))
		require.ErrorIs(t, <-lost, coterie.ErrNotOwner)
	})
}

func TestRunAsLeaderReturnsWhatItsBodyDoes(t *testing.T) {
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
		require.ErrorIs(t, err, coterie.ErrTooLarge, "it never can be")

		// The leader's key is removed by hand: the body is told, and it campaigns again.
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

		// What the body makes of that is not for whoever runs it, be it what RunAsLeader would say itself.
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

// One error of each of three bodies, and one of them leads again, after a while of its own.
func TestRunAsLeaderGoesOnAfterErrors(t *testing.T) {
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

// Each further error doubles the pause, up to half a minute; a long time as the leader shortens it.
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
		require.Len(t, h.of("the leader's body failed, it campaigns again"), 13)
		require.Empty(t, get(t, c.Node(0), "election", coterie.WithPrefix()).KVs, "it resigned")
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Logger = slog.New(h) }))
}

// The sentinel counts whether the body leads or not.
func TestABodyThatLostTheLeadCanStop(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		err := coterie.RunAsLeader(t.Context(), n, "election", "a", func(ctx context.Context, _ int64) error {
			del(t, n, "election/", coterie.WithPrefix())
			<-ctx.Done()
			return coterie.ErrStopCampaign
		})
		require.ErrorIs(t, err, coterie.ErrStopCampaign)
	})
}

func TestAPanicOfABodyFreesTheLead(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		require.PanicsWithValue(t, "body", func() {
			_ = coterie.RunAsLeader(t.Context(), n, "election", "a", func(context.Context, int64) error { panic("body") })
		})
		begin := time.Now()
		require.NoError(t, coterie.RunAsLeader(t.Context(), n, "election", "b", func(context.Context, int64) error { return nil }))
		require.Less(t, time.Since(begin), time.Second)
	})
}

// A body that a closing node fails has nothing to warn of.
func TestAClosedNodeEndsTheCampaign(t *testing.T) {
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
		require.Empty(t, h.of("the leader's body failed, it campaigns again"))
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Logger = slog.New(h) }))
}

// logged keeps the lines of a log.
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

// of returns the lines with a message.
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

// Whoever has waited for longer than the history is kept notices all the same that its key is removed.
func TestALeaderThatWaitedForLongNoticesItsEnd(t *testing.T) {
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
		<-leading // again, for its first body has ended
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func TestRunAsLeaderGoesOnWithoutALeaseThatIsGone(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		body := func(context.Context, int64) error { return nil }
		require.NoError(t, coterie.RunAsLeader(t.Context(), n, "election", "a", body, coterie.WithExistingLease(7)))
	})
}

// K3: bodies that end with their context never overlap, whatever becomes of the network.
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
						t.Error("two lead")
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

// A body whose guarded write is refused knows that it leads no more, perhaps before RunAsLeader does.
func TestABodyThatIsRefusedHasLostTheLead(t *testing.T) {
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
							return errors.New("refused")
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

// Whoever only looks on, without a session, sees who leads by RunAsLeader, and that nobody does.
func TestAnOnlookerNeedsNoSession(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		next, stop := iter.Pull2(coterie.ObserveElection(t.Context(), c.Follower(), "job"))
		defer stop()
		see := func() coterie.ElectionLeader {
			info, err, ok := next()
			require.NoError(t, err)
			require.True(t, ok)
			return info
		}
		require.False(t, see().Elected)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		tokens := make(chan int64, 1)
		go func() {
			ended <- coterie.RunAsLeader(ctx, c.Leader(), "job", "a", func(ctx context.Context, token int64) error {
				tokens <- token
				<-ctx.Done()
				return nil
			})
		}()
		info := see()
		require.Equal(t, "a", info.Value)
		require.Equal(t, <-tokens, info.Token)
		cancel()
		<-ended
		require.False(t, see().Elected)
	})
}

// Who looks away for longer than the history is kept sees who leads then.
func TestAnOnlookerWhoIsSlowGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		e := coterie.NewElection(session(t, n), "election")
		require.NoError(t, e.Campaign(t.Context(), "first"))
		next, stop := iter.Pull2(coterie.ObserveElection(t.Context(), n, "election"))
		defer stop()
		info, err, _ := next()
		require.NoError(t, err)
		require.Equal(t, "first", info.Value)
		require.NoError(t, e.Proclaim(t.Context(), "second"))
		require.NoError(t, e.Proclaim(t.Context(), "third"))
		require.NoError(t, errOf(n.Compact(t.Context(), n.Status().Revision)))
		info, err, _ = next()
		require.NoError(t, err)
		require.Equal(t, "third", info.Value)
	})
}
