// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/crypto/bcrypt"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// The password may change after Authenticate has compared it, and before it has made the token.
func TestAuthenticateComparesAChangedPassword(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, n := c.Leader(), c.Follower()
		hash := func(password string) []byte {
			h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
			require.NoError(t, err)
			return h
		}
		_, err := leader.UserAdd(t.Context(), coterie.Root, coterie.WithPasswordHash(hash("old")))
		require.NoError(t, err)
		_, err = leader.UserGrantRole(t.Context(), coterie.Root, coterie.Root)
		require.NoError(t, err)
		_, err = leader.AuthEnable(t.Context())
		require.NoError(t, err)

		s := newServer(n, nil).from(embedder)
		s.hashing = newTurns(1)
		require.NoError(t, s.hashing.begin(t.Context(), administrators)) // so that the comparison waits
		failed := make(chan error, 1)
		go func() {
			_, err := (&authServer{server: s}).Authenticate(t.Context(), &pb.AuthenticateRequest{Name: coterie.Root, Password: "old"})
			failed <- err
		}()
		synctest.Wait()
		cut := c.Index(n)
		c.Partition([]int{cut}, slices.DeleteFunc([]int{0, 1, 2}, func(i int) bool { return i == cut }))
		_, err = leader.UserChangePassword(t.Context(), coterie.Root, hash("new"))
		require.NoError(t, err)
		s.hashing.end()
		synctest.Wait() // the password is right, and the token waits for the leader
		require.Empty(t, failed)
		c.Heal()
		require.ErrorIs(t, <-failed, coterie.ErrAuthFailed)
	})
}
