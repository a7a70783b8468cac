// SPDX-License-Identifier: Apache-2.0

package raftlogtest

import (
	"sync"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A gate is a format. Its writes can be held back, and can fail before they reach the format below. mu guards
// the fields below it.
type gate struct {
	storage.Format

	mu      sync.Mutex
	changed sync.Cond
	held    bool
	err     error
	waiting int // writes that are held back
	failed  int // writes that have failed
}

func newGate(format storage.Format) *gate {
	g := &gate{Format: format}
	g.changed.L = &g.mu
	return g
}

// Open implements storage.Format.
func (g *gate) Open(files vfs.FS, dir string) (storage.Store, error) {
	s, err := g.Format.Open(files, dir)
	if err != nil {
		return nil, err
	}
	return gatedStore{s, g}, nil
}

// hold holds back all writes until release.
func (g *gate) hold() { g.set(func() { g.held = true }) }

func (g *gate) release() { g.set(func() { g.held = false }) }

// fail makes all writes fail, until err is nil.
func (g *gate) fail(err error) { g.set(func() { g.err = err }) }

func (g *gate) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
	g.changed.Broadcast()
}

// await waits until n writes are held back.
func (g *gate) await(n int) { g.until(func() bool { return g.waiting >= n }) }

// awaitFailures waits until n writes have failed.
func (g *gate) awaitFailures(n int) { g.until(func() bool { return g.failed >= n }) }

func (g *gate) until(enough func() bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !enough() {
		g.changed.Wait()
	}
}

// pass waits until writes are not held back. It returns the error of the write, if it has to fail.
func (g *gate) pass() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting++
	g.changed.Broadcast()
	for g.held {
		g.changed.Wait()
	}
	g.waiting--
	if g.err != nil {
		g.failed++
		g.changed.Broadcast()
	}
	return g.err
}

// A gatedStore is a store of a gate.
type gatedStore struct {
	storage.Store
	gate *gate
}

// Write implements storage.Log.
func (s gatedStore) Write(changes []storage.Change, applied uint64) (int, error) {
	if err := s.gate.pass(); err != nil {
		return 0, err
	}
	return s.Store.Write(changes, applied)
}

// Vote implements storage.Store.
func (s gatedStore) Vote() storage.Record { return gatedRecord{s.Store.Vote(), s.gate} }

type gatedRecord struct {
	storage.Record
	gate *gate
}

// Save implements storage.Record.
func (r gatedRecord) Save(b []byte) error {
	if err := r.gate.pass(); err != nil {
		return err
	}
	return r.Record.Save(b)
}
