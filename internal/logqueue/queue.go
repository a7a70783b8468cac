// SPDX-License-Identifier: Apache-2.0

// Package logqueue keeps a program running whatever its log does. A Queue is a slog.Handler in front of
// another one that may block, panic or be slow: only the goroutine of the Queue waits for it.
package logqueue

import (
	"context"
	"log/slog"
	"sync"

	"github.com/coterie-kv/coterie/internal/signal"
)

// Size is the number of lines that a Queue holds. Debug lines may use half of it, so that they leave
// space for the others.
const Size = 1024

// Config configures a Queue.
type Config struct {
	// To handles the lines, one after the other, in the order in which they were logged. All its methods,
	// including Enabled, WithAttrs and WithGroup, are called on the goroutine of the Queue.
	To slog.Handler
	// Dropped is called for each lost line: the queue was full, To panicked, or the Queue was closed. It
	// may be called concurrently and must not block.
	Dropped func()
	// Resumed is called when To accepts lines again after the queue was full, with the number of lost
	// lines. It may log.
	Resumed func(missed int)
}

// A Queue holds log lines until its goroutine has passed them to a handler. Lines that do not fit are
// dropped, so that callers never wait. mu guards the fields below it.
type Queue struct {
	cfg  Config
	wake chan struct{} // receives a value when lines may have arrived, or the Queue was closed
	done chan struct{} // closed when the goroutine has returned

	mu     sync.Mutex
	lines  []line
	missed int // since Resumed was called
	closed bool
}

// A line is a record for the handler of a scope.
type line struct {
	of     *scope
	record slog.Record
}

// New returns a Queue and starts its goroutine, which ends after Close.
func New(cfg Config) *Queue {
	q := &Queue{cfg: cfg, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Handler returns the handler that adds lines to the queue. It accepts lines of every level; the
// underlying handler's Enabled is called later.
func (q *Queue) Handler() slog.Handler { return handler{q, &scope{built: q.cfg.To}} }

// Close waits until the lines logged so far are handled, or until ctx ends. In that case the remaining
// lines are dropped, and the goroutine of the Queue ends when the handler returns. Later lines are
// dropped.
func (q *Queue) Close(ctx context.Context) {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	signal.Poke(q.wake)
	select {
	case <-q.done:
	case <-ctx.Done():
	}
	q.mu.Lock()
	left := len(q.lines)
	q.lines = nil
	q.mu.Unlock()
	for range left {
		q.cfg.Dropped()
	}
}

func (q *Queue) put(l line) {
	q.mu.Lock()
	room := Size
	if l.record.Level < slog.LevelInfo {
		room /= 2
	}
	fits := !q.closed && len(q.lines) < room
	if fits {
		q.lines = append(q.lines, l)
	} else if !q.closed {
		q.missed++
	}
	q.mu.Unlock()
	if !fits {
		q.cfg.Dropped()
		return
	}
	signal.Poke(q.wake)
}

// run passes the lines to the handler until the Queue is closed. If the handler ends its goroutine, as
// testing.T's FailNow does, run starts another one.
func (q *Queue) run() {
	ended := false
	defer func() {
		if !ended {
			go q.run()
		}
	}()
	for {
		l, missed, closed := q.take()
		switch {
		case l.of != nil:
			q.handle(l)
		case missed > 0 && !closed:
			q.cfg.Resumed(missed)
		case closed:
			ended = true
			close(q.done)
			return
		default:
			<-q.wake
		}
	}
}

// take takes the next line. If there is none, it takes the number of lost lines.
func (q *Queue) take() (l line, missed int, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines) > 0 {
		l = q.lines[0]
		q.lines[0] = line{}
		q.lines = q.lines[1:]
		return l, 0, q.closed
	}
	q.lines = nil
	missed, q.missed = q.missed, 0
	return line{}, missed, q.closed
}

func (q *Queue) handle(l line) {
	handled := false
	defer func() {
		if !handled {
			_ = recover() // a failing log must not end the program, and cannot report its own failure
			q.cfg.Dropped()
		}
	}()
	ctx := context.Background()
	if h := l.of.handler(); h.Enabled(ctx, l.record.Level) {
		_ = h.Handle(ctx, l.record) // package log/slog ignores the error, too
	}
	handled = true
}
