// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/leader"
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
	rounds *leader.Rounds[struct{}, readPoint]
}

func newSharedReads(n *Node) *sharedReads {
	one := func(p readPoint, err error) ([]readPoint, error) { return []readPoint{p}, err }
	return &sharedReads{leader.NewRounds(host{n.life, n},
		func(ctx context.Context, _ []struct{}) ([]readPoint, error) { return one(n.readIndex(ctx)) },
		func(ctx context.Context, leader uint64, _ []struct{}) ([]readPoint, error) {
			applied := n.views.Load().Index
			p, err := n.callReadIndex(ctx, MemberID(leader))
			if err == nil {
				err = n.verify(applied, p)
			}
			return one(p, err)
		})}
}

// point asks the leader for a readPoint, together with all callers that ask at the same moment.
func (s *sharedReads) point(ctx context.Context) (readPoint, error) {
	return s.rounds.Ask(ctx, struct{}{})
}

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

// read evaluates op, a Get or a Txn of Gets, linearizably. A node that cannot write its log applies
// nothing, so its view may stay behind the read point: then the leader evaluates op. A leader of an
// earlier version does not know that call; then, and if it fails otherwise, the read waits for the view.
func (n *Node) read(ctx context.Context, op *command.Op, quick bool) (OpResponse, error) {
	if err := n.alive(ctx); err != nil {
		return OpResponse{}, err
	}
	p, err := n.reads.point(ctx)
	if err != nil {
		return OpResponse{}, err
	}
	for {
		if !p.reached(n.views.Load()) && n.room() != nil {
			if r, err := n.callRead(ctx, op); err == nil {
				if err := resultError(r); err != nil {
					return OpResponse{}, err
				}
				return n.opResponse(op, r), nil
			}
		}
		attempt, cancel := context.WithTimeout(ctx, n.cfg.ElectionTimeout)
		v, err := n.views.Await(attempt, p.reached)
		cancel()
		if err == nil {
			return n.executeRead(ctx, v, op, quick)
		}
		if err := n.alive(ctx); err != nil {
			return OpResponse{}, err
		}
	}
}

// callRead has the leader evaluate a read.
func (n *Node) callRead(ctx context.Context, op *command.Op) (*command.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ElectionTimeout)
	defer cancel()
	lead := n.lead.Now()
	if lead.Self || lead.Leader == 0 {
		return nil, errNotLeader
	}
	request := command.Proposal{Command: command.Command{Op: *op}}
	resp, err := n.call(ctx, lead.Leader, methodRead, request.Append(nil))
	if err != nil {
		return nil, err
	}
	return command.DecodeResult(resp)
}

// answerRead evaluates a read of another node.
func (n *Node) answerRead(ctx context.Context, req []byte) ([]byte, error) {
	if !n.lead.Now().Self {
		return nil, errNotLeader
	}
	var p command.Proposal
	if err := p.Decode(req); err != nil {
		return nil, err
	}
	op := &p.Command.Op
	if op.Get == nil && (op.Txn == nil || !readOnly(op.Txn)) {
		return nil, fmt.Errorf("%w: a read that writes", ErrInvalidOption)
	}
	if err := command.Validate(op, n.cfg.MaxTxnOps); err != nil {
		return nil, commandError(err)
	}
	v, err := n.linearizableView(ctx)
	if err != nil {
		return nil, err
	}
	r := state.Execute(v.KV, op, func() bool { return ctx.Err() != nil })
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return r.Append(nil), nil
}

// retryAfter returns how long to wait before asking a leader again that has not answered.
func (n *Node) retryAfter() time.Duration { return leader.RetryAfter(n.cfg.ElectionTimeout) }
