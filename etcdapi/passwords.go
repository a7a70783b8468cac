// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"runtime"

	"golang.org/x/crypto/bcrypt"
)

// hashings is how many computations of bcrypt an endpoint does at the same time. Each takes about 50 ms of a processor, anyone
// can ask for one with Authenticate, and the node has to go on meanwhile.
func hashings() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// computeHash waits for its turn, and computes.
func (s *server) computeHash(ctx context.Context, compute func()) error {
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
		compute()
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hashPassword returns the hash of a password. As in etcd, a password has at most 72 bytes.
func (s *server) hashPassword(ctx context.Context, password string) (hash []byte, err error) {
	waited := s.computeHash(ctx, func() { hash, err = bcrypt.GenerateFromPassword([]byte(password), s.bcryptCost) })
	if waited != nil {
		return nil, waited
	}
	return hash, err
}

// comparePassword reports whether a password has a hash. The error is that of ctx.
func (s *server) comparePassword(ctx context.Context, hash []byte, password string) (same bool, err error) {
	err = s.computeHash(ctx, func() { same = bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil })
	return same, err
}
