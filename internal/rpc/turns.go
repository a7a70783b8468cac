// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"fmt"
	"sync"
)

// maxCalls bounds the calls of a client that are in flight with one peer, and so its connections on
// LaneCall. Further calls wait: a connection for each would flood the peer with handshakes.
const maxCalls = 16

// A turns bounds the calls in flight with each peer. The zero value is ready.
type turns struct {
	mu    sync.Mutex
	peers map[Peer]*turnstile
}

type turnstile struct {
	places chan struct{}
	users  int // number of calls that have a place or wait for one; guarded by turns.mu
}

// take waits for a place, in the order of the calls, until ctx ends. The caller gives it back with leave.
func (t *turns) take(ctx context.Context, peer Peer) (*turnstile, error) {
	t.mu.Lock()
	s := t.peers[peer]
	if s == nil {
		if t.peers == nil {
			t.peers = map[Peer]*turnstile{}
		}
		s = &turnstile{places: make(chan struct{}, maxCalls)}
		t.peers[peer] = s
	}
	s.users++
	t.mu.Unlock()
	select {
	case s.places <- struct{}{}:
		return s, nil
	case <-ctx.Done():
		t.forget(peer, s)
		return nil, fmt.Errorf("%w (%d calls are in flight)", context.Cause(ctx), maxCalls)
	}
}

// leave returns a place.
func (t *turns) leave(peer Peer, s *turnstile) {
	<-s.places
	t.forget(peer, s)
}

// forget ends a call's use of a turnstile, and removes one without calls.
func (t *turns) forget(peer Peer, s *turnstile) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.users--; s.users == 0 {
		delete(t.peers, peer)
	}
}
