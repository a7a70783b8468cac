// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/signal"
	"github.com/coterie-kv/coterie/internal/state"
)

// views are the states of the store that this node has applied: immutable, for any use. Only the FSM's
// goroutine publishes one; every goroutine may load it.
type views struct {
	life      *lifecycle
	ended     func(context.Context) error // the error of a call whose context has ended
	current   atomic.Pointer[state.View]
	published signal.Signal // of current
}

func newViews(life *lifecycle, ended func(context.Context) error) *views {
	s := &views{life: life, ended: ended}
	s.current.Store(state.New().View())
	return s
}

// Load returns the newest view.
func (s *views) Load() *state.View { return s.current.Load() }

// Await returns the first view that is enough.
//
// Errors: ctx's cause, with what may explain it; ErrClosed.
func (s *views) Await(ctx context.Context, enough func(*state.View) bool) (*state.View, error) {
	for {
		published := s.published.Wait()
		if v := s.Load(); enough(v) {
			return v, nil
		}
		select {
		case <-published:
		case <-ctx.Done():
			return nil, s.ended(ctx)
		case <-s.life.Closing():
			return nil, s.life.Err()
		}
	}
}

// publish makes a view the newest, and wakes those that wait for it.
func (s *views) publish(v *state.View) {
	s.current.Store(v)
	s.published.Broadcast()
}

// readView returns the view that a read's options ask for.
func (n *Node) readView(ctx context.Context, o *getOptions) (*state.View, error) {
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	switch {
	case o.serializable && o.waits:
		return nil, fmt.Errorf("%w: WithSerializable and WithWaitRevision exclude each other", ErrInvalidOption)
	case o.serializable:
		return n.views.Load(), nil
	case o.waits:
		return n.views.Await(ctx, func(v *state.View) bool { return v.KV.Revision() >= o.waitRevision })
	}
	return n.linearizableView(ctx)
}

// linearizableView returns a view that has every write that was answered before the call.
func (n *Node) linearizableView(ctx context.Context) (*state.View, error) {
	p, err := n.reads.point(ctx)
	if err != nil {
		return nil, err
	}
	return n.views.Await(ctx, p.reached)
}

// A readPoint is an index of the log at or after every write that was answered before it was asked
// for.
type readPoint struct {
	index  uint64
	term   uint64 // in which this node led all the while; 0 when another does
	leader uint64 // the term of the leader that answered, and of the entry at index; 0 if it did not tell
}

func (p readPoint) reached(v *state.View) bool { return v.Index >= p.index }

// sharedReads lets the reads of one moment share one question to the leader and its majority.
type sharedReads struct {
	rounds[struct{}, readPoint]
}

func newSharedReads(n *Node) *sharedReads {
	one := func(p readPoint, err error) ([]readPoint, error) { return []readPoint{p}, err }
	return &sharedReads{rounds[struct{}, readPoint]{
		n:    n,
		here: func(ctx context.Context, _ []struct{}) ([]readPoint, error) { return one(n.readIndex(ctx)) },
		there: func(ctx context.Context, leader MemberID, _ []struct{}) ([]readPoint, error) {
			applied := n.views.Load().Index
			p, err := n.callReadIndex(ctx, leader)
			if err == nil {
				err = n.verify(applied, p)
			}
			return one(p, err)
		},
	}}
}

// point asks the leader for a readPoint, together with all callers that ask at the moment.
func (s *sharedReads) point(ctx context.Context) (readPoint, error) { return s.ask(ctx, struct{}{}) }

// verify stops this node, and returns why, if it had applied something, before it asked the leader,
// that the leader has not committed: then the two have different logs, and no read may be answered. The
// leader's answer is at or after the first command of its own term, which follows everything that was
// committed before that term.
func (n *Node) verify(applied uint64, p readPoint) error {
	var err error
	if p.index < applied {
		err = n.log.Behind(applied, p.leader, p.index)
	} else {
		err = n.log.Contradiction(raftlog.Claim{Leader: p.leader, Committed: applied, Index: p.index, Term: p.leader})
	}
	if err == nil {
		return nil
	}
	n.log.Diverge(err)
	err = logError(err)
	n.stop(err, false)
	return err
}

// readIndex confirms that this node still leads, and returns the index that a read must wait for.
func (n *Node) readIndex(ctx context.Context) (readPoint, error) {
	lead := n.lead.Now()
	if !lead.Self {
		return readPoint{}, errNotLeader
	}
	// A leader whose own first command is not applied may not know yet what its predecessors
	// committed.
	if _, err := n.views.Await(ctx, func(v *state.View) bool { return v.Term == lead.Term || n.lead.Now() != lead }); err != nil {
		return readPoint{}, err
	}
	index, err := n.raft().confirm(ctx, lead.Term)
	return readPoint{index: index, term: lead.Term, leader: lead.Term}, err
}

// askLeader asks the leader, wherever it is, until it answers or ctx ends. Both functions may be
// called several times.
func askLeader[T any](n *Node, ctx context.Context, here func(context.Context) (T, error),
	there func(context.Context, MemberID) (T, error),
) (T, error) {
	for {
		changed := n.lead.Changed()
		v, err := askOnce(n, ctx, here, there)
		if err == nil || final(err) {
			return v, err
		}
		if err := n.alive(ctx); err != nil {
			return v, err
		}
		retry := time.NewTimer(n.retryAfter())
		select {
		case <-changed:
		case <-retry.C:
		case <-ctx.Done():
		case <-n.life.Closing():
		}
		retry.Stop()
	}
}

// askOnce asks the leader that is known now, and gives up after an election timeout.
func askOnce[T any](n *Node, ctx context.Context, here func(context.Context) (T, error),
	there func(context.Context, MemberID) (T, error),
) (v T, err error) {
	attempt, cancel := context.WithTimeout(ctx, n.cfg.ElectionTimeout)
	defer cancel()
	err = errNotLeader
	switch lead := n.lead.Now(); {
	case lead.Self:
		v, err = here(attempt)
	case lead.Leader != 0:
		v, err = there(attempt, lead.Leader)
	}
	if err != nil && attempt.Err() != nil {
		err = context.Cause(attempt) // err may tell why nobody answers, and that is no answer
	}
	return v, err
}

// retryAfter is how long to wait before asking a leader again that did not answer, unless another
// is elected meanwhile.
func (n *Node) retryAfter() time.Duration { return n.cfg.ElectionTimeout / 20 }
