// SPDX-License-Identifier: Apache-2.0

package proposer

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/fault"
)

const (
	// window is how many entries of one node may be in flight. Few make for full batches and idle disks,
	// many for the reverse. The entries of all nodes together stay below the 64 that hashicorp/raft's FSM
	// channel holds.
	window = 6
	// maxEntryBytes ends a batch: the command that reaches it is the last one of its entry.
	maxEntryBytes = 1 << 20
)

// Run sends the calls of the queue until the node closes.
func (p *Proposer) Run() {
	for {
		// Taken before the leader is read, so that no change is missed.
		changed := p.host.LeaderChanged()
		leader, term, self := p.host.Leader()
		p.recall(term)
		// An entry that was applied has woken its callers, and most of them call again. Let those that can run join the
		// next entry: otherwise the first of them would get one of its own.
		runtime.Gosched()
		if leader != 0 {
			for {
				entry, b := p.take(term)
				if b == nil {
					break
				}
				p.send(leader, self, entry, b)
			}
		}
		select {
		case <-p.wake:
		case <-changed:
		case <-p.host.Closing():
			p.stopTimers()
			return
		}
	}
}

// stopTimers stops the timers of the batches in flight.
func (p *Proposer) stopTimers() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for b := range p.batches {
		b.resend.Stop()
	}
}

// take makes an entry of the calls in the queue, if the window has a free place.
func (p *Proposer) take(term uint64) ([]byte, *batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 || len(p.batches) >= window || !p.registered && len(p.batches) > 0 {
		return nil, nil
	}
	b := &batch{term: term}
	entry := command.NewEntry()
	p.grow(entry)
	taken := 0
	for _, seq := range p.queue {
		c := p.calls[seq]
		if c == nil { // it was abandoned
			taken++
			continue
		}
		if entry.Len() > 0 && (entry.Size() >= maxEntryBytes || !p.registered) {
			break
		}
		entry.Add(&command.Proposal{Proposer: p.id, Seq: seq, Lowest: p.lowest, Command: c.cmd})
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
	b.resend = time.AfterFunc(2*p.timeout, func() { p.requeue(b) })
	return entry.Bytes(), b
}

// grow makes memory for the calls that an entry will have, at once: an entry of many calls that grows by copying
// allocates five times its size.
func (p *Proposer) grow(entry *command.Entry) {
	calls, size := 0, 0
	for _, seq := range p.queue {
		c := p.calls[seq]
		if c == nil {
			continue
		}
		if calls > 0 && (size >= maxEntryBytes || !p.registered) {
			break
		}
		calls++
		size += c.size
	}
	entry.Grow(calls, size)
}

// send hands an entry to the leader. After a failure the entry is sent again, a little later unless the
// leader changes.
func (p *Proposer) send(leader uint64, self bool, entry []byte, b *batch) {
	p.host.Batched(b.taken)
	if err := p.host.Room(); err != nil {
		p.refused(b, err)
		return
	}
	if self {
		p.host.Append(entry)
		return
	}
	p.host.Go(func() {
		ctx, cancel := context.WithTimeout(p.host.Context(), p.timeout)
		defer cancel()
		if err := p.host.Forward(ctx, leader, entry); err != nil {
			p.refused(b, err)
		}
	})
}

// refused sends a batch again, a little later. If the node or the leader has no room for it, the calls that
// were never sent before fail, and with them the queue behind them, which could not be sent sooner. Earlier
// calls are retried, because a previous attempt may still be applied.
func (p *Proposer) refused(b *batch, err error) {
	if errors.Is(err, fault.ErrNoSpace) {
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
			c.end(nil, err)
		}
		p.queue = slices.DeleteFunc(p.queue, func(seq uint64) bool { return p.calls[seq] == nil })
		p.mu.Unlock()
	}
	time.AfterFunc(p.timeout/20, func() { p.requeue(b) })
}

// recall takes back the batches that were sent in another term: a change of leader may have lost them.
func (p *Proposer) recall(term uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for b := range p.batches {
		if b.term != term {
			p.takeBack(b)
		}
	}
}

// requeue takes back a batch, so that its calls are sent again.
func (p *Proposer) requeue(b *batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takeBack(b)
}

func (p *Proposer) takeBack(b *batch) {
	if _, ok := p.batches[b]; !ok {
		return
	}
	for _, c := range p.calls {
		if c.batch == b {
			c.batch = nil
			p.queue = append(p.queue, c.seq)
		}
	}
	slices.Sort(p.queue)
	p.drop(b)
}

// completed notes that a call of a batch was answered.
func (p *Proposer) completed(b *batch) {
	if b == nil {
		return
	}
	if b.open--; b.open == 0 {
		p.drop(b)
	}
}

// drop ends a batch: its place in the window is free.
func (p *Proposer) drop(b *batch) {
	b.resend.Stop()
	delete(p.batches, b)
	maps.DeleteFunc(p.left, func(_ uint64, of *batch) bool { return of == b })
	p.poke()
}
