// SPDX-License-Identifier: Apache-2.0

package proposer

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/signal"
)

const electionTimeout = time.Second

// A node is the host of a Proposer. It keeps the entries that it was given. The test applies them.
type node struct {
	t            *testing.T
	p            *Proposer
	changed      signal.Signal
	closing      chan struct{}
	applied      uint64
	contextEnded func() // called by ContextError

	mu           sync.Mutex // guards the fields below
	leader, term uint64
	room         error
	refuse       error         // of Forward
	deadline     time.Duration // that the last Forward had
	forwarded    []uint64      // the leaders that entries were forwarded to
	entries      [][]sent      // that were appended or forwarded and not taken by the test
	batched      []int         // measured
}

// A sent is a proposal of an entry.
type sent struct {
	Proposer, Seq, Lowest uint64
	Key                   string // of a put; empty for a registration
	Register              bool
	Applied               uint64
}

const self = 1

func (n *node) Leader() (leader, term uint64, isSelf bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leader, n.term, n.leader == self
}

func (n *node) LeaderChanged() <-chan struct{} { return n.changed.Wait() }
func (n *node) Applied() uint64                { return n.applied }
func (n *node) Context() context.Context       { return n.t.Context() }
func (n *node) Go(fn func())                   { go fn() }
func (n *node) Closing() <-chan struct{}       { return n.closing }
func (n *node) Err() error                     { return fault.ErrClosed }
func (n *node) WhenClosing(fn func())          { go func() { <-n.closing; fn() }() }
func (n *node) Append(entry []byte)            { n.accept(entry) }

func (n *node) ContextError(ctx context.Context) error {
	if n.contextEnded != nil {
		n.contextEnded()
	}
	return context.Cause(ctx)
}

func (n *node) Room() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.room
}

func (n *node) Batched(calls int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.batched = append(n.batched, calls)
}

func (n *node) Forward(ctx context.Context, leader uint64, entry []byte) error {
	n.mu.Lock()
	at, _ := ctx.Deadline()
	n.deadline = time.Until(at)
	n.forwarded = append(n.forwarded, leader)
	err := n.refuse
	n.mu.Unlock()
	if err != nil {
		return err
	}
	n.accept(entry)
	return nil
}

func (n *node) accept(entry []byte) {
	var all []sent
	proposals, err := command.DecodeEntry(entry)
	for _, p := range proposals {
		s := sent{p.Proposer, p.Seq, p.Lowest, "", p.Command.Register, p.Command.Applied}
		if p.Command.Put != nil {
			s.Key = p.Command.Put.Key
		}
		all = append(all, s)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.t.Error(err)
	}
	n.entries = append(n.entries, all)
}

// set changes the node under its lock.
func (n *node) set(change func()) {
	n.mu.Lock()
	change()
	n.mu.Unlock()
}

// elect makes a member the leader of a term; 0 is none.
func (n *node) elect(leader, term uint64) {
	n.set(func() { n.leader, n.term = leader, term })
	n.changed.Broadcast()
	synctest.Wait()
}

// take returns the entries that came since the last call, after everything has come to rest.
func (n *node) take() [][]sent {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.entries
	n.entries = nil
	return all
}

// books returns how many calls and entries the Proposer keeps.
func (n *node) books() (queue, batches, left int) {
	synctest.Wait()
	n.p.mu.Lock()
	defer n.p.mu.Unlock()
	return len(n.p.queue), len(n.p.batches), len(n.p.left)
}

// keys returns the keys of the entries that came since the last call of take or keys.
func (n *node) keys() (keys [][]string) {
	for _, entry := range n.take() {
		var of []string
		for _, s := range entry {
			of = append(of, s.Key)
		}
		keys = append(keys, of)
	}
	return keys
}

// answer answers proposals as the state machine does that has applied them.
func (n *node) answer(code command.Code, proposals ...sent) {
	var answers []Answer
	for _, s := range proposals {
		answers = append(answers, Answer{s.Proposer, s.Seq, &command.Result{Code: code, Revision: int64(s.Seq)}})
	}
	n.p.Answered(answers)
	synctest.Wait()
}

// An outcome is what a call returned, or nothing yet.
type outcome struct {
	done   bool
	result *command.Result
	err    error
}

func put(key string, size int) *command.Command {
	return &command.Command{Op: command.Op{Put: &command.Put{Key: key, Value: string(make([]byte, size))}}}
}

// do begins a call and waits until it is in the queue or has failed.
func (n *node) do(ctx context.Context, key string) *outcome { return n.doSize(ctx, key, 0, false) }

func (n *node) doSize(ctx context.Context, key string, size int, frees bool) *outcome {
	o := &outcome{}
	go func() {
		o.result, o.err = n.p.Do(ctx, put(key, size), size, frees)
		o.done = true
	}()
	synctest.Wait()
	return o
}

func (o *outcome) waits(t *testing.T) {
	t.Helper()
	synctest.Wait()
	require.False(t, o.done, "%v", o.err)
}

func (o *outcome) succeeds(t *testing.T) {
	t.Helper()
	synctest.Wait()
	require.True(t, o.done, "the call waits")
	require.NoError(t, o.err)
}

// fails checks that the call has failed with errors of these kinds.
func (o *outcome) fails(t *testing.T, kinds ...error) {
	t.Helper()
	synctest.Wait()
	require.True(t, o.done, "the call waits")
	require.Nil(t, o.result)
	for _, kind := range kinds {
		require.ErrorIs(t, o.err, kind)
	}
}

// bubble runs a test with a new Proposer. Its node knows no leader.
func bubble(t *testing.T, cfg Config, test func(t *testing.T, n *node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &node{t: t, closing: make(chan struct{}), applied: 42}
		cfg.ElectionTimeout = electionTimeout
		n.p = New(n, cfg)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			n.p.Run()
		}()
		defer func() {
			select {
			case <-n.closing:
			default:
				close(n.closing)
			}
			<-ended
		}()
		test(t, n)
	})
}

// registered is bubble with a Proposer that the cluster has registered. Its node leads in term 1 and nothing
// is in flight.
func registered(t *testing.T, test func(t *testing.T, n *node)) {
	t.Helper()
	bubble(t, Config{MaxCalls: 1000, MaxBytes: 1 << 30}, func(t *testing.T, n *node) {
		n.elect(self, 1)
		first := n.do(t.Context(), "first")
		for _, key := range []string{"", "first"} {
			entries := n.take()
			require.Len(t, entries, 1)
			require.Equal(t, key, entries[0][0].Key)
			n.answer(command.OK, entries[0]...)
		}
		first.succeeds(t)
		n.batched = nil
		test(t, n)
	})
}

func TestRegistrationPrecedesCalls(t *testing.T) {
	bubble(t, Config{MaxCalls: 10, MaxBytes: 1 << 20}, func(t *testing.T, n *node) {
		var calls []*outcome
		for _, key := range []string{"a", "b", "c"} {
			calls = append(calls, n.do(t.Context(), key))
		}
		require.Empty(t, n.take(), "there is no leader")
		n.elect(self, 1)
		entries := n.take()
		require.Len(t, entries, 1)
		id := entries[0][0].Proposer
		require.NotZero(t, id)
		require.True(t, n.p.Owns(id))
		require.Equal(t, []sent{{Proposer: id, Lowest: 1, Register: true, Applied: 42}}, entries[0])

		n.answer(command.OK, entries[0]...)
		entries = n.take()
		require.Equal(t, [][]sent{{
			{Proposer: id, Seq: 1, Lowest: 1, Key: "a"},
			{Proposer: id, Seq: 2, Lowest: 1, Key: "b"},
			{Proposer: id, Seq: 3, Lowest: 1, Key: "c"},
		}}, entries)
		require.Equal(t, []int{1, 3}, n.batched)
		n.answer(command.OK, entries[0]...)
		for i, c := range calls {
			c.succeeds(t)
			require.EqualValues(t, i+1, c.result.Revision)
		}
	})
}

func TestLowestIsTheFirstCallThatWaits(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		n.do(t.Context(), "a")
		n.do(t.Context(), "b")
		n.do(t.Context(), "c")
		entries := n.take()
		n.answer(command.OK, entries[1]...)
		n.do(t.Context(), "d")
		require.EqualValues(t, 2, n.take()[0][0].Lowest, "a waits")
		n.answer(command.OK, entries[0]...)
		n.do(t.Context(), "e")
		require.EqualValues(t, 4, n.take()[0][0].Lowest, "c waits")
		n.answer(command.OK, entries[2]...)
	})
}

func TestDroppedResultIsUncertain(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		c := n.do(t.Context(), "a")
		n.answer(command.ResultDropped, n.take()[0]...)
		c.fails(t, fault.ErrMaybeApplied)
	})
}

func TestContextEndsTheWaitAndNotTheEntry(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		ctx, cancel := context.WithCancelCause(t.Context())
		impatient := errors.New("impatient")
		var abandoned []*outcome
		for range 6 {
			abandoned = append(abandoned, n.do(ctx, "in flight"))
		}
		queued := n.do(ctx, "queued")
		entries := n.take()
		require.Len(t, entries, 6)
		cancel(impatient)
		for _, c := range abandoned {
			c.fails(t, fault.ErrMaybeApplied, impatient)
		}
		queued.fails(t, impatient)
		require.NotErrorIs(t, queued.err, fault.ErrMaybeApplied, "it was never sent")
		calls, bytes := n.p.Pending()
		require.Zero(t, calls)
		require.Zero(t, bytes)

		next := n.do(t.Context(), "next")
		require.Empty(t, n.take(), "calls without callers keep their places in the window")
		n.answer(command.OK, entries[3]...)
		require.Equal(t, [][]string{{"next"}}, n.keys())
		next.waits(t)
		time.Sleep(2 * electionTimeout)
		require.Equal(t, [][]string{{"next"}}, n.keys(), "calls without callers are not sent again")
		_, _, left := n.books()
		require.Zero(t, left)
	})
}

func TestAbandonedCallsLeaveTheQueue(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		n.elect(0, 1)
		kept := n.do(t.Context(), "kept")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 100 {
			n.do(ctx, "abandoned")
		}
		queue, _, _ := n.books()
		require.Equal(t, 101, queue)
		time.Sleep(time.Second)
		queue, _, _ = n.books()
		require.Less(t, queue, 5, "there is no leader, but they need no memory")
		n.elect(self, 2)
		require.Equal(t, [][]string{{"kept"}}, n.keys())
		kept.waits(t)
	})
}

func TestAnswerWinsOverTheEndOfContext(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		ctx, cancel := context.WithCancel(t.Context())
		c := n.do(ctx, "a")
		s := n.take()[0][0]
		n.contextEnded = func() { n.p.Answered([]Answer{{s.Proposer, s.Seq, &command.Result{}}}) }
		cancel()
		c.succeeds(t)
	})
}

func TestClosingEndsWaits(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		inFlight := n.do(t.Context(), "in flight")
		require.Equal(t, [][]string{{"in flight"}}, n.keys())
		n.elect(0, 1)
		queued := n.do(t.Context(), "queued")
		inFlight.waits(t)
		queued.waits(t)
		close(n.closing)
		inFlight.fails(t, fault.ErrMaybeApplied, fault.ErrClosed)
		queued.fails(t, fault.ErrClosed)
		require.NotErrorIs(t, queued.err, fault.ErrMaybeApplied, "it was never sent")
		n.do(t.Context(), "late").fails(t, fault.ErrClosed)
		for b := range n.p.batches {
			require.False(t, b.resend.Stop(), "its timer is stopped")
		}
	})
}

func TestEvictionSendsCallsWithANewID(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		var calls []*outcome
		for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
			calls = append(calls, n.do(t.Context(), key))
		}
		old := n.take()
		require.Len(t, old, 6)
		n.answer(command.UnknownProposer, old[1]...)
		entries := n.take()
		require.Len(t, entries, 1, "the registration is sent alone")
		register := entries[0][0]
		require.True(t, register.Register)
		require.NotEqual(t, old[0][0].Proposer, register.Proposer)
		require.True(t, n.p.Owns(register.Proposer))
		require.False(t, n.p.Owns(old[0][0].Proposer))

		n.answer(command.UnknownProposer, old[0]...) // of the old ID
		n.answer(command.OK, old[2]...)
		for _, c := range calls {
			c.waits(t)
		}
		require.Empty(t, n.take())
		n.answer(command.OK, register)
		id := register.Proposer
		require.Equal(t, [][]sent{{
			{Proposer: id, Seq: 1, Lowest: 1, Key: "a"},
			{Proposer: id, Seq: 2, Lowest: 1, Key: "b"},
			{Proposer: id, Seq: 3, Lowest: 1, Key: "c"},
			{Proposer: id, Seq: 4, Lowest: 1, Key: "d"},
			{Proposer: id, Seq: 5, Lowest: 1, Key: "e"},
			{Proposer: id, Seq: 6, Lowest: 1, Key: "f"},
		}}, n.take())
		for i, c := range calls {
			n.answer(command.OK, sent{Proposer: id, Seq: uint64(i + 1)})
			c.succeeds(t)
		}
		time.Sleep(time.Minute)
		require.Empty(t, n.take(), "nothing of the old ID is sent again")
	})
}

func TestRejectedRegistrationIsRepeated(t *testing.T) {
	bubble(t, Config{MaxCalls: 10, MaxBytes: 1 << 20}, func(t *testing.T, n *node) {
		n.elect(self, 1)
		c := n.do(t.Context(), "a")
		first := n.take()[0][0]
		n.applied = 43
		n.answer(command.UnknownProposer, first)
		entries := n.take()
		require.Len(t, entries, 1)
		id := entries[0][0].Proposer
		require.NotEqual(t, first.Proposer, id)
		require.Equal(t, []sent{{Proposer: id, Lowest: 1, Register: true, Applied: 43}}, entries[0])
		n.answer(command.OK, entries[0]...)
		require.Equal(t, [][]sent{{{Proposer: id, Seq: 1, Lowest: 1, Key: "a"}}}, n.take())
		c.waits(t)
	})
}

func TestEvictionForgetsAbandonedCalls(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		ctx, cancel := context.WithCancel(t.Context())
		n.do(ctx, "abandoned")
		n.do(t.Context(), "kept")
		entries := n.take()
		cancel()
		_, _, left := n.books()
		require.Equal(t, 1, left)
		n.answer(command.UnknownProposer, entries[1]...)
		n.answer(command.OK, n.take()[0]...)
		require.Equal(t, [][]string{{"kept"}}, n.keys())
		_, batches, left := n.books()
		require.Equal(t, 1, batches)
		require.Zero(t, left)
	})
}

func TestEvictionBehindASnapshotIsUncertain(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		before := n.do(t.Context(), "before")
		old := n.take()
		n.elect(0, 1)
		queued := n.do(t.Context(), "queued")
		n.p.Restored(func(uint64, uint64) (*command.Result, bool) { return nil, false })
		before.waits(t)
		n.elect(self, 1)
		require.Equal(t, [][]string{{"queued"}}, n.keys())
		n.answer(command.UnknownProposer, old[0]...)
		before.fails(t, fault.ErrMaybeApplied)
		queued.waits(t)
		n.answer(command.OK, n.take()[0]...)
		require.Equal(t, [][]string{{"queued"}}, n.keys(), "the snapshot cannot contain it")
	})
}

func TestSnapshotAnswersTheCallsItContains(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		a, b := n.do(t.Context(), "a"), n.do(t.Context(), "b")
		entries := n.take()
		n.p.Restored(func(id, seq uint64) (*command.Result, bool) {
			require.Equal(t, entries[0][0].Proposer, id)
			return &command.Result{Revision: 7}, seq == entries[1][0].Seq
		})
		b.succeeds(t)
		require.EqualValues(t, 7, b.result.Revision)
		a.waits(t)
		n.answer(command.OK, entries[0]...)
		a.succeeds(t)
	})
}
