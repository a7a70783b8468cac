// SPDX-License-Identifier: Apache-2.0

package leader

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/signal"
)

var errFinal = errors.New("final")

// A node is the host of a question.
type node struct {
	ctx     context.Context
	changed *signal.Signal
	closing chan struct{}

	mu     sync.Mutex // guards leader
	leader uint64     // 1 is this node, 0 none
}

func newNode(t *testing.T, leader uint64) *node {
	return &node{ctx: t.Context(), changed: &signal.Signal{}, closing: make(chan struct{}), leader: leader}
}

func (n *node) LeaderChanged() <-chan struct{}         { return n.changed.Wait() }
func (n *node) ElectionTimeout() time.Duration         { return time.Second }
func (n *node) Final(err error) bool                   { return errors.Is(err, errFinal) }
func (n *node) Context() context.Context               { return n.ctx }
func (n *node) Go(fn func())                           { go fn() }
func (n *node) Closing() <-chan struct{}               { return n.closing }
func (n *node) Err() error                             { return fault.ErrClosed }
func (n *node) ContextError(ctx context.Context) error { return context.Cause(ctx) }

func (n *node) Leader() (leader, term uint64, self bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leader, 1, n.leader == 1
}

func (n *node) WhenClosing(fn func()) {
	go func() {
		select {
		case <-n.closing:
			fn()
		case <-n.ctx.Done():
		}
	}()
}

func (n *node) Alive(ctx context.Context) error {
	select {
	case <-n.closing:
		return n.Err()
	default:
		return context.Cause(ctx)
	}
}

// elect makes a member the leader.
func (n *node) elect(leader uint64) {
	n.mu.Lock()
	n.leader = leader
	n.mu.Unlock()
	n.changed.Broadcast()
	synctest.Wait()
}

// An attempt is one time that a leader was asked.
type attempt struct {
	leader uint64
	at     time.Duration // since the begin of the test
}

// An asker is a call of Ask. The leader answers with answer.
type asker struct {
	begin  time.Time
	done   bool
	result string
	err    error

	mu       sync.Mutex // guards the fields below
	attempts []attempt
	answer   func() (string, error)
}

func ask(ctx context.Context, n *node, answer func() (string, error)) *asker {
	a := &asker{begin: time.Now(), answer: answer}
	go func() {
		a.result, a.err = Ask(ctx, n,
			func(ctx context.Context) (string, error) { return a.attempt(ctx, 1) }, a.attempt)
		a.done = true
	}()
	synctest.Wait()
	return a
}

func (a *asker) attempt(_ context.Context, leader uint64) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.attempts = append(a.attempts, attempt{leader, time.Since(a.begin)})
	return a.answer()
}

// answers changes the answer of the leader.
func (a *asker) answers(answer func() (string, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

// asked returns the attempts, after everything has come to rest.
func (a *asker) asked() []attempt {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.attempts)
}

func TestAskWaitsForALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 0)
		a := ask(t.Context(), n, func() (string, error) { return "yes", nil })
		time.Sleep(time.Minute + time.Second/100)
		require.Empty(t, a.asked())
		n.elect(3)
		require.Equal(t, []attempt{{3, time.Minute + time.Second/100}}, a.asked(), "as soon as it is elected")
		require.True(t, a.done)
		require.NoError(t, a.err)
		require.Equal(t, "yes", a.result)
	})
}

func TestAskRepeatsUntilTheLeaderAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 1)
		a := ask(t.Context(), n, func() (string, error) { return "", errors.New("broken connection") })
		time.Sleep(110 * time.Millisecond)
		n.elect(3)
		a.answers(func() (string, error) { return "yes", nil })
		time.Sleep(time.Second)
		ms := time.Millisecond
		require.Equal(t, []attempt{{1, 0}, {1, 50 * ms}, {1, 100 * ms}, {3, 110 * ms}, {3, 160 * ms}}, a.asked())
		require.NoError(t, a.err)
		require.Equal(t, "yes", a.result)
	})
}

func TestFinalErrorEndsAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := ask(t.Context(), newNode(t, 3), func() (string, error) { return "", errFinal })
		require.True(t, a.done)
		require.ErrorIs(t, a.err, errFinal)
		require.Len(t, a.asked(), 1)
	})
}

func TestAskEndsWithItsContextOrItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 0)
		ctx, cancel := context.WithCancelCause(t.Context())
		impatient := errors.New("impatient")
		byContext, byNode := ask(ctx, n, nil), ask(t.Context(), n, nil)
		cancel(impatient)
		synctest.Wait()
		require.True(t, byContext.done)
		require.ErrorIs(t, byContext.err, impatient)
		require.False(t, byNode.done)
		close(n.closing)
		synctest.Wait()
		require.True(t, byNode.done)
		require.ErrorIs(t, byNode.err, fault.ErrClosed)
	})
}

func TestSilentLeaderHasAnElectionTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		silent := func(ctx context.Context, _ uint64) (string, error) {
			<-ctx.Done()
			return "", errFinal // for instance that it was closed meanwhile
		}
		_, err := AskOnce(t.Context(), newNode(t, 3), nil, silent)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, errFinal, "it is no answer of the leader")
		require.Equal(t, time.Second, time.Since(begin))
	})
}

func TestAskOnceNeedsALeader(t *testing.T) {
	_, err := AskOnce[string](t.Context(), newNode(t, 0), nil, nil)
	require.ErrorIs(t, err, fault.ErrNotLeader)
}
