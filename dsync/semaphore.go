// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"fmt"
	"strconv"

	"github.com/coterie-kv/coterie"
)

// A Semaphore has permits, of which each holder takes some, among all who know its name, on any
// node. It is fair: whoever asked first is served first, though what it asks for is much and others
// would fit in before it. Its methods may be called concurrently, and each call is a contender of
// its own.
//
// To take and to release costs two writes, and one more for who had to wait while others waited
// behind. A release wakes only the first who waits; each who comes to be served wakes the next. A
// holder that crashes keeps its permits until its session's lease ends; one that does so just when it
// is served holds up, until then, those that it would have woken. Do not use it to bound rates, nor
// for what one process can bound by itself; each call reads as many keys as there are contenders
// before it, so some thousands are many.
type Semaphore struct {
	s    *coterie.Session
	name string
	line line
	size int64
}

// NewSemaphore returns a Semaphore of a name, with size permits; nothing is asked of the cluster.
// All must say the same size: each keeps to its own. Its keys are below name + "/".
func NewSemaphore(s *coterie.Session, name string, size int64) *Semaphore {
	return &Semaphore{s: s, name: name, line: newLine(name + "/"), size: size}
}

// Acquire waits until everybody who asked before has been served and n permits are free, and
// returns the Hold of them. When it fails, the place in the line is given up.
//
// Errors: coterie.ErrInvalidOption when n is less than 1 or more than there are at all, or the name is
// empty; ctx's cause, in a *coterie.HeldError for the oldest of those before this call, and with
// coterie.ErrNoLeader when no leader was known; coterie.ErrSessionExpired; coterie.ErrNotOwner when somebody deleted the place;
// ErrForeignValue; ErrNoSpace, ErrOverloaded, ErrClosed.
func (m *Semaphore) Acquire(ctx context.Context, n int64) (*Hold, error) {
	return m.acquire(ctx, n, m.wait)
}

// TryAcquire is Acquire for when it need not wait. Permits that it does not get it may occupy for a
// moment.
//
// Errors: coterie.ErrLocked, in a *coterie.HeldError, when it would have to wait, and those of Acquire.
func (m *Semaphore) TryAcquire(ctx context.Context, n int64) (*Hold, error) {
	return m.acquire(ctx, n, func(ctx context.Context, p *place, n int64) error {
		v, err := m.look(ctx, p)
		switch {
		case err != nil:
			return err
		case v.free < n:
			return coterie.ErrLocked
		}
		return v.served(ctx, p)
	})
}

func (m *Semaphore) acquire(ctx context.Context, n int64,
	wait func(context.Context, *place, int64) error,
) (*Hold, error) {
	if err := checkName(m.name); err != nil {
		return nil, err
	}
	if n < 1 || n > m.size {
		return nil, fmt.Errorf("%w: %d permits of %d", coterie.ErrInvalidOption, n, m.size)
	}
	return enter(ctx, m.s, m.name, m.line, m.line.all, strconv.FormatInt(n, 10), func(ctx context.Context, p *place) error {
		return wait(ctx, p, n)
	})
}

// A lineup is what somebody sees who stands in the line of a Semaphore.
type lineup struct {
	rev   int64  // at which it was seen
	last  string // the place right before
	free  int64  // permits that the places before leave; negative if these are too many for all
	queue bool   // somebody stands behind
}

func (m *Semaphore) look(ctx context.Context, p *place) (v lineup, err error) {
	rev, found, err := p.look(ctx,
		m.line.get(coterie.WithMaxCreateRevision(p.rev-1), coterie.WithSort(coterie.SortByCreateRevision, coterie.SortAscend)),
		// A key of a name that continues this one costs a needless sign, and no more.
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
	v.rev, v.queue = rev, len(found[1].Get.KVs) > 0
	return v, nil
}

// wait returns when the place is served: a place is, by rule, when its permits and those of all
// before it are no more than there are. So it takes no write, but for a sign to the one behind.
func (m *Semaphore) wait(ctx context.Context, p *place, n int64) error {
	for {
		v, err := m.look(ctx, p)
		switch {
		case err != nil:
			return err
		case v.free >= n:
			return v.served(ctx, p)
		case v.free >= 0: // the place before is served, so this one is the first who waits
			err = changed(ctx, p.s.Node(), m.line.all, v.rev, coterie.WithPrefix(), coterie.WithFilterPut())
		default:
			err = changed(ctx, p.s.Node(), v.last, v.rev)
		}
		if err != nil {
			return err
		}
	}
}

// served is the last of a place that is served: a sign to the one behind, if there is one, who may
// have looked before that and could not tell from anything else.
func (v lineup) served(ctx context.Context, p *place) error {
	if !v.queue {
		return nil
	}
	return p.write(ctx, p.put())
}

// number reads a value that this package wrote.
func number(kv coterie.KeyValue) (int64, error) {
	n, err := strconv.ParseInt(kv.Value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %q of %s is not a number", ErrForeignValue, kv.Value, kv.Key)
	}
	return n, nil
}
