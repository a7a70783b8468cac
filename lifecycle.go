// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"sync"
)

// A lifecycle knows whether a node runs, and ends its calls and goroutines when it does not. A node is
// opened, then closes, which ends the calls, then stops, which ends the node's own work.
type lifecycle struct {
	ctx     context.Context // ends after closing, when a leader has handed over
	cancel  context.CancelFunc
	closing chan struct{} // closed when the node begins to stop
	done    chan struct{} // closed when the node has stopped
	work    sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	atClose  []func()   // to be called when closing is closed
	opened   bool       // Open has built the node: stopping it takes it down
	stopped  bool       // closing is closed: nothing is started any more
	fault    error      // why the node stopped by itself
	closeErr error      // the error of stopping
}

// newLifecycle returns the lifecycle of a node that is being opened. The values of ctx live on in that of
// the node's own work; its end does not.
func newLifecycle(ctx context.Context) *lifecycle {
	l := &lifecycle{closing: make(chan struct{}), done: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return l
}

// Context returns the context of the node's own work, which goes on while a leader hands over.
func (l *lifecycle) Context() context.Context { return l.ctx }

// Closing returns a channel that is closed when calls have to return.
func (l *lifecycle) Closing() <-chan struct{} { return l.closing }

// WhenClosing calls fn once calls have to return, in a goroutine of its own. A part with many waiting calls ends
// all of them in fn, so that each of them waits for one channel less.
func (l *lifecycle) WhenClosing(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		go fn()
		return
	}
	l.atClose = append(l.atClose, fn)
}

// Done returns a channel that is closed when the node has stopped.
func (l *lifecycle) Done() <-chan struct{} { return l.done }

// Go runs fn in a goroutine that Close waits for. It does nothing once the node has begun to stop.
func (l *lifecycle) Go(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopped {
		l.work.Go(fn)
	}
}

// await returns the result of fn, which runs on another goroutine. If ctx ends or the node closes first, it returns
// the reason at once; fn then continues for a while, and its result is dropped.
func (l *lifecycle) await(ctx context.Context, fn func() error) error {
	result := make(chan error, 1)
	go func() { result <- fn() }()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.closing:
		return l.Err()
	}
}

// Err returns nil until the node begins to stop, and then the error of every call: ErrClosed, joined with
// the fault if there is one.
func (l *lifecycle) Err() error {
	select {
	case <-l.closing:
	default:
		return nil
	}
	if fault := l.Fault(); fault != nil {
		return fmt.Errorf("%w: the node is closed: %w", ErrClosed, fault)
	}
	return fmt.Errorf("%w: the node is closed", ErrClosed)
}

// Fault returns why the node stopped by itself, if it did.
func (l *lifecycle) Fault() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault
}

// open notes that the node is built. It returns the fault that has stopped it before that, if any: then
// Open takes down what it has built.
func (l *lifecycle) open() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return l.fault
	}
	l.opened = true
	return nil
}

// stop ends all calls. It reports whether the caller has to take the node down: the first to stop an open
// node does.
func (l *lifecycle) stop(fault error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.stopped, l.fault = true, fault
	close(l.closing)
	for _, fn := range l.atClose {
		go fn()
	}
	return l.opened
}

// finish notes that the node has stopped, and its error.
func (l *lifecycle) finish(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closeErr = err
	close(l.done)
}

// wait waits until the node has stopped, and returns the error of stopping.
func (l *lifecycle) wait() error {
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closeErr
}
