// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/coterie-kv/coterie"
)

// A hold is the state that an RWMutex and a Semaphore share: the place that the object holds.
type hold struct {
	s    *coterie.Session
	name string // of the lock or semaphore

	mu    sync.Mutex // guards the fields below
	place *place     // nil if nothing is held
	busy  bool       // an acquisition is in progress
}

// acquire runs enter, which returns a place that is served, and holds that place. It rejects a second
// acquisition by the same object, which would wait for itself.
func (h *hold) acquire(enter func() (*place, error)) error {
	if err := checkName(h.name); err != nil {
		return err
	}
	if err := h.s.Err(); err != nil {
		return err
	}
	if !h.begin() {
		return fmt.Errorf("%w: %q is held or requested already", coterie.ErrLocked, h.name)
	}
	var p *place
	defer func() { h.end(p) }()
	p, err := enter()
	return err
}

// begin reports whether an acquisition may start, and notes that it has.
func (h *hold) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy || h.place != nil {
		return false
	}
	h.busy = true
	return true
}

// end notes that an acquisition has ended, with a place or nil.
func (h *hold) end(p *place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy = false
	if p != nil {
		h.place = p
	}
}

// held returns the place, or nil if nothing is held.
func (h *hold) held() *place {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.place
}

// release gives the place up, if its key begins with prefix. After ErrNotOwner nothing is held; after
// another error the place is still held, so that the caller can try again.
func (h *hold) release(ctx context.Context, prefix string) error {
	p := h.held()
	if p == nil || !strings.HasPrefix(p.key, prefix) {
		return fmt.Errorf("%w: no key below %q is held", coterie.ErrNotOwner, prefix)
	}
	err := p.leave(ctx)
	if err == nil || errors.Is(err, coterie.ErrNotOwner) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.place == p {
			h.place = nil
		}
	}
	return err
}

func (h *hold) key() string {
	if p := h.held(); p != nil {
		return p.key
	}
	return ""
}

func (h *hold) token() int64 {
	if p := h.held(); p != nil {
		return p.rev
	}
	return 0
}

// guard returns a condition that holds while the place exists. If nothing is held, it never holds.
func (h *hold) guard() coterie.Comparison {
	if p := h.held(); p != nil {
		return p.guard()
	}
	return coterie.Compare(coterie.CreateRevision(h.name+"/"), "<", 0)
}

// workContext returns a context that ends with ctx or the session, and carries the guard. If nothing is held, it
// has ended already.
func (h *hold) workContext(ctx context.Context) (context.Context, context.CancelFunc) {
	p := h.held()
	if p == nil {
		ctx, cancel := context.WithCancelCause(ctx)
		cancel(fmt.Errorf("%w: %q is not held", coterie.ErrNotOwner, h.name))
		return ctx, func() {}
	}
	return h.s.WorkContext(coterie.ContextWithGuard(ctx, p.guard()))
}

// enter takes the last place in a line and calls wait there. If that fails, it gives the place up, and the
// error names the holder of the oldest place of the line.
func (h *hold) enter(ctx context.Context, l line, prefix, val string, wait func(context.Context, *place) error) (*place, error) {
	p, err := take(ctx, h.s, prefix, val)
	if err == nil && p == nil {
		err = fmt.Errorf("%w: the key of a new place below %s exists already", coterie.ErrNotOwner, prefix)
	}
	if err == nil {
		err = stay(ctx, p, wait)
	}
	switch {
	case err == nil:
		return p, nil
	case errors.Is(err, coterie.ErrLocked):
	case ctx.Err() != nil && h.s.Err() == nil:
		err = h.s.Node().ContextError(ctx)
	default:
		return nil, err
	}
	return nil, l.heldError(ctx, h.s.Node(), h.name, p, err)
}

// stay calls wait at a place. If that fails, it gives the place up.
func stay(ctx context.Context, p *place, wait func(context.Context, *place) error) error {
	ctx, cancel := p.s.WorkContext(ctx)
	defer cancel()
	err := wait(ctx, p)
	if err == nil {
		err = context.Cause(ctx) // the session may have ended meanwhile
	}
	if err != nil {
		p.abandon()
	}
	return err
}
