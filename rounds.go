// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"sync"
)

// maxQuestions bounds a round, so that its request fits in a small frame: an ID takes ten bytes at most.
const maxQuestions = 5000

// A rounds answers the questions of many callers with few calls to the leader. One call is in flight
// at a time, so any number of callers costs one connection and, on the leader, one confirmation a
// round. A question joins the next round, not the one in flight: that one may have been answered
// before the question was asked. Equal questions share an answer.
type rounds[Q comparable, A any] struct {
	n *Node
	// here answers on the leader, there asks it. Either may answer only the first few questions, one at
	// least; the others are asked again.
	here  func(ctx context.Context, questions []Q) ([]A, error)
	there func(ctx context.Context, leader MemberID, questions []Q) ([]A, error)

	mu      sync.Mutex
	waiting map[Q]*question[Q, A] // for the next round
	running bool
}

// A question waits in a round for its answer. Its callers are guarded by rounds.mu, the rest is set
// before done is closed.
type question[Q comparable, A any] struct {
	of      Q
	callers int // that wait; without any, it is not asked again
	done    chan struct{}
	answer  A
	err     error
}

// ask returns the leader's answer. It blocks until a leader has answered, ctx ends or the node closes.
func (r *rounds[Q, A]) ask(ctx context.Context, of Q) (answer A, err error) {
	q := r.join(of)
	select {
	case <-q.done:
		return q.answer, q.err
	case <-ctx.Done():
		err = r.n.contextError(ctx)
	case <-r.n.life.Closing():
		err = r.n.life.Err()
	}
	r.leave(q)
	return answer, err
}

func (r *rounds[Q, A]) join(of Q) *question[Q, A] {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.waiting[of]
	if q == nil {
		q = &question[Q, A]{of: of, done: make(chan struct{})}
		if r.waiting == nil {
			r.waiting = map[Q]*question[Q, A]{}
		}
		r.waiting[of] = q
	}
	q.callers++
	if !r.running {
		r.running = true
		r.n.life.Go(r.run)
	}
	return q
}

// leave forgets a caller that has given up, and its question if that was the last one.
func (r *rounds[Q, A]) leave(q *question[Q, A]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.callers--; q.callers == 0 && r.waiting[q.of] == q {
		delete(r.waiting, q.of)
	}
}

// run serves rounds until no question waits.
func (r *rounds[Q, A]) run() {
	for round := r.next(); len(round) > 0; round = r.next() {
		r.serve(round)
	}
}

// next takes the questions of the next round.
func (r *rounds[Q, A]) next() (round []*question[Q, A]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for of, q := range r.waiting {
		if len(round) == maxQuestions {
			break
		}
		round = append(round, q)
		delete(r.waiting, of)
	}
	r.running = len(round) > 0
	return round
}

// serve answers the questions of a round. A change of the leader does not end it.
func (r *rounds[Q, A]) serve(round []*question[Q, A]) {
	for len(round) > 0 {
		var asked []*question[Q, A] // in the last attempt
		attempt := func(ask func([]Q) ([]A, error)) ([]A, error) {
			var questions []Q
			if asked, questions = r.wanted(round); len(questions) == 0 {
				return nil, nil
			}
			return ask(questions)
		}
		answers, err := askLeader(r.n, r.n.life.Context(),
			func(ctx context.Context) ([]A, error) {
				return attempt(func(questions []Q) ([]A, error) { return r.here(ctx, questions) })
			},
			func(ctx context.Context, leader MemberID) ([]A, error) {
				return attempt(func(questions []Q) ([]A, error) { return r.there(ctx, leader, questions) })
			})
		if err != nil {
			for _, q := range round {
				q.err = err
				close(q.done)
			}
			return
		}
		round = asked[len(answers):]
		for i, answer := range answers {
			asked[i].answer = answer
			close(asked[i].done)
		}
	}
}

// wanted returns those of the questions that still have a caller.
func (r *rounds[Q, A]) wanted(round []*question[Q, A]) (live []*question[Q, A], questions []Q) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range round {
		if q.callers > 0 {
			live, questions = append(live, q), append(questions, q.of)
		}
	}
	return live, questions
}
