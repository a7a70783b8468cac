// SPDX-License-Identifier: Apache-2.0

// Package leader asks the leader of a cluster, on this node or on another one: [Ask] repeats a question until
// a leader has answered it, and [Rounds] answers the questions of many callers with few calls.
package leader

import (
	"context"
	"time"

	"github.com/coterie-kv/coterie/internal/fault"
)

// A Host is the node that asks.
type Host interface {
	// Leader returns the leader that is known, 0 for none, and whether it is this node.
	Leader() (leader, term uint64, self bool)
	// LeaderChanged returns a channel that the next change of Leader closes.
	LeaderChanged() <-chan struct{}
	ElectionTimeout() time.Duration
	// Final reports whether the leader would answer with the same error again.
	Final(err error) bool
	// Alive returns why a call cannot go on, if so: ContextError, or Err.
	Alive(ctx context.Context) error

	// Context returns the context of the node's own work.
	Context() context.Context
	// Go runs a function in a goroutine of the node.
	Go(func())
	// Closing returns a channel that is closed when calls have to return Err.
	Closing() <-chan struct{}
	Err() error
	// WhenClosing calls fn, in a goroutine of its own, when Closing is closed.
	WhenClosing(fn func())
	// ContextError returns the error of a call after its context has ended.
	ContextError(ctx context.Context) error
}

// RetryAfter returns how long to wait before asking a leader again that has not answered, unless another is
// elected meanwhile.
func RetryAfter(electionTimeout time.Duration) time.Duration { return electionTimeout / 20 }

// Ask asks the leader until it answers, an error is final, or ctx ends. here asks this node if it leads, and
// there asks another one; both may be called several times.
func Ask[A any](ctx context.Context, h Host, here func(context.Context) (A, error),
	there func(ctx context.Context, leader uint64) (A, error),
) (A, error) {
	for {
		changed := h.LeaderChanged()
		answer, err := AskOnce(ctx, h, here, there)
		if err == nil || h.Final(err) {
			return answer, err
		}
		if err := h.Alive(ctx); err != nil {
			return answer, err
		}
		retry := time.NewTimer(RetryAfter(h.ElectionTimeout()))
		select {
		case <-changed:
		case <-retry.C:
		case <-ctx.Done():
		case <-h.Closing():
		}
		retry.Stop()
	}
}

// AskOnce asks the leader that is known now, and gives up after an election timeout.
//
// Errors: fault.ErrNotLeader if none is known.
func AskOnce[A any](ctx context.Context, h Host, here func(context.Context) (A, error),
	there func(ctx context.Context, leader uint64) (A, error),
) (answer A, err error) {
	attempt, cancel := context.WithTimeout(ctx, h.ElectionTimeout())
	defer cancel()
	err = fault.ErrNotLeader
	switch leader, _, self := h.Leader(); {
	case self:
		answer, err = here(attempt)
	case leader != 0:
		answer, err = there(attempt, leader)
	}
	if err != nil && attempt.Err() != nil {
		err = context.Cause(attempt) // err may explain why the leader did not answer; it is no answer
	}
	return answer, err
}
