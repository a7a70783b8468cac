// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"errors"
	"fmt"

	"github.com/coterie-kv/coterie"
)

// A Hold is what its holder has of an [RWMutex] or a [Semaphore], until Release or the end of the
// session, with which what the Hold protects must stop: see Bind. Its methods may be called
// concurrently.
type Hold struct{ p *place }

// enter takes a place under a prefix and waits there. When that fails, the place is given up, and the
// error tells who holds a place of the line that was waited for.
func enter(ctx context.Context, s *coterie.Session, name string, l line, prefix, val string,
	wait func(context.Context, *place) error,
) (*Hold, error) {
	p, err := take(ctx, s, prefix, val)
	if err == nil && p == nil {
		err = fmt.Errorf("%w: a place of %s was there already", coterie.ErrNotOwner, prefix)
	}
	if err == nil {
		err = stay(ctx, p, wait)
	}
	switch {
	case err == nil:
		return &Hold{p}, nil
	case errors.Is(err, coterie.ErrLocked):
	case ctx.Err() != nil && s.Err() == nil:
		err = s.Node().ContextError(ctx)
	default:
		return nil, err
	}
	return nil, l.held(ctx, s.Node(), name, p, err)
}

// stay waits at a place. When that fails, the place is given up.
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

// Token returns the fencing token: the create revision of the Hold's key, higher than that of every
// Hold of the lock or semaphore that was asked for before. Who writes to another store compares it
// there, and is refused if a higher one was seen: that is right for a writer of an RWMutex, and for
// the only permit of a Semaphore. Readers, and holders of permits, hold together: the highest wins
// is wrong among them, for one that came earlier holds still. A store that has to know may compare
// a reader's with that of the last writer alone; for the others there is [Hold.Guard].
func (h *Hold) Token() int64 { return h.p.rev }

// Guard returns a condition for transactions that holds until Release or the session's end: with
// it, a write of a holder that lost what it held, and does not know, is refused.
func (h *Hold) Guard() coterie.Comparison { return h.p.guard() }

// Bind returns a context for what the Hold protects: it ends with ctx, with the returned function,
// which must be called, or with the session, before anybody else can have what is held.
func (h *Hold) Bind(ctx context.Context) (context.Context, context.CancelFunc) {
	return h.p.s.WorkContext(ctx)
}

// Release gives up what is held: one write. It blocks until that is applied; after an error other
// than ErrNotOwner it may be called again, and if it is not, the session's end does it.
//
// Errors: coterie.ErrNotOwner when it was given up or lost before; those of a transaction.
func (h *Hold) Release(ctx context.Context) error { return h.p.leave(ctx) }
