// SPDX-License-Identifier: Apache-2.0

// Package logqueue keeps a program going whatever its log does. A Queue is a slog.Handler in front of
// another one, which may block, panic or be slow: only the goroutine of the Queue waits for it.
package logqueue

import (
	"context"
	"log/slog"
	"sync"

	"github.com/coterie-kv/coterie/internal/signal"
)

// Size is how many lines a Queue holds. Debug lines get half of it, so that they leave room for the
// others.
const Size = 1024

// Config says what a Queue does.
type Config struct {
	// To handles the lines, one after the other, in the order in which they were logged. All its
	// methods, Enabled, WithAttrs and WithGroup among them, are called on the goroutine of the Queue.
	To slog.Handler
	// Dropped is called for each line that is lost: the queue was full, To panicked, or the Queue was
	// closed. It may be called concurrently and must not block.
	Dropped func()
	// Resumed is called when To takes lines again after a queue that was full, with the number of lines
	// that it missed. It may log.
	Resumed func(missed int)
}

// A Queue holds log lines until its goroutine has given them to a handler. Lines that do not fit are
// dropped: nothing that logs waits.
type Queue struct {
	cfg  Config
	wake chan struct{} // has a value when lines may have come, or the Queue was closed
	done chan struct{} // closed when the goroutine has ended

	mu     sync.Mutex
	lines  []line
	missed int // since Resumed was called
	closed bool
}

// A line is a record for the handler that a scope describes.
type line struct {
	of     *scope
	record slog.Record
}

// New returns a Queue whose goroutine ends after Close.
func New(cfg Config) *Queue {
	q := &Queue{cfg: cfg, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Handler returns the handler that puts lines into the queue. It takes lines of every level: whether a
// line is wanted, the handler behind it is asked later.
func (q *Queue) Handler() slog.Handler { return handler{q, &scope{built: q.cfg.To}} }

// Close waits until the lines that were logged before are handled, or ctx ends: then those that are
// left are dropped, and the goroutine of the Queue ends when the handler returns. Later lines are
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

// run gives the lines to the handler until the Queue is closed. A handler that ends its goroutine, as
// testing.T's FailNow does, gets another one.
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

// take takes the next line. If there is none, it takes the number of those that were missed.
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
			_ = recover() // the log is no reason to end the program, and the place to tell of it failed
			q.cfg.Dropped()
		}
	}()
	ctx := context.Background()
	if h := l.of.handler(); h.Enabled(ctx, l.record.Level) {
		_ = h.Handle(ctx, l.record) // as package log/slog does
	}
	handled = true
}
