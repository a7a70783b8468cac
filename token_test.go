// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func TestTokensAreValidOnEveryNode(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		a := administrator{t, c.Node(0)}
		ctx := t.Context()
		ready := func() {
			for i := range 3 {
				require.NoError(t, c.Node(i).Ready(ctx))
			}
		}
		a.user("alice")
		require.ErrorIs(t, errOf(c.Node(0).NewToken(ctx, "alice", 0, time.Hour)), coterie.ErrAuthNotEnabled)
		require.ErrorIs(t, errOf(c.Node(0).VerifyToken("")), coterie.ErrAuthNotEnabled)
		a.enable()
		require.ErrorIs(t, errOf(c.Node(0).NewToken(ctx, "bob", 0, time.Hour)), coterie.ErrUserNotFound)
		require.ErrorIs(t, errOf(c.Node(0).NewToken(ctx, "alice", 0, 0)), coterie.ErrInvalidOption)
		var tokens []string
		for i := range 3 {
			token, err := c.Node(i).NewToken(ctx, "alice", 0, time.Hour)
			require.NoError(t, err)
			tokens = append(tokens, token)
		}
		revision := a.revision()
		valid := func(want bool) {
			t.Helper()
			ready()
			for i := range 3 {
				for _, token := range tokens {
					got, err := c.Node(i).VerifyToken(token)
					if !want {
						require.ErrorIs(t, err, coterie.ErrInvalidAuthToken)
						continue
					}
					require.NoError(t, err)
					require.Equal(t, "alice", got.User)
					require.Equal(t, revision, got.AuthRevision)
					require.WithinDuration(t, time.Now().Add(time.Hour), got.Expires, time.Minute)
				}
			}
		}
		valid(true)
		a.must(a.RoleAdd(ctx, "unrelated"))
		a.must(a.AuthEnable(ctx))
		valid(true)
		for i := range 3 {
			c.Crash(i)
		}
		for i := range 3 {
			c.Restart(i)
		}
		valid(true)
		a.Auth = c.Node(0)
		a.must(a.UserChangePassword(ctx, "alice", []byte("new")))
		valid(false)
		require.ErrorIs(t, errOf(c.Node(1).NewToken(ctx, "alice", revision, time.Hour)), coterie.ErrAuthOldRevision)

		revision = a.revision()
		again := func() {
			for i := range tokens {
				var err error
				tokens[i], err = c.Node(i).NewToken(ctx, "alice", revision, time.Hour)
				require.NoError(t, err)
			}
			valid(true)
		}
		again()
		a.must(a.UserDelete(ctx, "alice"))
		valid(false)
		a.must(a.UserAdd(ctx, "alice"))
		valid(false)
		revision = a.revision()
		again()
		time.Sleep(time.Hour)
		valid(false)
		ended, err := c.Node(0).VerifyToken(tokens[0])
		require.ErrorIs(t, err, coterie.ErrInvalidAuthToken)
		require.Equal(t, "alice", ended.User, "only its time has ended")
		a.must(a.UserChangePassword(ctx, "alice", nil))
		ended, err = c.Node(0).VerifyToken(tokens[0])
		require.ErrorIs(t, err, coterie.ErrInvalidAuthToken)
		require.Zero(t, ended)
		revision = a.revision()

		again()
		a.must(a.AuthDisable(ctx))
		a.must(a.AuthEnable(ctx))
		valid(false)
		_, err = c.Node(0).NewToken(ctx, "alice", 0, time.Hour) // with another secret
		require.NoError(t, err)
		valid(false)
	})
}

// Every change of a token makes it invalid, and so does the secret of another cluster.
func TestForgedTokensAreInvalid(t *testing.T) {
	n := open(t)
	a := administrator{t, n}
	a.user("alice")
	a.user("bob")
	a.enable()
	require.ErrorIs(t, errOf(n.VerifyToken("")), coterie.ErrInvalidAuthToken, "there is no secret yet")
	require.ErrorIs(t, errOf(n.VerifyToken(".")), coterie.ErrInvalidAuthToken)
	token, err := n.NewToken(t.Context(), "alice", 0, time.Hour)
	require.NoError(t, err)
	require.NoError(t, errOf(n.VerifyToken(token)))
	for i := range token {
		for _, c := range []string{"A", "B", "-", "_", ".", "=", "\n", ""} {
			if forged := token[:i] + c + token[i+1:]; forged != token {
				require.ErrorIs(t, errOf(n.VerifyToken(forged)), coterie.ErrInvalidAuthToken, forged)
			}
		}
		require.ErrorIs(t, errOf(n.VerifyToken(token[:i])), coterie.ErrInvalidAuthToken)
	}
	for _, forged := range []string{token + "A", token + ".", "." + token, token + "=", strings.ToUpper(token)} {
		require.ErrorIs(t, errOf(n.VerifyToken(forged)), coterie.ErrInvalidAuthToken, forged)
	}
	text, mac, _ := strings.Cut(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(text)
	require.NoError(t, err)
	bob := base64.RawURLEncoding.EncodeToString(bytes.Replace(payload, []byte("\x05alice"), []byte("\x03bob"), 1))
	require.ErrorIs(t, errOf(n.VerifyToken(bob+"."+mac)), coterie.ErrInvalidAuthToken)

	var b bytes.Buffer
	_, err = n.Backup(t.Context(), &b)
	require.NoError(t, err)
	cfg := coterie.Config{Name: "a", Dir: t.TempDir() + "/restored"}
	require.NoError(t, coterie.RestoreBackup(t.Context(), &b, cfg))
	restored, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, restored.Ready(t.Context()))
	require.ErrorIs(t, errOf(restored.VerifyToken(token)), coterie.ErrInvalidAuthToken, "of another cluster")
	own, err := restored.NewToken(t.Context(), "alice", 0, time.Hour)
	require.NoError(t, err)
	require.NoError(t, errOf(restored.VerifyToken(own)))
	require.ErrorIs(t, errOf(n.VerifyToken(own)), coterie.ErrInvalidAuthToken, "of another cluster")
	require.NoError(t, restored.Close())
	require.ErrorIs(t, errOf(restored.VerifyToken(own)), coterie.ErrClosed)
	require.ErrorIs(t, errOf(restored.NewToken(context.Background(), "alice", 0, time.Hour)), coterie.ErrClosed)
}

func BenchmarkVerifyToken(b *testing.B) {
	n := open(b)
	for _, err := range []error{
		errOf(n.UserAdd(b.Context(), coterie.Root)), errOf(n.UserGrantRole(b.Context(), coterie.Root, coterie.Root)),
		errOf(n.AuthEnable(b.Context())),
	} {
		require.NoError(b, err)
	}
	token, err := n.NewToken(b.Context(), coterie.Root, 0, time.Hour)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := n.VerifyToken(token); err != nil {
			b.Fatal(err)
		}
	}
}

func TestTokensMayLiveAsLongAsDurations(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		a := administrator{t, c.Node(0)}
		a.user("alice")
		a.enable()
		token, err := c.Node(0).NewToken(t.Context(), "alice", 0, math.MaxInt64)
		require.NoError(t, err)
		_, err = c.Node(0).VerifyToken(token)
		require.NoError(t, err)
	})
}
