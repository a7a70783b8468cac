// SPDX-License-Identifier: Apache-2.0

package leader

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
)

// A panel is a leader that answers a round of questions when the test says so.
type panel struct {
	rounds  [][]int
	answers chan []int
	err     error
}

func newPanel() *panel { return &panel{answers: make(chan []int)} }

func (p *panel) ask(ctx context.Context, questions []int) ([]int, error) {
	p.rounds = append(p.rounds, slices.Sorted(slices.Values(questions)))
	select {
	case answers := <-p.answers:
		return answers, p.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// reply answers the round that is asked.
func (p *panel) reply(answers ...int) {
	p.answers <- answers
	synctest.Wait()
}

// A caller has asked a question.
type caller struct {
	done   bool
	answer int
	err    error
}

// call asks a question and waits until it has joined a round.
func call(ctx context.Context, r *Rounds[int, int], of int) *caller {
	c := &caller{}
	go func() {
		c.answer, c.err = r.Ask(ctx, of)
		c.done = true
	}()
	synctest.Wait()
	return c
}

func (c *caller) has(t *testing.T, answer int) {
	t.Helper()
	require.True(t, c.done)
	require.NoError(t, c.err)
	require.Equal(t, answer, c.answer)
}

func TestQuestionsJoinTheNextRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPanel()
		r := NewRounds(newNode(t, 1), p.ask, nil)
		first := call(t.Context(), r, 7)
		again, twice, other := call(t.Context(), r, 7), call(t.Context(), r, 7), call(t.Context(), r, 8)
		require.Equal(t, [][]int{{7}}, p.rounds, "one round is in flight at a time")
		p.reply(70)
		first.has(t, 70)
		require.False(t, again.done, "the answer may be older than the question")
		require.Equal(t, [][]int{{7}, {7, 8}}, p.rounds, "equal questions share an answer")
		p.reply(71, 71)
		again.has(t, 71)
		twice.has(t, 71)
		other.has(t, 71)
		third := call(t.Context(), r, 9)
		p.reply(90)
		third.has(t, 90)
	})
}

func TestQuestionsWithoutAnswersAreAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A leader of an earlier version answers only the first question.
		var rounds [][]int
		r := NewRounds(newNode(t, 3), nil, func(_ context.Context, leader uint64, questions []int) ([]int, error) {
			require.EqualValues(t, 3, leader)
			rounds = append(rounds, slices.Clone(questions))
			time.Sleep(time.Second / 10)
			return []int{10 * questions[0]}, nil
		})
		callers := map[int]*caller{}
		for i := range 4 {
			callers[i] = call(t.Context(), r, i)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, c := range callers {
			c.has(t, 10*i)
		}
		require.Len(t, rounds, 4)
	})
}

func TestRoundSurvivesAChangeOfLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 0)
		r := NewRounds(n, nil, func(_ context.Context, leader uint64, questions []int) ([]int, error) {
			if leader == 3 {
				return nil, fault.ErrNotLeader
			}
			return questions, nil
		})
		c := call(t.Context(), r, 7)
		n.elect(3)
		require.False(t, c.done)
		n.elect(4)
		c.has(t, 7)
	})
}

func TestRoundHasAtMostFiveThousandQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPanel()
		r := NewRounds(newNode(t, 1), p.ask, nil)
		for i := range 5002 { // the first one is a round by itself
			go func() { _, _ = r.Ask(t.Context(), i) }()
			if i == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		p.reply(0)
		require.Len(t, p.rounds[1], 5000)
		p.reply(p.rounds[1]...)
		require.Len(t, p.rounds[2], 1)
		p.reply(0)
	})
}

func TestFinalErrorFailsAllOfARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPanel()
		r := NewRounds(newNode(t, 1), p.ask, nil)
		call(t.Context(), r, 1)
		a, b := call(t.Context(), r, 2), call(t.Context(), r, 3)
		p.reply(1)
		p.err = errFinal
		p.reply()
		require.True(t, a.done && b.done)
		require.ErrorIs(t, a.err, errFinal)
		require.ErrorIs(t, b.err, errFinal)
		p.err = nil
		c := call(t.Context(), r, 4)
		p.reply(4)
		c.has(t, 4)
	})
}

func TestRoundsEndWithTheirNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 1)
		r := NewRounds(n, newPanel().ask, nil) // it never answers
		c := call(t.Context(), r, 1)
		require.False(t, c.done)
		close(n.closing)
		synctest.Wait()
		require.True(t, c.done)
		require.ErrorIs(t, c.err, fault.ErrClosed)
	})
}

// A renewal is not requested after its caller has given up, even if a leader answers later. Otherwise the lease would
// outlive its holder.
func TestQuestionWithoutCallersIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := true
		var asked []int
		r := NewRounds(newNode(t, 1), func(_ context.Context, questions []int) ([]int, error) {
			if away {
				return nil, fault.ErrNotLeader
			}
			asked = append(asked, questions...)
			return questions, nil
		}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for i := range 4 { // in the round that is asked, and in the one after it
			go func() {
				_, err := r.Ask(ctx, i)
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}()
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		away = false
		answer, err := r.Ask(t.Context(), 7)
		require.NoError(t, err)
		require.Equal(t, 7, answer)
		require.Equal(t, []int{7}, asked)
		require.Empty(t, r.waiting)
	})
}

// Callers leave a round that has no answer yet, and others take their places in it.
func TestPlacesInARoundAreReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPanel()
		r := NewRounds(newNode(t, 1), p.ask, nil)
		first := call(t.Context(), r, 1)
		for i := range 100 {
			ctx, cancel := context.WithCancel(t.Context())
			gone := call(ctx, r, 100+i)
			cancel()
			synctest.Wait()
			require.Error(t, gone.err)
		}
		a, b := call(t.Context(), r, 2), call(t.Context(), r, 3)
		require.Len(t, r.next.questions, 2)
		require.Len(t, r.waiting, 2)
		p.reply(10)
		first.has(t, 10)
		p.reply(20, 30)
		a.has(t, 20)
		b.has(t, 30)
		require.Equal(t, [][]int{{1}, {2, 3}}, p.rounds)
	})
}

// A caller leaves while its question is in the part of the round that is not answered.
func TestCallerLeavesTheRestOfARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPanel()
		r := NewRounds(newNode(t, 1), p.ask, nil)
		call(t.Context(), r, 0)
		ctx, cancel := context.WithCancel(t.Context())
		a, gone, b, c := call(t.Context(), r, 1), call(ctx, r, 2), call(t.Context(), r, 3), call(t.Context(), r, 4)
		p.reply(0)
		p.reply(10) // the leader answers the first question only
		a.has(t, 10)
		require.False(t, gone.done || b.done || c.done)
		cancel()
		synctest.Wait()
		require.Error(t, gone.err)
		p.reply(20)
		require.False(t, b.done || c.done)
		p.reply(30, 40)
		b.has(t, 30)
		c.has(t, 40)
		require.Equal(t, [][]int{{0}, {1, 2, 3, 4}, {2, 3, 4}, {3, 4}}, p.rounds)
	})
}
