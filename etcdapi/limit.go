// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/coterie-kv/coterie"
)

// errTimeout ends a call that has taken as long as etcd allows.
var errTimeout = fmt.Errorf("etcdapi: request timed out: %w", context.DeadlineExceeded)

// limit bounds a call that needs the cluster. The caller cancels the context at the end of the call. A call of this
// process keeps the context of its caller, so that it ends together with that context.
func (s *server) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if !s.direct {
		return context.WithTimeoutCause(ctx, s.limiter.most, errTimeout)
	}
	end := time.Now().Add(s.limiter.most)
	if earlier, ok := ctx.Deadline(); ok && !end.Before(earlier) {
		return ctx, func() {}
	}
	l := s.limiter.begin(ctx, end)
	return l, l.cancel
}

// A limiter bounds the time of calls over the network. One timer serves all of them, because a context of the standard library
// costs a call eight allocations, among them a timer and a map in the context of the client. Almost no call reaches its limit.
type limiter struct {
	most  time.Duration // the time of a call
	sweep *time.Timer   // runs while there are calls

	mu       sync.Mutex // guards the fields below, and those of the calls
	calls    limited    // the head of a ring of the calls in flight
	sweeping bool
}

// sweepInterval is how long a call may continue after its client has canceled it. It is long enough that 10,000 calls in
// flight cost about two percent of a core, and short enough that canceled requests hold little memory.
const sweepInterval = 20 * time.Millisecond

// newLimiter returns a limiter that allows what etcd does: 5 s and two election timeouts.
func newLimiter(limits coterie.Limits) *limiter {
	r := &limiter{most: 5*time.Second + 2*limits.ElectionTimeout}
	r.calls.next, r.calls.prev = &r.calls, &r.calls
	return r
}

// begin returns the context of a call that ends at some time, or soon after the context of its client.
func (r *limiter) begin(ctx context.Context, end time.Time) *limited {
	l := &limited{Context: ctx, in: r, end: end, done: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	l.prev, l.next = r.calls.prev, &r.calls
	l.prev.next, l.next.prev = l, l
	if !r.sweeping {
		r.sweeping = true
		if r.sweep == nil {
			r.sweep = time.AfterFunc(sweepInterval, r.run)
		} else {
			r.sweep.Reset(sweepInterval)
		}
	}
	return l
}

// run ends the calls that have reached their time, and those of clients that have gone.
func (r *limiter) run() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for l := r.calls.next; l != &r.calls; {
		next := l.next
		if err := l.Context.Err(); err != nil {
			l.finish(err)
		} else if !now.Before(l.end) {
			l.finish(errTimeout)
		}
		l = next
	}
	if r.sweeping = r.calls.next != &r.calls; r.sweeping {
		r.sweep.Reset(sweepInterval)
	}
}

// A limited is the context of a call of a limiter. It has the values of the client's context.
type limited struct {
	context.Context // the client's
	in              *limiter
	end             time.Time
	done            chan struct{}

	prev, next *limited // nil after the end; the lock of the limiter guards these and the fields below
	err        error    // may be read when done is closed
	after      map[*func()]struct{}
}

func (l *limited) Deadline() (time.Time, bool) { return l.end, true }

func (l *limited) Done() <-chan struct{} { return l.done }

func (l *limited) Err() error {
	select {
	case <-l.done:
		return l.err
	default:
		return nil
	}
}

// AfterFunc calls f in its own goroutine after the end, unless stop is called first. Package context looks for this
// method when it derives a context. Without it, each derived context would have a goroutine.
func (l *limited) AfterFunc(f func()) (stop func() bool) {
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	if l.next == nil {
		go f()
		return func() bool { return false }
	}
	if l.after == nil {
		l.after = map[*func()]struct{}{}
	}
	l.after[&f] = struct{}{}
	return func() bool {
		l.in.mu.Lock()
		defer l.in.mu.Unlock()
		_, waits := l.after[&f]
		delete(l.after, &f)
		return waits
	}
}

// cancel ends the context, because the call has ended.
func (l *limited) cancel() {
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	l.finish(context.Canceled)
}

// finish ends the context, unless it has ended. The limiter is locked.
func (l *limited) finish(err error) {
	if l.next == nil {
		return
	}
	l.prev.next, l.next.prev = l.next, l.prev
	l.prev, l.next = nil, nil
	l.err = err
	close(l.done)
	for f := range l.after {
		go (*f)()
	}
	l.after = nil
}
