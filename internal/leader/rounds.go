// SPDX-License-Identifier: Apache-2.0

package leader

import (
	"context"
	"runtime"
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

	// The goroutine that serves rounds uses patience and asked.
	patience patience
	asked    []int // the places of the questions that the call in flight asks

	// mu guards the fields below, and those of the two rounds.
	mu       sync.Mutex
	next     *round[Q, A] // that new questions join; nil if there is none
	waiting  map[Q]int    // the places of the questions in next
	inFlight *round[Q, A]
	last     int  // the number of questions in the round before
	running  bool // a goroutine runs that serves rounds
	closed   bool // questions fail
}

// A round is a list of questions. Its callers wait for one channel together. Once done is closed, nothing else changes.
type round[Q comparable, A any] struct {
	questions []question[Q, A]
	free      []int // the places of questions that all callers have left
	done      chan struct{}
	rest      *round[Q, A] // has the questions that are not answered, unless err has
	err       error
}

// A question waits in a round for its answer.
type question[Q comparable, A any] struct {
	of       Q
	callers  int // that wait; without any, the question is not asked again
	answered bool
	answer   A
	moved    int // its place in the rest of the round, if it was not answered
}

// NewRounds returns a Rounds without questions. here answers on this node if it leads, and there asks another
// one. Either may answer only the first few questions, at least one; the others are asked again.
func NewRounds[Q comparable, A any](host Host, here func(ctx context.Context, questions []Q) ([]A, error),
	there func(ctx context.Context, leader uint64, questions []Q) ([]A, error),
) *Rounds[Q, A] {
	r := &Rounds[Q, A]{host: host, here: here, there: there, waiting: map[Q]int{}}
	host.WhenClosing(r.close)
	return r
}

// Ask returns the leader's answer. It blocks until a leader has answered, ctx ends or the node closes.
func (r *Rounds[Q, A]) Ask(ctx context.Context, of Q) (answer A, err error) {
	in, place := r.join(of)
	if in == nil {
		return answer, r.host.Err()
	}
	for {
		// A select of two channels costs as much as the rest of Ask. Many callers have a context that cannot end.
		if ended := ctx.Done(); ended == nil {
			<-in.done
		} else {
			select {
			case <-in.done:
			case <-ended:
				err = r.host.ContextError(ctx)
				r.leave(in, place)
				return answer, err
			}
		}
		q := &in.questions[place]
		if q.answered || in.rest == nil {
			return q.answer, in.err
		}
		in, place = in.rest, q.moved
	}
}

// join adds a caller to a question of the next round, and returns the round and the question's place in it. The round is
// nil if the node closes.
func (r *Rounds[Q, A]) join(of Q) (in *round[Q, A], place int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, 0
	}
	if r.next == nil {
		r.next = newRound[Q, A](r.last)
	}
	in = r.next
	place, ok := r.waiting[of]
	if !ok {
		place = in.add(question[Q, A]{of: of})
		r.waiting[of] = place
	}
	in.questions[place].callers++
	if !r.running {
		r.running = true
		r.host.Go(r.run)
	}
	return in, place
}

// newRound returns a round without questions, and with memory for some.
func newRound[Q comparable, A any](questions int) *round[Q, A] {
	return &round[Q, A]{questions: make([]question[Q, A], 0, questions), done: make(chan struct{})}
}

// add adds a question and returns its place.
func (in *round[Q, A]) add(q question[Q, A]) (place int) {
	if last := len(in.free) - 1; last >= 0 {
		place, in.free = in.free[last], in.free[:last]
		in.questions[place] = q
		return place
	}
	in.questions = append(in.questions, q)
	return len(in.questions) - 1
}

// leave forgets a caller that has given up, and its question if that was the last caller.
func (r *Rounds[Q, A]) leave(in *round[Q, A], place int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for in.rest != nil && !in.questions[place].answered {
		in, place = in.rest, in.questions[place].moved
	}
	q := &in.questions[place]
	if q.callers--; q.callers == 0 && in == r.next {
		delete(r.waiting, q.of)
		in.free = append(in.free, place)
	}
}

// close fails all questions, because the node closes.
func (r *Rounds[Q, A]) close() {
	r.mu.Lock()
	r.closed = true
	ended := [...]*round[Q, A]{r.inFlight, r.next}
	r.inFlight, r.next = nil, nil
	r.mu.Unlock()
	for _, in := range ended {
		if in != nil {
			in.err = r.host.Err()
			close(in.done)
		}
	}
}

// run serves rounds until no question waits.
func (r *Rounds[Q, A]) run() {
	// Let the callers that can run now join the round. After a round, most callers ask again: without the yield, the
	// fastest of them would have every other round for itself.
	runtime.Gosched()
	for r.begin() {
		r.serve()
		runtime.Gosched()
	}
}

// begin begins the next round. It returns false if there is none.
func (r *Rounds[Q, A]) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight, r.next = r.next, nil
	if r.running = r.inFlight != nil; r.running {
		r.last = len(r.inFlight.questions)
		clear(r.waiting)
	}
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

// wanted returns the questions in flight that callers wait for, as many as a call may ask.
func (r *Rounds[Q, A]) wanted() []Q {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = r.asked[:0]
	if r.inFlight == nil { // the node closes
		return nil
	}
	all := r.inFlight.questions
	questions := make([]Q, 0, min(len(all), MaxQuestions))
	for place := range all {
		if all[place].callers > 0 && len(questions) < MaxQuestions {
			r.asked = append(r.asked, place)
			questions = append(questions, all[place].of)
		}
	}
	return questions
}

// answer ends the round in flight with answers to the first questions that were asked, or with an error for all of them.
// The other questions that callers wait for become another round in flight. It reports whether there is one.
func (r *Rounds[Q, A]) answer(answers []A, err error) (more bool) {
	r.mu.Lock()
	in := r.inFlight
	if in == nil { // close has ended it
		r.mu.Unlock()
		return false
	}
	if in.err = err; err == nil {
		for i, answer := range answers[:min(len(answers), len(r.asked))] {
			q := &in.questions[r.asked[i]]
			q.answer, q.answered = answer, true
		}
		in.divide()
	}
	r.inFlight = in.rest
	more = r.inFlight != nil
	r.mu.Unlock()
	// The callers are woken without mu, since they may ask again at once.
	close(in.done)
	return more
}

// divide moves the questions without an answer that callers wait for to a round of their own.
func (in *round[Q, A]) divide() {
	for i := range in.questions {
		q := &in.questions[i]
		if q.answered || q.callers == 0 {
			continue
		}
		if in.rest == nil {
			in.rest = newRound[Q, A](len(in.questions) - i)
		}
		q.moved = in.rest.add(question[Q, A]{of: q.of, callers: q.callers})
	}
}
