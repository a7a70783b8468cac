// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"io/fs"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// The figures of an idle cluster. The first three are divided by the number of members.
const (
	FigureCPUPercent = "cpuPercent" // of a core
	FigureGoroutines = "goroutines"
	FigureDirBytes   = "directoryBytes"
	FigureWritten    = "writtenBytes" // that the process has caused to be written to disks: 0 if nothing was synced
)

// An idle job makes no calls.
type idle struct {
	base
	sessions []Lock
}

func newIdle(_ context.Context, b base) (Job, error) { return &idle{base: b}, nil }

// sessionTTL is the TTL of the sessions that newSessions opens. A session renews its lease every third of it.
const sessionTTL = 9 * time.Second

// newSessions returns the job that makes no calls while sessions on members of the load's place keep their leases alive.
func newSessions(ctx context.Context, b base) (Job, error) {
	sessions, err := openLocks(ctx, &b, b.Leases, sessionTTL)
	return &idle{b, sessions}, err
}

func (j *idle) Close() error { return closeLocks(j.sessions) }

func (j *idle) Run(ctx context.Context, d time.Duration, m Meter) (Sample, error) {
	var h histogram
	var written float64
	s, err := m.measure(&h, func() error {
		before, err := procNumber("io", "write_bytes:")
		if err != nil {
			return err
		}
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return ctx.Err()
		}
		written, err = procNumber("io", "write_bytes:")
		written -= before
		return err
	})
	if err != nil {
		return s, err
	}
	s.Ops = 1
	f, err := readMemory()
	if err != nil {
		return s, err
	}
	bytes, err := dirBytes(j.sys.Dir)
	f[FigureCPUPercent] = 100 * float64(s.Server.CPU) / float64(s.Elapsed)
	f[FigureGoroutines] = float64(runtime.NumGoroutine())
	f[FigureDirBytes] = float64(bytes)
	for name := range f {
		f[name] /= float64(len(j.sys.Stores))
	}
	f[FigureWritten] = written
	s.Figures = f
	return s, err
}

// dirBytes returns the room that the files below a directory have on the disk. An empty name stands for no directory.
func dirBytes(dir string) (sum int64, err error) {
	if dir == "" {
		return 0, nil
	}
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	return sum, err
}
