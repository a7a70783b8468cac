// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"path/filepath"
	"syscall"
	"time"
)

// faults are the faults of a Memory. The disk's lock guards them.
type faults struct {
	stalled bool
	full    bool
	lying   bool // syncs do nothing
	frozen  bool // every operation fails until Crash
	limited bool // frozen will be set after left more changes
	left    int
	failing error // the error of the next syncs
	broken  error // the error of every operation, including reads, after whole more
	whole   int
	short   error // the error of every operation except syncs, after spare more
	spare   int
	done    int // changes so far
	delay   time.Duration
}

// allow returns the error of an operation, if a fault applies to it.
func (f *faults) allow(op string) error {
	if f.broken != nil {
		if f.whole == 0 {
			return f.broken
		}
		f.whole--
	}
	if f.short != nil && op != "sync" {
		if f.spare == 0 {
			return f.short
		}
		f.spare--
	}
	if op == "read" {
		return nil
	}
	f.done++
	if f.limited {
		f.left--
		f.frozen = f.left < 0
	}
	switch {
	case f.full && (op == "grow" || op == "create"):
		return syscall.ENOSPC
	case f.failing != nil && op == "sync":
		return &SyncError{f.failing}
	}
	return nil
}

func (m *Memory) set(change func(f *faults)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.faults)
	m.changed.Broadcast()
}

// Stall makes every change wait until Stall(false) or Crash.
func (m *Memory) Stall(on bool) { m.set(func(f *faults) { f.stalled = on }) }

// Fill makes every change that needs space fail with syscall.ENOSPC, as long as it is on.
func (m *Memory) Fill(on bool) { m.set(func(f *faults) { f.full = on }) }

// Delay makes every change take the duration d.
func (m *Memory) Delay(d time.Duration) { m.set(func(f *faults) { f.delay = d }) }

// FailSync makes every Sync of a file return err and make nothing durable. nil ends that.
func (m *Memory) FailSync(err error) { m.set(func(f *faults) { f.failing = err }) }

// Lie makes Sync and SyncDir return without making anything durable. Crash tests use it as a control:
// they must detect the loss.
func (m *Memory) Lie(on bool) { m.set(func(f *faults) { f.lying = on }) }

// FreezeAfter allows n more changes and then fails everything until Crash, as if the process had ended
// there.
func (m *Memory) FreezeAfter(n int) {
	m.set(func(f *faults) { f.limited, f.left = true, n })
}

// BreakAfter allows n more operations, including reads, and then fails everything with err, like a disk
// that has disappeared. nil ends that.
func (m *Memory) BreakAfter(n int, err error) {
	m.set(func(f *faults) { f.broken, f.whole = err, n })
}

// Shortage allows n more operations, including reads, and then fails everything except Sync with err,
// like a system that is short of descriptors or memory. nil ends that.
func (m *Memory) Shortage(n int, err error) {
	m.set(func(f *faults) { f.short, f.spare = err, n })
}

// Changes returns the number of changes requested so far.
func (m *Memory) Changes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.done
}

// Damage durably flips a bit of a file. It reports whether the file has that byte.
func (m *Memory) Damage(name string, at int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[filepath.Dir(name)]
	if d == nil || d.names[filepath.Base(name)] == nil {
		return false
	}
	c := d.names[filepath.Base(name)]
	if at >= c.size {
		return false
	}
	c.data.flip(at)
	if at < c.durableSize {
		c.durable.flip(at)
	}
	return true
}
