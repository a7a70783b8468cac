// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"container/list"
	"context"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// hashings returns the number of bcrypt computations that an endpoint does at the same time. Each takes about 50 ms of
// a processor, and any client can cause one with Authenticate. The node needs the other processors meanwhile.
func hashings() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// administrators is the name of the line for calls of administrators. No user has this name.
const administrators = ""

// computeHash waits for its turn in a line, and then calls compute.
func (s *server) computeHash(ctx context.Context, line string, compute func()) error {
	if err := s.hashing.begin(ctx, line); err != nil {
		return err
	}
	defer s.hashing.end()
	compute()
	return nil
}

// hashPassword returns the hash of a password. As in etcd, a password has at most 72 bytes.
func (s *server) hashPassword(ctx context.Context, password string) (hash []byte, err error) {
	waited := s.computeHash(ctx, administrators, func() { hash, err = bcrypt.GenerateFromPassword([]byte(password), s.bcryptCost) })
	if waited != nil {
		return nil, waited
	}
	return hash, err
}

// comparePassword reports whether the password of a user has a hash. The error is that of ctx.
func (s *server) comparePassword(ctx context.Context, user string, hash []byte, password string) (same bool, err error) {
	err = s.computeHash(ctx, user, func() { same = bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil })
	return same, err
}

// turns bounds how many computations run at the same time. The others wait in lines, which take turns. So a client that
// guesses the password of one user delays only the logins of that user. mu guards all fields.
type turns struct {
	mu    sync.Mutex
	free  int                   // computations that may begin
	lines map[string]*list.List // of chan struct{}, closed when the computation may begin; no line is empty
	order []string              // of the lines; the first one is next
}

func newTurns(n int) *turns { return &turns{free: n, lines: map[string]*list.List{}} }

// begin waits until a computation may begin. If it returns nil, the caller must call end.
func (t *turns) begin(ctx context.Context, line string) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	if t.lines[line] == nil {
		t.lines[line] = list.New()
		t.order = append(t.order, line)
	}
	ready := make(chan struct{})
	place := t.lines[line].PushBack(ready)
	t.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-ready:
		t.next()
	default:
		t.leave(line, place)
	}
	return context.Cause(ctx)
}

// end lets the next computation begin.
func (t *turns) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next()
}

func (t *turns) next() {
	if len(t.order) == 0 {
		t.free++
		return
	}
	line := t.order[0]
	t.order = append(t.order[1:], line)
	first := t.lines[line].Front()
	close(first.Value.(chan struct{}))
	t.leave(line, first)
}

// leave removes a place from its line.
func (t *turns) leave(line string, place *list.Element) {
	waiting := t.lines[line]
	waiting.Remove(place)
	if waiting.Len() > 0 {
		return
	}
	delete(t.lines, line)
	t.order = slices.DeleteFunc(t.order, func(name string) bool { return name == line })
}
