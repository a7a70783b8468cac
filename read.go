// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/leader"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/signal"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/wire"
)

// views are the states of the store that this node has applied. The FSM's goroutine publishes a summary of each. A view is
// made only when a goroutine asks for one: while nobody reads, the state machine shares its trees with no view, and changes
// their nodes in place.
type views struct {
	life      *lifecycle
	ended     func(context.Context) error // the error of a call after the end of its context
	summary   atomic.Pointer[state.Summary]
	current   atomic.Pointer[state.View] // the newest state, or nil if nobody has asked for it
	published signal.Signal              // of summary

	changing sync.Mutex   // held while the state changes until it is published, and while its trees are shared
	state    *state.State // the newest one that was published
	wanted   int          // how many more batches of the log get a view at once, because reads are likely
}

// viewsAhead is the number of batches of the log that get a view at once after a read. So of many reads amid writes, few wait
// for the batch that is being applied.
const viewsAhead = 64

func newViews(life *lifecycle, ended func(context.Context) error) *views {
	s := &views{life: life, ended: ended}
	s.changing.Lock()
	defer s.changing.Unlock()
	s.publish(state.New())
	return s
}

// Summary returns the newest summary.
func (s *views) Summary() *state.Summary { return s.summary.Load() }

// Load returns the newest view, of the newest summary or a later one. If none was made yet, Load waits for the batch of the
// log that is being applied.
func (s *views) Load() *state.View {
	if v := s.current.Load(); v != nil {
		return v
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	v := s.current.Load()
	if v == nil {
		v = s.state.View()
		s.current.Store(v)
	}
	s.wanted = viewsAhead
	return v
}

// Await blocks until a summary is enough, and returns that summary.
//
// Errors: ctx's cause, joined with an error that explains it if there is one; ErrClosed.
func (s *views) Await(ctx context.Context, enough func(*state.Summary) bool) (*state.Summary, error) {
	if v := s.Summary(); enough(v) { // without a channel to wait for
		return v, nil
	}
	for {
		published := s.published.Wait()
		if v := s.Summary(); enough(v) {
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

// AwaitView blocks until a summary is enough, and returns a view of it or of a later one. Errors: those of Await.
func (s *views) AwaitView(ctx context.Context, enough func(*state.Summary) bool) (*state.View, error) {
	if _, err := s.Await(ctx, enough); err != nil {
		return nil, err
	}
	return s.Load(), nil
}

// publish makes a state the newest, and wakes those that wait for it. It returns the summary. The caller has held changing
// since before the state changed.
func (s *views) publish(newest *state.State) *state.Summary {
	var v *state.View
	if s.wanted > 0 {
		s.wanted--
		v = newest.View()
	}
	summary := newest.Summary()
	s.state = newest
	s.current.Store(v) // first, since the view must not be older than the summary
	s.summary.Store(&summary)
	s.published.Broadcast()
	return &summary
}

// A reader finds the views that reads may be evaluated in. Its methods may be called concurrently.
type reader struct {
	cfg   *Config
	lead  *leadership
	views *views
	log   *raftlog.Log
	raft  func() *consensus
	alive func(context.Context) error
	room  func() error // returns why this node cannot write its log, or nil
	call  func(ctx context.Context, to MemberID, method byte, req []byte) ([]byte, error)
	stop  func(fault error)
	asked *leader.Rounds[struct{}, readPoint] // the reads of one moment share a question to the leader

	mayConfirm func(leader MemberID, term uint64) bool // this node may confirm the leader of a term
}

func newReader(n *Node) *reader {
	r := &reader{
		cfg: &n.cfg, lead: n.lead, views: n.views, log: n.log, raft: n.raft, alive: n.alive, room: n.room, call: n.transport.call,
		stop:       func(fault error) { n.stop(fault, false) },
		mayConfirm: func(leader MemberID, term uint64) bool { return n.joiner.mayConfirm(leader, term) },
	}
	one := func(p readPoint, err error) ([]readPoint, error) { return []readPoint{p}, err }
	r.asked = leader.NewRounds(host{n.life, n},
		func(ctx context.Context, _ []struct{}) ([]readPoint, error) { return one(r.confirm(ctx)) },
		func(ctx context.Context, leader uint64, _ []struct{}) ([]readPoint, error) {
			return one(r.callReadIndex(ctx, MemberID(leader)))
		})
	return r
}

// view returns the view that the options of a read ask for.
func (r *reader) view(ctx context.Context, o *getOptions) (*state.View, error) {
	v, p, err := r.begin(ctx, o)
	if v == nil && err == nil {
		v, err = r.views.AwaitView(ctx, p.reached)
	}
	return v, err
}

// begin returns the view that the options of a read ask for. If the read is linearizable and this node has not
// applied enough for it, the view is nil and the read has to wait for the readPoint.
func (r *reader) begin(ctx context.Context, o *getOptions) (*state.View, readPoint, error) {
	if err := r.alive(ctx); err != nil {
		return nil, readPoint{}, err
	}
	switch {
	case o.serializable && o.waits:
		return nil, readPoint{}, fmt.Errorf("%w: WithSerializable and WithWaitRevision exclude each other", ErrInvalidOption)
	case o.serializable:
		return r.views.Load(), readPoint{}, nil
	case o.waits:
		v, err := r.views.AwaitView(ctx, func(v *state.Summary) bool { return v.Revision >= o.waitRevision })
		return v, readPoint{}, err
	}
	p, err := r.point(ctx)
	if err != nil {
		return nil, p, err
	}
	if p.reached(r.views.Summary()) {
		return r.views.Load(), p, nil
	}
	return nil, p, nil
}

// linearizable returns a view that has every write that was answered before the call.
func (r *reader) linearizable(ctx context.Context) (*state.View, error) {
	p, err := r.point(ctx)
	if err != nil {
		return nil, err
	}
	return r.views.AwaitView(ctx, p.reached)
}

// evaluate returns a view at or after p, in which the caller evaluates op, or else the result of op. op is a Get or
// a Txn of Gets. A node that cannot write its log applies nothing, so its view may stay behind p. The leader then
// evaluates op. If that fails, for instance because the leader is of an earlier version that does not know the
// call, the read waits for the view.
func (r *reader) evaluate(
	ctx context.Context, p readPoint, as *command.As, op *command.Op,
) (*state.View, *command.Result, error) {
	for {
		if p.reached(r.views.Summary()) {
			return r.views.Load(), nil, nil
		}
		if r.room() != nil {
			if result, err := r.callRead(ctx, as, op); err == nil {
				return nil, result, nil
			}
		}
		attempt, cancel := context.WithTimeout(ctx, r.cfg.ElectionTimeout)
		v, err := r.views.AwaitView(attempt, p.reached)
		cancel()
		if err == nil {
			return v, nil, nil
		}
		if err := r.alive(ctx); err != nil {
			return nil, nil, err
		}
	}
}

// A readPoint is an index of the log. Every write that was answered before the request for the point is at or before
// that index.
type readPoint struct {
	index  uint64
	term   uint64 // the term in which this node led throughout; 0 if another node leads
	leader uint64 // the term of the leader that answered, and of the entry at index; 0 from an earlier version
}

func (p readPoint) reached(v *state.Summary) bool { return v.Index >= p.index }

// point asks the leader for a readPoint, together with all callers that ask at the same moment.
func (r *reader) point(ctx context.Context) (readPoint, error) { return r.asked.Ask(ctx, struct{}{}) }

// confirm confirms that this node still leads, and returns the index that a read must wait for.
func (r *reader) confirm(ctx context.Context) (readPoint, error) {
	lead := r.lead.Now()
	if !lead.Self {
		return readPoint{}, errNotLeader
	}
	// Before the first command of its own term is applied, a leader may not know everything that its
	// predecessors committed.
	if _, err := r.views.Await(ctx, func(v *state.Summary) bool { return v.Term == lead.Term || r.lead.Now() != lead }); err != nil {
		return readPoint{}, err
	}
	index, err := r.raft().confirm(ctx, lead.Term)
	return readPoint{index: index, term: lead.Term, leader: lead.Term}, err
}

// verify compares the answer of the leader with the index that this node had applied before it asked. If the
// leader has not committed that entry, the two nodes have different logs, and no read may be answered: verify
// stops this node and returns the reason. The leader's answer is at or after the first command of its own
// term, which follows everything that was committed before that term.
func (r *reader) verify(applied uint64, p readPoint) error {
	var err error
	if p.index < applied {
		err = r.log.Behind(applied, p.leader, p.index)
	} else {
		err = r.log.Contradiction(raftlog.Claim{Leader: p.leader, Committed: applied, Index: p.index, Term: p.leader})
	}
	if err == nil {
		return nil
	}
	r.log.Diverge(err)
	err = logError(err)
	r.stop(err)
	return err
}

// The calls between nodes about reads.

func (r *reader) callReadIndex(ctx context.Context, leader MemberID) (readPoint, error) {
	applied := r.views.Summary().Index
	var question []byte // has the newest term that this node has recorded, if that may confirm the leader
	if recorded := r.log.Term(); r.mayConfirm(leader, recorded) {
		question = binary.AppendUvarint(nil, recorded)
	}
	b, err := r.call(ctx, leader, methodReadIndex, question)
	if err != nil {
		return readPoint{}, err
	}
	index, size := binary.Uvarint(b)
	if size <= 0 {
		return readPoint{}, wire.ErrMalformed
	}
	term, _ := binary.Uvarint(b[size:]) // an earlier version does not send it
	p := readPoint{index: index, leader: term}
	return p, r.verify(applied, p)
}

// answerReadIndex answers the question of a member in good standing. An earlier version sends no term.
func (r *reader) answerReadIndex(ctx context.Context, from MemberID, req []byte) ([]byte, error) {
	lead := r.lead.Now()
	if !lead.Self {
		return nil, errNotLeader
	}
	if term, _ := binary.Uvarint(req); term == lead.Term && r.views.Summary().Term == term {
		if index, ok := r.raft().confirmedBy(from, term); ok {
			return binary.AppendUvarint(binary.AppendUvarint(nil, index), term), nil
		}
	}
	p, err := r.point(ctx)
	return binary.AppendUvarint(binary.AppendUvarint(nil, p.index), p.leader), err
}

// callRead makes the leader evaluate a read.
func (r *reader) callRead(ctx context.Context, as *command.As, op *command.Op) (*command.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.ElectionTimeout)
	defer cancel()
	lead := r.lead.Now()
	if lead.Self || lead.Leader == 0 {
		return nil, errNotLeader
	}
	request := command.Proposal{Command: command.Command{As: as, Op: *op}}
	resp, err := r.call(ctx, lead.Leader, methodRead, request.Append(nil))
	if err != nil {
		return nil, err
	}
	return command.DecodeResult(resp)
}

// answerRead evaluates a read of another node.
func (r *reader) answerRead(ctx context.Context, req []byte) ([]byte, error) {
	if !r.lead.Now().Self {
		return nil, errNotLeader
	}
	var p command.Proposal
	if err := p.Decode(req); err != nil {
		return nil, err
	}
	op := &p.Command.Op
	if op.Get == nil && (op.Txn == nil || !readOnly(op.Txn)) {
		return nil, fmt.Errorf("%w: a forwarded read must not write", ErrInvalidOption)
	}
	if err := command.Validate(op, r.cfg.MaxTxnOps); err != nil {
		return nil, commandError(err)
	}
	v, err := r.linearizable(ctx)
	if err != nil {
		return nil, err
	}
	if code := v.Permit(p.Command.As, op); code != command.OK {
		return (&command.Result{Code: code, Revision: v.KV.Revision()}).Append(nil), nil
	}
	result := state.Execute(v.KV, op, func() bool { return ctx.Err() != nil })
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return result.Append(nil), nil
}
