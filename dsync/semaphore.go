// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"fmt"
	"strconv"

	"github.com/coterie-kv/coterie"
)

// A Semaphore limits how many permits are held at a time by all that use its name, on any node.
//
// It is fair: requests are served in the order in which they were made, even if a request for many permits
// waits and a later one would fit.
//
// A Semaphore value has state, as a [coterie.Mutex] has: it holds the permits of one Acquire at a time, and it
// makes one request at a time. A second request returns coterie.ErrLocked at once. Goroutines that compete
// need a Semaphore each; those of one name share the permits, on one session too. The methods may be called
// concurrently.
//
// Acquire and Release cost two writes, and a third if the request had to wait while another waited behind it.
// A release wakes only the first waiter; each waiter that is served wakes the next. If a holder crashes, its
// permits stay taken until its session's lease ends. If it crashes at the moment in which it is served, the
// waiters that it would have woken wait until then, too. A Semaphore does not limit rates, and one process
// alone needs none. Each call reads as many keys as there are earlier requests: hundreds are fine, thousands
// are too many.
type Semaphore struct {
	hold hold
	line line
	size int64
}

// NewSemaphore returns a Semaphore with size permits, of which it holds none. It does not contact the
// cluster. All users of a name must give the same size: each one checks only its own. The permits that are
// held end with the session. The keys are below name + "/".
func NewSemaphore(s *coterie.Session, name string, size int64) *Semaphore {
	return &Semaphore{hold: hold{s: s, name: name}, line: newLine(name + "/"), size: size}
}

// Acquire waits until all earlier requests are served and n permits are free, and takes them. If it fails, it
// gives up its place in the queue.
//
// Errors:
//   - coterie.ErrInvalidOption if n is less than 1 or more than the size, or the name is empty;
//   - ctx's cause, in a *coterie.HeldError for the oldest earlier request, and with coterie.ErrNoLeader if no
//     leader was known;
//   - coterie.ErrLocked if this Semaphore already holds or requests permits;
//   - coterie.ErrSessionExpired if the session has ended;
//   - coterie.ErrNotOwner if the key of this request was deleted;
//   - ErrForeignValue;
//   - coterie.ErrNoSpace, coterie.ErrOverloaded, coterie.ErrClosed.
func (m *Semaphore) Acquire(ctx context.Context, n int64) error { return m.acquire(ctx, n, m.wait) }

// TryAcquire takes n permits if it need not wait for them. A call that fails may occupy permits for a moment.
//
// Errors: coterie.ErrLocked, in a *coterie.HeldError, if it would have to wait, and those of Acquire.
func (m *Semaphore) TryAcquire(ctx context.Context, n int64) error {
	return m.acquire(ctx, n, func(ctx context.Context, p *place, n int64) error {
		v, err := m.look(ctx, p)
		switch {
		case err != nil:
			return err
		case v.free < n:
			return coterie.ErrLocked
		}
		return v.signal(ctx, p)
	})
}

// Release gives all permits back that this Semaphore holds: one write. It blocks until that write is applied. After an
// error other than ErrNotOwner the permits still count as held, and Release may be called again. Without another call
// they are released when the session ends.
//
// Errors: coterie.ErrNotOwner if this Semaphore holds no permits, or lost them earlier, for example with its
// session. Those of a transaction. After coterie.ErrMaybeApplied, ErrNotOwner from the next call says that the
// permits had been released.
func (m *Semaphore) Release(ctx context.Context) error { return m.hold.release(ctx, m.line.all) }

// Key returns the key of the permits that are held, or "" if none are. It is attached to the session's lease.
func (m *Semaphore) Key() string { return m.hold.key() }

// Token returns the fencing token of the permits that are held, or 0 if none are: the create revision of
// their key, higher than that of every earlier request. Another store can reject lower tokens only if the
// Semaphore has a single permit: holders of several permits work at the same time, and one with a lower token
// may still hold its own. In this store use [Semaphore.Guard].
func (m *Semaphore) Token() int64 { return m.hold.token() }

// Guard returns a condition for transactions that holds until the permits are released or lost: with it, a
// write is rejected if its holder lost them and does not know. If no permits are held, the condition never
// holds.
func (m *Semaphore) Guard() coterie.Comparison { return m.hold.guard() }

// WorkContext returns a context for the work that needs the permits. It ends with ctx, with the returned
// function, which must be called, or with the session, before the permits can be granted to another. It does
// not end with Release. It carries the guard: see [coterie.GuardFromContext]. If no permits are held, the context
// has ended already, with coterie.ErrNotOwner.
func (m *Semaphore) WorkContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return m.hold.workContext(ctx)
}

func (m *Semaphore) acquire(ctx context.Context, n int64, wait func(context.Context, *place, int64) error) error {
	if n < 1 || n > m.size {
		return fmt.Errorf("%w: %d permits of %d", coterie.ErrInvalidOption, n, m.size)
	}
	return m.hold.acquire(func() (*place, error) {
		return m.hold.enter(ctx, m.line, m.line.all, strconv.FormatInt(n, 10), func(ctx context.Context, p *place) error {
			return wait(ctx, p, n)
		})
	})
}

// A lineup is the line of a Semaphore as a place in it sees it.
type lineup struct {
	rev    int64  // of the read
	last   string // key of the place directly before
	free   int64  // permits that the places before leave; negative if they request too many together
	behind bool   // a later place exists
}

func (m *Semaphore) look(ctx context.Context, p *place) (v lineup, err error) {
	rev, found, err := p.look(ctx,
		m.line.get(coterie.WithMaxCreateRevision(p.rev-1), coterie.WithSort(coterie.SortByCreateRevision, coterie.SortAscend)),
		// A key of a name that continues this one may cause a needless signal, which does no harm.
		m.line.get(coterie.WithMinCreateRevision(p.rev+1), coterie.WithLimit(1)))
	if err != nil {
		return v, err
	}
	v.free = m.size
	for _, kv := range m.line.only(found[0].Get.KVs) {
		n, err := number(kv)
		if err != nil {
			return v, err
		}
		if v.last = kv.Key; v.free >= 0 {
			v.free -= n
		}
	}
	v.rev, v.behind = rev, len(found[1].Get.KVs) > 0
	return v, nil
}

// wait returns when the place is served. By definition a place is served when its permits and those of all
// earlier places are together no more than the size, so being served takes no write except the signal.
func (m *Semaphore) wait(ctx context.Context, p *place, n int64) error {
	for {
		v, err := m.look(ctx, p)
		switch {
		case err != nil:
			return err
		case v.free >= n:
			return v.signal(ctx, p)
		case v.free >= 0: // the place before is served, so this one is the first waiter
			err = changed(ctx, p.s.Node(), m.line.all, v.rev, coterie.WithPrefix(), coterie.WithFilterPut())
		default:
			err = changed(ctx, p.s.Node(), v.last, v.rev)
		}
		if err != nil {
			return err
		}
	}
}

// signal writes the place again if a later place exists. The place behind may have looked before this one was
// served, and it watches this key alone.
func (v lineup) signal(ctx context.Context, p *place) error {
	if !v.behind {
		return nil
	}
	return p.write(ctx, p.put())
}
