// SPDX-License-Identifier: Apache-2.0

package leader

import (
	"context"
	"sync"
)

// MaxQuestions bounds a round, so that its request fits in a small frame: an ID takes ten bytes at most.
const MaxQuestions = 5000

// Rounds answers the questions of many callers with few calls to the leader. One call is in flight at a
// time, so any number of callers costs one connection and, on the leader, one confirmation a round. A
// question joins the next round, not the one in flight, which may have been answered before the question was
// asked. Equal questions share an answer. Its methods may be called concurrently.
type Rounds[Q comparable, A any] struct {
	host  Host
	here  func(ctx context.Context, questions []Q) ([]A, error)
	there func(ctx context.Context, leader uint64, questions []Q) ([]A, error)

	mu      sync.Mutex            // guards the fields below, and the callers of questions
	waiting map[Q]*question[Q, A] // for the next round
	running bool                  // a goroutine runs that serves rounds
}

// A question waits in a round for its answer. Everything but callers is set before done is closed.
type question[Q comparable, A any] struct {
	of      Q
	callers int // that wait; without any, the question is not asked again
	done    chan struct{}
	answer  A
	err     error
}

// NewRounds returns a Rounds without questions. here answers on this node if it leads, and there asks another
// one. Either may answer only the first few questions, at least one; the others are asked again.
func NewRounds[Q comparable, A any](host Host, here func(ctx context.Context, questions []Q) ([]A, error),
	there func(ctx context.Context, leader uint64, questions []Q) ([]A, error),
) *Rounds[Q, A] {
	return &Rounds[Q, A]{host: host, here: here, there: there, waiting: map[Q]*question[Q, A]{}}
}

// Ask returns the leader's answer. It blocks until a leader has answered, ctx ends or the node closes.
func (r *Rounds[Q, A]) Ask(ctx context.Context, of Q) (answer A, err error) {
	q := r.join(of)
	select {
	case <-q.done:
		return q.answer, q.err
	case <-ctx.Done():
		err = r.host.ContextError(ctx)
	case <-r.host.Closing():
		err = r.host.Err()
	}
	r.leave(q)
	return answer, err
}

func (r *Rounds[Q, A]) join(of Q) *question[Q, A] {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.waiting[of]
	if q == nil {
		q = &question[Q, A]{of: of, done: make(chan struct{})}
		r.waiting[of] = q
	}
	q.callers++
	if !r.running {
		r.running = true
		r.host.Go(r.run)
	}
	return q
}

// leave forgets a caller that has given up, and its question if that was the last caller.
func (r *Rounds[Q, A]) leave(q *question[Q, A]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.callers--; q.callers == 0 && r.waiting[q.of] == q {
		delete(r.waiting, q.of)
	}
}

// run serves rounds until no question waits.
func (r *Rounds[Q, A]) run() {
	for round := r.next(); len(round) > 0; round = r.next() {
		r.serve(round)
	}
}

// next takes the questions of the next round.
func (r *Rounds[Q, A]) next() (round []*question[Q, A]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for of, q := range r.waiting {
		if len(round) == MaxQuestions {
			break
		}
		round = append(round, q)
		delete(r.waiting, of)
	}
	r.running = len(round) > 0
	return round
}

// serve answers the questions of a round. A change of the leader does not end it.
func (r *Rounds[Q, A]) serve(round []*question[Q, A]) {
	for len(round) > 0 {
		var asked []*question[Q, A] // in the last attempt
		attempt := func(ask func([]Q) ([]A, error)) ([]A, error) {
			var questions []Q
			if asked, questions = r.wanted(round); len(questions) == 0 {
				return nil, nil
			}
			return ask(questions)
		}
		answers, err := Ask(r.host.Context(), r.host,
			func(ctx context.Context) ([]A, error) {
				return attempt(func(questions []Q) ([]A, error) { return r.here(ctx, questions) })
			},
			func(ctx context.Context, leader uint64) ([]A, error) {
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
func (r *Rounds[Q, A]) wanted(round []*question[Q, A]) (live []*question[Q, A], questions []Q) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range round {
		if q.callers > 0 {
			live, questions = append(live, q), append(questions, q.of)
		}
	}
	return live, questions
}
