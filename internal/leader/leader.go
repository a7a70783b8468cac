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
	var p patience
	defer p.end()
	return askAgain(ctx, h, &p, here, there)
}

func askAgain[A any](ctx context.Context, h Host, p *patience, here func(context.Context) (A, error),
	there func(ctx context.Context, leader uint64) (A, error),
) (A, error) {
	for {
		changed := h.LeaderChanged()
		answer, err := askOnce(p.attempt(ctx, h.ElectionTimeout()), h, here, there)
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
	return askOnce(attempt, h, here, there)
}

func askOnce[A any](attempt context.Context, h Host, here func(context.Context) (A, error),
	there func(ctx context.Context, leader uint64) (A, error),
) (answer A, err error) {
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

// A patience bounds attempts to ask the leader. One goroutine uses it, with one parent context. Attempts that follow
// each other closely share a context, because a context with a timer costs as much as the rest of a short attempt.
type patience struct {
	ctx    context.Context
	cancel context.CancelFunc
	begun  time.Time
}

// attempt returns the context of an attempt, which has at least half of the timeout left, and all of it after an
// attempt that took too long.
func (p *patience) attempt(parent context.Context, timeout time.Duration) context.Context {
	if p.ctx == nil || p.ctx.Err() != nil || time.Since(p.begun) > timeout/2 {
		p.end()
		p.begun = time.Now()
		p.ctx, p.cancel = context.WithTimeout(parent, timeout)
	}
	return p.ctx
}

// end frees the context.
func (p *patience) end() {
	if p.cancel != nil {
		p.cancel()
	}
}
