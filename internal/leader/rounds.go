// SPDX-License-Identifier: Apache-2.0

package leader

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"sync"
)

// MaxQuestions bounds a round, so that its request fits in a small frame: an ID takes ten bytes at most.
const MaxQuestions = 5000

// Rounds answers the questions of many callers with few calls to the leader. One call is in flight at a
// time, so any number of callers costs one connection and, on the leader, one confirmation a round. A
// question joins the next round, not the one in flight, because that one may have been answered before the
// question was asked. Equal questions share an answer. The methods of Rounds may be called concurrently.
type Rounds[Q comparable, A any] struct {
	host  Host
	here  func(ctx context.Context, questions []Q) ([]A, error)
	there func(ctx context.Context, leader uint64, questions []Q) ([]A, error)

	patience patience // of the goroutine that serves rounds

	// mu guards the fields below, and the callers of questions. The goroutine that takes a question out of waiting
	// and inFlight answers it.
	mu       sync.Mutex
	waiting  map[Q]*question[Q, A] // for the next round
	inFlight []*question[Q, A]     // of the round in flight, not answered
	running  bool                  // a goroutine runs that serves rounds
	closed   bool                  // questions fail
}

// A question waits in a round for its answer. answer and err are set before done is closed.
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
	r := &Rounds[Q, A]{host: host, here: here, there: there, waiting: map[Q]*question[Q, A]{}}
	host.WhenClosing(r.close)
	return r
}

// Ask returns the leader's answer. It blocks until a leader has answered, ctx ends or the node closes.
func (r *Rounds[Q, A]) Ask(ctx context.Context, of Q) (answer A, err error) {
	q := r.join(of)
	if q == nil {
		return answer, r.host.Err()
	}
	// A select of two channels costs as much as the rest of Ask. Many callers have a context that cannot end.
	if ended := ctx.Done(); ended == nil {
		<-q.done
	} else {
		select {
		case <-q.done:
		case <-ended:
			err = r.host.ContextError(ctx)
			r.leave(q)
			return answer, err
		}
	}
	return q.answer, q.err
}

// join adds a caller to a question of the next round. It returns nil if the node closes.
func (r *Rounds[Q, A]) join(of Q) *question[Q, A] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
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

// close fails all questions, because the node closes.
func (r *Rounds[Q, A]) close() {
	r.mu.Lock()
	r.closed = true
	questions := slices.AppendSeq(r.inFlight, maps.Values(r.waiting))
	r.inFlight = nil
	clear(r.waiting)
	r.mu.Unlock()
	for _, q := range questions {
		q.end(*new(A), r.host.Err())
	}
}

// end wakes the callers of a question that was taken out of waiting and inFlight.
func (q *question[Q, A]) end(answer A, err error) {
	q.answer, q.err = answer, err
	close(q.done)
}

// run serves rounds until no question waits.
func (r *Rounds[Q, A]) run() {
	// Let the callers that can run now join the round. After a round, most callers ask again: without the yield, the
	// fastest of them would have every other round for itself.
	runtime.Gosched()
	for r.next() {
		r.serve()
		runtime.Gosched()
	}
}

// next begins the next round. It returns false if no question waits.
func (r *Rounds[Q, A]) next() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for of, q := range r.waiting {
		if len(r.inFlight) == MaxQuestions {
			break
		}
		r.inFlight = append(r.inFlight, q)
		delete(r.waiting, of)
	}
	r.running = len(r.inFlight) > 0
	return r.running
}

// serve answers the questions of the round in flight. A change of the leader does not end it.
func (r *Rounds[Q, A]) serve() {
	here := func(ctx context.Context) ([]A, error) {
		if questions := r.wanted(); len(questions) > 0 {
			return r.here(ctx, questions)
		}
		return nil, nil
	}
	there := func(ctx context.Context, leader uint64) ([]A, error) {
		if questions := r.wanted(); len(questions) > 0 {
			return r.there(ctx, leader, questions)
		}
		return nil, nil
	}
	for more := true; more; {
		answers, err := askAgain(r.host.Context(), r.host, &r.patience, here, there)
		more = r.answer(answers, err)
	}
}

// wanted drops the questions in flight that no caller waits for, and returns the others.
func (r *Rounds[Q, A]) wanted() []Q {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight = slices.DeleteFunc(r.inFlight, func(q *question[Q, A]) bool { return q.callers == 0 })
	questions := make([]Q, len(r.inFlight))
	for i, q := range r.inFlight {
		questions[i] = q.of
	}
	return questions
}

// answer ends the first questions in flight with their answers, or all of them with an error. It reports whether
// others are in flight.
func (r *Rounds[Q, A]) answer(answers []A, err error) (more bool) {
	r.mu.Lock()
	n := min(len(answers), len(r.inFlight)) // close may have ended them
	if err != nil {
		n = len(r.inFlight)
	}
	ended := r.inFlight[:n]
	if r.inFlight = r.inFlight[n:]; len(r.inFlight) == 0 {
		r.inFlight = nil
	}
	more = len(r.inFlight) > 0
	r.mu.Unlock()
	// The callers are woken without mu, since they may ask again at once.
	for i, q := range ended {
		if err != nil {
			q.end(*new(A), err)
		} else {
			q.end(answers[i], nil)
		}
	}
	return more
}
