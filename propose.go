// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/signal"
)

const (
	// window is how many entries of one node may be under way. Few make for full batches and idle
	// disks, many for the reverse. That of all nodes together stays under the 64 that
	// hashicorp/raft's FSM channel bears.
	window = 6
	// maxEntryBytes ends a batch. A single larger command is an entry by itself.
	maxEntryBytes = 1 << 20
)

// A proposer brings the writes of this node into the log. Calls gather in its queue; a batch of
// them becomes one entry, which the leader, here or elsewhere, appends. A call is answered when
// this node applies it. What a change of leader may have lost is sent again: every proposal carries
// (proposer, sequence), by which the state machine applies it once.
type proposer struct {
	n    *Node
	wake chan struct{} // has a value when there may be something to send
	door *door         // of the calls inside

	mu         sync.Mutex
	id         uint64 // drawn at random; 0 when one is to be drawn
	registered bool   // the state machine knows id
	seq        uint64 // the newest given out
	lowest     uint64 // no call below it waits
	calls      map[uint64]*call
	queue      []*call // not under way, in order; some may have been given up
	stale      int     // about how many
	batches    map[*batch]struct{}
	left       map[uint64]*batch // calls under way that were given up: they keep their place
}

// A call is a write that somebody waits for.
type call struct {
	seq    uint64
	cmd    *command.Command
	batch  *batch // in which it is under way, if it is
	sent   int    // how often
	hidden bool   // since then a snapshot came, in which it may have been applied without a trace
	answer chan callAnswer
}

type callAnswer struct {
	result *command.Result
	err    error
}

// A batch is an entry under way.
type batch struct {
	taken  int // calls
	open   int // those that have not been answered, those that were given up included
	term   uint64
	resend *time.Timer
}

func newProposer(n *Node) *proposer {
	return &proposer{
		n: n, wake: make(chan struct{}, 1), door: newDoor(&n.cfg),
		calls: map[uint64]*call{}, batches: map[*batch]struct{}{}, left: map[uint64]*batch{},
	}
}

// propose has the cluster execute cmd, once, and returns what came of it here.
func (n *Node) propose(ctx context.Context, cmd *command.Command) (result *command.Result, err error) {
	if cmd.Op != (command.Op{}) {
		if err := commandError(command.Validate(&cmd.Op, n.cfg.MaxTxnOps)); err != nil {
			return nil, err
		}
	}
	size, err := command.CheckSize(cmd, n.cfg.MaxRequestBytes)
	if err != nil {
		return nil, commandError(err)
	}
	if n.cfg.Metrics != nil {
		begin := time.Now()
		defer func() { n.proposed(begin, err) }()
	}
	if err := n.alive(ctx); err != nil {
		return nil, err
	}
	grows := grows(cmd)
	if err := n.space(grows); err != nil {
		return nil, limitError(err)
	}
	if err := n.proposer.door.enter(int64(size), !grows); err != nil {
		return nil, limitError(err)
	}
	defer n.proposer.door.leave(int64(size))
	return n.proposer.do(ctx, cmd)
}

func (p *proposer) do(ctx context.Context, cmd *command.Command) (*command.Result, error) {
	c := &call{cmd: cmd, answer: make(chan callAnswer, 1)}
	p.mu.Lock()
	p.enter(c)
	p.mu.Unlock()
	p.poke()

	var err, cause error
	select {
	case a := <-c.answer:
		return a.result, a.err
	case <-ctx.Done():
		err, cause = p.n.contextError(ctx), context.Cause(ctx)
	case <-p.n.life.Closing():
		err = p.n.life.Err()
		cause = err
	}
	if p.abandon(c) {
		err = fmt.Errorf("%w: %w", ErrMaybeApplied, cause)
	}
	// The answer may have come meanwhile.
	select {
	case a := <-c.answer:
		return a.result, a.err
	default:
		return nil, err
	}
}

func (p *proposer) enter(c *call) {
	if p.id == 0 {
		p.id, p.registered = max(rand.Uint64(), 1), false
		// Entering the table is a call that nobody waits for. It is answered before any other is
		// sent, so that it can be repeated without harm.
		p.seq, p.lowest = 0, 1
		register := &call{
			cmd:    &command.Command{Register: true, Applied: p.n.views.Load().Index},
			answer: make(chan callAnswer, 1),
		}
		p.calls[0] = register
		p.queue = append(p.queue, register)
	}
	p.seq++
	c.seq = p.seq
	p.calls[c.seq] = c
	p.queue = append(p.queue, c)
}

// abandon forgets a call. It reports whether the call was ever sent.
func (p *proposer) abandon(c *call) (sent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls[c.seq] != c {
		return c.sent > 0
	}
	if c.batch == nil {
		// Without a leader nothing else empties the queue of calls that were given up.
		if p.stale++; p.stale > len(p.queue)/2 {
			p.stale = 0
			p.queue = slices.DeleteFunc(p.queue, func(q *call) bool { return q == c || p.calls[q.seq] != q })
		}
	}
	if c.batch != nil {
		// What is under way stays so: were its place in the window free, callers who give up soon
		// could have any number of entries under way.
		p.left[c.seq] = c.batch
	}
	p.forget(c)
	return c.sent > 0
}

// forget removes a call from the books.
func (p *proposer) forget(c *call) {
	delete(p.calls, c.seq)
	for p.lowest <= p.seq && p.calls[p.lowest] == nil {
		p.lowest++
	}
}

// settled notes that a call of a batch was answered.
func (p *proposer) settled(b *batch) {
	if b == nil {
		return
	}
	if b.open--; b.open == 0 {
		p.drop(b)
	}
}

// drop ends a batch: its place in the window is free.
func (p *proposer) drop(b *batch) {
	b.resend.Stop()
	delete(p.batches, b)
	maps.DeleteFunc(p.left, func(_ uint64, of *batch) bool { return of == b })
	p.poke()
}

func (p *proposer) poke() { signal.Poke(p.wake) }

// An answer is the result of this node's own proposal.
type answer struct {
	proposer, seq uint64
	result        *command.Result
}

// answered completes the calls that this node has applied. The applier calls it, after publishing
// the view.
func (p *proposer) answered(answers []answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range answers {
		if a.proposer != p.id {
			continue
		}
		c := p.calls[a.seq]
		switch {
		case c == nil:
			b := p.left[a.seq]
			delete(p.left, a.seq)
			p.settled(b)
		case a.result.Code == command.UnknownProposer:
			p.evicted()
		default:
			p.forget(c)
			p.registered = true
			c.answer <- resultAnswer(a.result)
			p.settled(c.batch)
		}
	}
	p.poke()
}

func resultAnswer(r *command.Result) callAnswer {
	if r.Code == command.ResultDropped {
		return callAnswer{err: fmt.Errorf("%w: it was, but its result was too large to be kept", ErrMaybeApplied)}
	}
	return callAnswer{result: r}
}

// evicted begins anew under another ID. The state machine has forgotten this one. A call that was
// applied before that was answered when this node applied it, unless that came inside a snapshot; and
// what is under way under the old ID is refused from now on. So all but those calls are sent again.
func (p *proposer) evicted() {
	old := p.calls
	for b := range p.batches {
		b.resend.Stop()
	}
	p.id, p.queue = 0, nil
	p.calls, p.batches, p.left = map[uint64]*call{}, map[*batch]struct{}{}, map[uint64]*batch{}
	for _, seq := range slices.Sorted(maps.Keys(old)) {
		c := old[seq]
		switch {
		case c.cmd.Register:
		case c.hidden:
			c.answer <- callAnswer{err: fmt.Errorf("%w: the cluster has forgotten this node's calls", ErrMaybeApplied)}
		default:
			c.batch, c.sent = nil, 0
			p.enter(c)
		}
	}
}

// restored completes the calls whose entries came inside a snapshot.
func (p *proposer) restored(result func(proposer, seq uint64) (*command.Result, bool)) {
	p.mu.Lock()
	var answers []answer
	for seq, c := range p.calls {
		if r, ok := result(p.id, seq); ok {
			answers = append(answers, answer{p.id, seq, r})
		} else {
			c.hidden = c.sent > 0
		}
	}
	p.mu.Unlock()
	p.answered(answers)
}

// run sends what gathers in the queue until the node closes.
func (p *proposer) run() {
	for {
		// Taken before looking, so that no change is missed.
		changed := p.n.lead.Changed()
		lead := p.n.lead.Now()
		p.recall(lead.Term)
		if lead.Leader != 0 {
			for {
				entry, b := p.take(lead.Term)
				if b == nil {
					break
				}
				p.send(lead, entry, b)
			}
		}
		select {
		case <-p.wake:
		case <-changed:
		case <-p.n.life.Closing():
			p.close()
			return
		}
	}
}

// close stops the timers of what is under way.
func (p *proposer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for b := range p.batches {
		b.resend.Stop()
	}
}

// take makes an entry of what waits in the queue, if the window has room.
func (p *proposer) take(term uint64) ([]byte, *batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 || len(p.batches) >= window || !p.registered && len(p.batches) > 0 {
		return nil, nil
	}
	b := &batch{term: term}
	entry := command.NewEntry()
	taken := 0
	for _, c := range p.queue {
		if p.calls[c.seq] != c {
			taken++
			continue
		}
		if entry.Len() > 0 && (entry.Size() >= maxEntryBytes || !p.registered) {
			break
		}
		entry.Add(&command.Proposal{Proposer: p.id, Seq: c.seq, Lowest: p.lowest, Command: *c.cmd})
		c.batch = b
		c.sent++
		b.open++
		taken++
	}
	p.queue = slices.Delete(p.queue, 0, taken)
	b.taken = b.open
	if b.open == 0 {
		return nil, nil
	}
	p.batches[b] = struct{}{}
	b.resend = time.AfterFunc(2*p.n.cfg.ElectionTimeout, func() { p.requeue(b) })
	return entry.Bytes(), b
}

// recall takes back what was sent under another term: a change of leader may have lost it.
func (p *proposer) recall(term uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for b := range p.batches {
		if b.term != term {
			p.takeBack(b)
		}
	}
}

// owns reports whether proposals of an ID are this node's. The applier asks.
func (p *proposer) owns(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return id == p.id
}

// requeue has a batch sent again.
func (p *proposer) requeue(b *batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takeBack(b)
}

func (p *proposer) takeBack(b *batch) {
	if _, ok := p.batches[b]; !ok {
		return
	}
	for _, c := range p.calls {
		if c.batch == b {
			c.batch = nil
			p.queue = append(p.queue, c)
		}
	}
	slices.SortFunc(p.queue, func(a, b *call) int { return cmp.Compare(a.seq, b.seq) })
	p.drop(b)
}

// send hands an entry to the leader. A failure has it sent again, a little later unless the leader
// changes.
func (p *proposer) send(lead ClusterLeader, entry []byte, b *batch) {
	p.n.observe(MetricBatchProposals, float64(b.taken))
	if lead.Self || p.n.room() != nil {
		if err := p.n.accept(entry); err != nil {
			p.refused(b, err)
		}
		return
	}
	p.n.life.Go(func() {
		ctx, cancel := context.WithTimeout(p.n.life.Context(), p.n.cfg.ElectionTimeout)
		defer cancel()
		if err := p.n.callPropose(ctx, lead.Leader, entry); err != nil {
			p.refused(b, err)
		}
	})
}

// refused ends the calls of a batch that a leader without room for them has refused, if they were
// never sent before, and with them what waits behind: it could not be sent sooner. Everything else is
// sent again, a little later.
func (p *proposer) refused(b *batch, err error) {
	if errors.Is(err, ErrNoSpace) {
		p.mu.Lock()
		for _, c := range p.calls {
			first := c.batch == b && c.sent == 1
			if c.cmd.Register || !first && c.sent > 0 {
				continue
			}
			if first {
				b.open--
			}
			p.forget(c)
			c.answer <- callAnswer{err: err}
		}
		p.queue = slices.DeleteFunc(p.queue, func(c *call) bool { return p.calls[c.seq] != c })
		p.mu.Unlock()
	}
	time.AfterFunc(p.n.retryAfter(), func() { p.requeue(b) })
}

// accept appends an entry of some node's, if this one leads and its disk has room.
func (n *Node) accept(entry []byte) error {
	if err := n.room(); err != nil {
		return err
	}
	n.apply(entry)
	return nil
}
