// SPDX-License-Identifier: Apache-2.0

// Package proposer brings the writes of a node into the log.
//
// Calls gather in the queue of a [Proposer]. A batch of them becomes one entry, which the leader appends,
// here or on another node. A call is answered when this node applies it. Entries that a change of leader may
// have lost are sent again: every proposal carries the proposer's ID and a sequence number, by which the
// state machine applies it once.
package proposer

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/signal"
)

// A Host is the node of a Proposer.
type Host interface {
	// Leader returns the leader that is known, 0 for none, and whether it is this node.
	Leader() (leader, term uint64, self bool)
	// LeaderChanged returns a channel that the next change of Leader closes.
	LeaderChanged() <-chan struct{}
	// Applied returns the index of the log that this node has applied.
	Applied() uint64
	// Room returns fault.ErrNoSpace while this node cannot write its log. It would not see its own writes
	// applied.
	Room() error
	// Append appends an entry to the log of this node, which leads. It may drop the entry.
	Append(entry []byte)
	// Forward sends an entry to the leader. An error does not say that the entry is not appended.
	Forward(ctx context.Context, leader uint64, entry []byte) error
	// Batched measures how many calls an entry has.
	Batched(calls int)

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

// A Config bounds a Proposer.
type Config struct {
	MaxCalls        int   // that wait at the same time
	MaxBytes        int64 // of their requests
	ElectionTimeout time.Duration
}

// A Proposer brings the writes of one run of a node into the log. Its methods may be called concurrently.
type Proposer struct {
	host      Host
	timeout   time.Duration // of an election
	wake      chan struct{} // has a value when there may be something to send
	admission admission     // of the calls that wait
	// idle has calls without callers. It is not shared by nodes: the channels of a test's bubble belong to the bubble.
	idle sync.Pool

	mu         sync.Mutex // guards the fields below, and those of calls and batches
	closed     bool       // calls fail
	id         uint64     // drawn at random; 0 when one is to be drawn
	registered bool       // the state machine knows id
	seq        uint64     // the newest sequence number
	lowest     uint64     // no call below it waits
	calls      map[uint64]*call
	queue      []uint64 // the calls that are not in flight, in order; some may be abandoned
	stale      int      // about how many
	batches    map[*batch]struct{}
	left       map[uint64]*batch // abandoned calls that are in flight: they keep their place in the window

	answered []*call // by Answered, which alone uses it
}

// A call is a write with a waiting caller. While it is in Proposer.calls, the Proposer's mu guards it. The goroutine
// that takes it out sets result and err and sends to done, unless it is the caller itself. Afterwards the call belongs
// to its caller, which returns it to Proposer.idle.
type call struct {
	seq    uint64
	cmd    command.Command
	size   int    // of cmd, as command.CheckSize returns it
	batch  *batch // in which it is in flight; nil if it is not
	sent   int    // how often
	hidden bool   // since it was sent, a snapshot came that may contain it without a trace

	result *command.Result
	err    error
	done   chan struct{} // of capacity 1
}

func newCall() *call { return &call{done: make(chan struct{}, 1)} }

// A batch is an entry in flight.
type batch struct {
	taken  int // calls
	open   int // calls that are not answered, abandoned ones included
	term   uint64
	resend *time.Timer
}

// New returns a Proposer that sends nothing until Run is called.
func New(host Host, cfg Config) *Proposer {
	p := &Proposer{
		host: host, timeout: cfg.ElectionTimeout, wake: make(chan struct{}, 1),
		admission: admission{maxCalls: int64(cfg.MaxCalls), maxBytes: cfg.MaxBytes},
		idle:      sync.Pool{New: func() any { return newCall() }},
		calls:     map[uint64]*call{}, batches: map[*batch]struct{}{}, left: map[uint64]*batch{},
	}
	host.WhenClosing(p.close)
	return p
}

// Do makes the cluster execute cmd once, and returns the result that it had on this node. It does not keep cmd. size
// is that of cmd, as command.CheckSize returns it. frees says that cmd needs no memory in the store, so that it is
// admitted above the bounds.
//
// Errors: *fault.LimitError with fault.ErrOverloaded; fault.ErrNoSpace; fault.ErrMaybeApplied; the host's
// ContextError and Err.
func (p *Proposer) Do(ctx context.Context, cmd *command.Command, size int, frees bool) (*command.Result, error) {
	if err := p.admission.enter(int64(size), frees); err != nil {
		return nil, err
	}
	defer p.admission.leave(int64(size))
	c := p.idle.Get().(*call)
	c.cmd, c.size = *cmd, size
	p.mu.Lock()
	open := !p.closed
	if open {
		p.enqueue(c)
	}
	p.mu.Unlock()
	if !open {
		return nil, p.host.Err()
	}
	p.poke()
	result, err := p.wait(ctx, c)
	*c = call{done: c.done}
	p.idle.Put(c)
	return result, err
}

// wait returns the answer of a call, or why its caller gives up.
func (p *Proposer) wait(ctx context.Context, c *call) (*command.Result, error) {
	// Each channel in a select costs about as much as the rest of a wait. So close ends calls through done, and a
	// context that cannot end takes no part.
	ended := ctx.Done()
	if ended == nil {
		<-c.done
		return c.result, c.err
	}
	select {
	case <-c.done:
		return c.result, c.err
	case <-ended:
	}
	err := p.host.ContextError(ctx)
	waited, sent := p.abandon(c)
	switch {
	case !waited: // the answer has come meanwhile
		<-c.done
		return c.result, c.err
	case sent:
		return nil, fmt.Errorf("%w: %w", fault.ErrMaybeApplied, context.Cause(ctx))
	}
	return nil, err
}

// end wakes the caller of a call that was taken out of Proposer.calls.
func (c *call) end(result *command.Result, err error) {
	c.result, c.err = result, err
	c.done <- struct{}{}
}

// close fails all calls, because the node closes.
func (p *Proposer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	err := p.host.Err()
	for _, c := range p.calls {
		if c.sent > 0 {
			c.end(nil, fmt.Errorf("%w: %w", fault.ErrMaybeApplied, err))
		} else {
			c.end(nil, err)
		}
	}
	clear(p.calls)
	p.queue = nil
}

// Pending returns how many calls wait, and the bytes of their requests.
func (p *Proposer) Pending() (calls, bytes int64) {
	return p.admission.calls.Load(), p.admission.bytes.Load()
}

// Owns reports whether proposals with an ID are this proposer's.
func (p *Proposer) Owns(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return id == p.id
}

// enqueue adds a call to the queue, and before it the registration of a new ID.
func (p *Proposer) enqueue(c *call) {
	if p.id == 0 {
		p.id, p.registered = max(rand.Uint64(), 1), false
		// The registration is a call that no caller waits for. It is answered before any other is sent, so
		// that repeating it does no harm.
		p.seq, p.lowest = 0, 1
		register := newCall()
		register.cmd = command.Command{Register: true, Applied: p.host.Applied()}
		p.calls[0] = register
		p.queue = append(p.queue, 0)
	}
	p.seq++
	c.seq = p.seq
	p.calls[c.seq] = c
	p.queue = append(p.queue, c.seq)
}

// abandon forgets a call after its caller has given up. It reports whether the call was still waiting for its answer,
// and whether it was ever sent.
func (p *Proposer) abandon(c *call) (waited, sent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls[c.seq] != c {
		return false, c.sent > 0
	}
	if c.batch == nil {
		// Without a leader nothing else removes abandoned calls from the queue.
		if p.stale++; p.stale > len(p.queue)/2 {
			p.stale = 0
			p.queue = slices.DeleteFunc(p.queue, func(seq uint64) bool { return seq == c.seq || p.calls[seq] == nil })
		}
	} else {
		// Keep the place of the call in the window until it is answered. Otherwise callers with short
		// timeouts could have unlimited entries in flight.
		p.left[c.seq] = c.batch
	}
	p.forget(c)
	return true, c.sent > 0
}

// forget removes a call from the books.
func (p *Proposer) forget(c *call) {
	delete(p.calls, c.seq)
	for p.lowest <= p.seq && p.calls[p.lowest] == nil {
		p.lowest++
	}
}

// An Answer is the result of one of this node's own proposals.
type Answer struct {
	Proposer, Seq uint64
	Result        *command.Result
}

// Answered completes the calls that this node has applied. Call it after the view is published, so that a
// caller finds its write. One goroutine calls it.
func (p *Proposer) Answered(answers []Answer) {
	p.mu.Lock()
	for _, a := range answers {
		if a.Proposer != p.id {
			continue
		}
		c := p.calls[a.Seq]
		switch {
		case c == nil:
			b := p.left[a.Seq]
			delete(p.left, a.Seq)
			p.completed(b)
		case a.Result.Code == command.UnknownProposer:
			p.evicted()
		default:
			p.forget(c)
			p.registered = true
			c.result = a.Result
			p.completed(c.batch)
			p.answered = append(p.answered, c)
		}
	}
	p.mu.Unlock()
	// The callers are woken without mu, since most of them call again at once.
	for _, c := range p.answered {
		c.end(answer(c.result))
	}
	clear(p.answered)
	p.answered = p.answered[:0]
	p.poke()
}

// answer returns the answer of a call with the result of its command.
func answer(r *command.Result) (*command.Result, error) {
	if r.Code == command.ResultDropped {
		return nil, fmt.Errorf("%w: it was applied, but its result was too large to be kept", fault.ErrMaybeApplied)
	}
	return r, nil
}

// evicted draws a new ID, because the state machine has forgotten this one, and sends everything again. It
// does not send the calls again that a snapshot may contain already: their outcome is unknown. Any other
// call that was applied before was answered when this node applied it, and an entry in flight with the old
// ID is rejected from now on.
func (p *Proposer) evicted() {
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
			c.end(nil, fmt.Errorf("%w: the cluster has forgotten this node's calls", fault.ErrMaybeApplied))
		default:
			c.batch, c.sent = nil, 0
			p.enqueue(c)
		}
	}
}

// Restored completes the calls that a snapshot contains. result returns the result of a proposal that the
// state machine remembers.
func (p *Proposer) Restored(result func(proposer, seq uint64) (*command.Result, bool)) {
	p.mu.Lock()
	var answers []Answer
	for seq, c := range p.calls {
		if r, ok := result(p.id, seq); ok {
			answers = append(answers, Answer{p.id, seq, r})
		} else {
			c.hidden = c.sent > 0
		}
	}
	p.mu.Unlock()
	p.Answered(answers)
}

func (p *Proposer) poke() { signal.Poke(p.wake) }
