// SPDX-License-Identifier: Apache-2.0

package proposer

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/fault"
)

func TestEntryEndsAtOneMebibyte(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		n.elect(0, 1)
		for i, size := range []int{400 << 10, 400 << 10, 400 << 10, 3 << 20, 1, 1 << 20, 1, 1} {
			n.doSize(t.Context(), strconv.Itoa(i), size, false)
		}
		n.elect(self, 1)
		require.Equal(t, [][]string{{"0", "1", "2"}, {"3"}, {"4", "5"}, {"6", "7"}}, n.keys())
		require.Equal(t, []int{3, 1, 2, 2}, n.batched)
	})
}

func TestSixEntriesAreInFlight(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		for i := range 10 {
			n.do(t.Context(), strconv.Itoa(i))
		}
		entries := n.take()
		require.Len(t, entries, 6)
		for i, entry := range entries {
			require.Len(t, entry, 1)
			require.Equal(t, strconv.Itoa(i), entry[0].Key)
		}
		n.answer(command.OK, entries[4]...)
		require.Equal(t, [][]string{{"6", "7", "8", "9"}}, n.keys())
	})
}

func TestEntryKeepsItsPlaceUntilAllAreAnswered(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		n.elect(0, 1)
		n.do(t.Context(), "a")
		n.do(t.Context(), "b")
		n.elect(self, 1)
		entry := n.take()[0]
		require.Len(t, entry, 2)
		for range 5 {
			n.do(t.Context(), "other")
		}
		require.Len(t, n.take(), 5)
		n.do(t.Context(), "next")
		n.answer(command.OK, entry[1])
		require.Empty(t, n.take())
		n.answer(command.OK, entry[0])
		require.Equal(t, [][]string{{"next"}}, n.keys())
	})
}

func TestNewTermSendsEverythingAgain(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		var calls []*outcome
		for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
			calls = append(calls, n.do(t.Context(), key))
		}
		old := n.take()
		require.Len(t, old, 6)
		n.elect(0, 2)
		require.Empty(t, n.take(), "there is no leader")
		n.answer(command.OK, old[1]...)
		calls[1].succeeds(t)
		n.elect(3, 2)
		want := []sent{old[0][0], old[2][0], old[3][0], old[4][0], old[5][0]}
		require.Equal(t, [][]sent{want}, n.take(), "with the same ID and sequence numbers")
		require.Equal(t, []uint64{3}, n.forwarded)

		n.answer(command.OK, want...)
		for _, c := range calls {
			c.succeeds(t)
		}
		n.answer(command.OK, want...) // the entry of term 1 was not lost
		_, batches, _ := n.books()
		require.Zero(t, batches)
		time.Sleep(time.Minute)
		require.Empty(t, n.take())
	})
}

func TestSameTermSendsNothingAgain(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		n.do(t.Context(), "a")
		require.Len(t, n.take(), 1)
		n.elect(0, 1)
		n.elect(self, 1)
		require.Empty(t, n.take())
	})
}

func TestFailedForwardIsRepeatedSoon(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		n.elect(3, 2)
		n.refuse = errors.New("broken connection")
		c := n.do(t.Context(), "a")
		require.Equal(t, electionTimeout, n.deadline)
		require.Equal(t, []uint64{3}, n.forwarded)
		time.Sleep(electionTimeout/20 - 1)
		require.Empty(t, n.take())
		require.Equal(t, []uint64{3}, n.forwarded)
		n.set(func() { n.refuse = nil })
		time.Sleep(time.Nanosecond)
		entries := n.take()
		require.Len(t, entries, 1)
		require.Equal(t, []uint64{3, 3}, n.forwarded)
		c.waits(t)
		n.answer(command.OK, entries[0]...)
		c.succeeds(t)
	})
}

func TestUnansweredEntryIsSentAgain(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		c := n.do(t.Context(), "a")
		first := n.take()
		for range 3 {
			time.Sleep(2*electionTimeout - 1)
			require.Empty(t, n.take())
			time.Sleep(time.Nanosecond)
			require.Equal(t, first, n.take())
		}
		n.answer(command.OK, first[0]...)
		c.succeeds(t)
		time.Sleep(time.Minute)
		require.Empty(t, n.take())
	})
}

func TestNoRoomFailsCallsThatWereNeverSent(t *testing.T) {
	for name, deny := range map[string]func(n *node){
		"on this node":  func(n *node) { n.room = fault.ErrNoSpace },
		"on the leader": func(n *node) { n.refuse = fault.ErrNoSpace },
	} {
		t.Run(name, func(t *testing.T) {
			registered(t, func(t *testing.T, n *node) {
				n.elect(3, 1)
				n.set(func() { deny(n) })
				n.do(t.Context(), "a").fails(t, fault.ErrNoSpace)
				n.elect(0, 1)
				b, c := n.do(t.Context(), "b"), n.do(t.Context(), "c")
				n.elect(3, 1)
				b.fails(t, fault.ErrNoSpace)
				c.fails(t, fault.ErrNoSpace)
				time.Sleep(time.Minute)
				require.Empty(t, n.take())
				_, batches, _ := n.books()
				require.Zero(t, batches)
				n.set(func() { n.room, n.refuse = nil, nil })
				d := n.do(t.Context(), "d")
				n.answer(command.OK, n.take()[0]...)
				d.succeeds(t)
			})
		})
	}
}

func TestNoRoomRepeatsCallsThatWereSent(t *testing.T) {
	registered(t, func(t *testing.T, n *node) {
		sentBefore := n.do(t.Context(), "a")
		old := n.take()
		n.set(func() { n.room = fault.ErrNoSpace })
		n.elect(3, 2)
		queued := n.do(t.Context(), "b")
		require.Empty(t, n.take())
		sentBefore.waits(t) // the leader of term 1 may have appended it
		queued.fails(t, fault.ErrNoSpace)
		n.set(func() { n.room = nil })
		time.Sleep(electionTimeout / 20)
		require.Equal(t, old, n.take())
		n.answer(command.OK, old[0]...)
		sentBefore.succeeds(t)
	})
}

func TestNoRoomKeepsTheRegistration(t *testing.T) {
	bubble(t, Config{MaxCalls: 10, MaxBytes: 1 << 20}, func(t *testing.T, n *node) {
		n.set(func() { n.room = fault.ErrNoSpace })
		n.elect(self, 1)
		n.do(t.Context(), "a").fails(t, fault.ErrNoSpace)
		n.set(func() { n.room = nil })
		time.Sleep(electionTimeout / 20)
		entries := n.take()
		require.Len(t, entries, 1)
		require.True(t, entries[0][0].Register)
		n.answer(command.OK, entries[0]...)
		b := n.do(t.Context(), "b")
		require.Equal(t, [][]string{{"b"}}, n.keys())
		b.waits(t)
	})
}
