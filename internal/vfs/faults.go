// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"path/filepath"
	"syscall"
	"time"
)

// faults is what can be wrong with a Memory. The disk's lock guards it.
type faults struct {
	stalled bool
	full    bool
	lying   bool // syncs do nothing
	frozen  bool // nothing is done any more, until Crash
	limited bool // it will be, after so many changes
	left    int
	failing error // what the next syncs return
	broken  error // what everything returns, reads among it, after so much more
	whole   int
	short   error // what everything but a sync returns, reads among it, after so much more
	spare   int
	done    int // changes so far
	delay   time.Duration
}

// allow reports what is wrong with an operation, if something is.
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

// Stall has every change wait until it is called again with false, or Crash.
func (m *Memory) Stall(on bool) { m.set(func(f *faults) { f.stalled = on }) }

// Fill has every change fail that needs room, with syscall.ENOSPC, as long as it is on.
func (m *Memory) Fill(on bool) { m.set(func(f *faults) { f.full = on }) }

// Delay has every change take so long.
func (m *Memory) Delay(d time.Duration) { m.set(func(f *faults) { f.delay = d }) }

// FailSync has every Sync of a file return err, and make nothing durable; nil ends that.
func (m *Memory) FailSync(err error) { m.set(func(f *faults) { f.failing = err }) }

// Lie has Sync and SyncDir return without making anything durable: a control that shows what a test
// of crashes is worth.
func (m *Memory) Lie(on bool) { m.set(func(f *faults) { f.lying = on }) }

// FreezeAfter lets n more changes happen and then fails everything, as if the process had ended
// there, until Crash.
func (m *Memory) FreezeAfter(n int) {
	m.set(func(f *faults) { f.limited, f.left = true, n })
}

// BreakAfter lets n more operations happen, reads among them, and then fails everything with err,
// as a disk does that has gone; nil ends that.
func (m *Memory) BreakAfter(n int, err error) {
	m.set(func(f *faults) { f.broken, f.whole = err, n })
}

// Shortage lets n more operations happen, reads among them, and then fails everything but a Sync with
// err, as a system does that is short of descriptors or memory; nil ends that.
func (m *Memory) Shortage(n int, err error) {
	m.set(func(f *faults) { f.short, f.spare = err, n })
}

// Changes returns how many changes were asked for so far.
func (m *Memory) Changes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.done
}

// Damage flips a bit of a file, durably. It reports whether the file has that byte.
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
