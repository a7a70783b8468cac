// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// A wait that ends reports the process that has the lock, or that there is no quorum.
func TestHeldErrorNamesTheHolder(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, n := c.Leader(), c.Follower()
		holder := session(t, n, coterie.WithTTL(time.Hour))
		asked := time.Now()
		require.NoError(t, coterie.NewMutex(holder, "lock").Lock(t.Context()))
		require.NoError(t, coterie.NewElection(holder, "job").Campaign(t.Context(), strings.Repeat("é", 200)))
		s := session(t, leader, coterie.WithTTL(time.Hour))
		waits := map[string]func(ctx context.Context) error{
			"lock":   coterie.NewMutex(s, "lock").Lock,
			"behind": func(ctx context.Context) error { return coterie.NewMutex(s, "lock").Lock(ctx) },
			"do":     func(ctx context.Context) error { return coterie.NewMutex(s, "lock").Do(ctx, nil) },
			"job":    func(ctx context.Context) error { return coterie.NewElection(s, "job").Campaign(ctx, "b") },
		}
		check := func(name string, err error, cause error) *coterie.HeldError {
			var held *coterie.HeldError
			require.ErrorAs(t, err, &held, name)
			require.ErrorIs(t, err, cause)
			require.Equal(t, holder.Lease(), held.Lease)
			if name == "job" {
				require.Less(t, len(err.Error()), 1000)
				return held
			}
			require.Equal(t, "lock", held.Name)
			h, ok := coterie.ParseHolder(held.Value)
			require.True(t, ok)
			host, _ := os.Hostname()
			require.Equal(t, coterie.Holder{Node: n.Status().Name, Host: host, PID: os.Getpid(), Asked: asked.UTC()}, h)
			for _, part := range []string{n.Status().Name, host, fmt.Sprint(os.Getpid()), asked.UTC().Format(time.RFC3339), held.Key} {
				require.Contains(t, err.Error(), part)
			}
			return held
		}
		check("try", coterie.NewMutex(s, "lock").TryLock(t.Context()), coterie.ErrLocked)
		for name, wait := range waits {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := wait(ctx)
			cancel()
			check(name, err, context.DeadlineExceeded)
			require.NotErrorIs(t, err, coterie.ErrNoLeader)
		}
		cause := errors.New("shut down")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		t.Log(check("cause", waits["lock"](ctx), cause))

		c.Partition() // each alone
		for name, wait := range waits {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			err := wait(ctx)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
			require.ErrorIs(t, err, coterie.ErrNoLeader, name)
		}
		c.Heal()
	})
}

// A wait that ends with its session reports only that.
func TestHeldErrorNotAfterALostSession(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		require.NoError(t, coterie.NewMutex(session(t, n), "lock").Lock(t.Context()))
		s := session(t, n)
		time.AfterFunc(time.Second, func() { s.Close() })
		err := coterie.NewMutex(s, "lock").Lock(t.Context())
		require.ErrorIs(t, err, coterie.ErrSessionExpired)
		require.False(t, errors.As(err, new(*coterie.HeldError)))
	})
}

func TestParseHolder(t *testing.T) {
	for _, value := range []string{"", "a", "3", "{}", "null", `{"node":"a"}`, `{"node":1}`} {
		_, ok := coterie.ParseHolder(value)
		require.False(t, ok, value)
	}
	h := coterie.Holder{Node: "a", Host: "h", PID: 7, Asked: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
	require.Equal(t, `{"node":"a","host":"h","pid":7,"asked":"2026-01-02T03:04:05.000000006Z"}`, h.Value())
	parsed, ok := coterie.ParseHolder(h.Value())
	require.True(t, ok)
	require.Equal(t, h, parsed)
}
