// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

const (
	// lockWait is how long to wait for the lock of the file. The system may release the locks of a process that has
	// been killed one after the other, so the lock of the directory can be free earlier.
	lockWait  = time.Second
	lockRetry = 10 * time.Millisecond
)

// A database is an open file of raft-boltdb. It turns everything that can happen inside bbolt into an error: a panic,
// a page that cannot be read, or a lock that a panic has left behind. So each call of bbolt has a goroutine of its own.
// After a panic in one of them, callers no longer wait for the others.
type database struct {
	name    string
	options Options
	broken  chan struct{} // closed when failure is set

	writing sync.Mutex // held by the one goroutine that writes; guards lines
	lines   lines

	mu      sync.RWMutex // held shared by calls of bolt; guards bolt and file
	bolt    *raftboltdb.BoltStore
	file    *os.File // of bolt, which closes it
	failure atomic.Pointer[error]

	transaction atomic.Uint64 // the newest one that is durable
	pageSize    atomic.Int64
}

// openDatabase opens a file, which it creates if it does not exist. It calls check before bbolt reads the file.
func openDatabase(name string, o Options, check func(*os.File) error) (*database, error) {
	d := &database{name: name, options: o, broken: make(chan struct{})}
	if err := d.call(func() error { return d.open(check) }); err != nil {
		return nil, err
	}
	return d, nil
}

// open opens the file. mu is held, or nothing else uses d.
func (d *database) open(check func(*os.File) error) (err error) {
	file, err := d.lock()
	if err != nil {
		return err
	}
	defer func() {
		if d.bolt == nil {
			_ = vfs.UnlockFile(file) // bbolt may have closed it
		}
	}()
	if check != nil {
		if err := check(file); err != nil {
			return err
		}
	}
	d.lines.reset()
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: d.name, BoltOptions: &bbolt.Options{
		Timeout:         lockWait,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: d.options.InitialMmapSize,
		NoFreelistSync:  d.options.NoFreelistSync,
		OpenFile:        func(string, int, os.FileMode) (*os.File, error) { return file, nil },
		Logger:          &d.lines,
	}})
	if errors.Is(err, berrors.ErrTimeout) { // where vfs cannot lock a file
		return d.inUse()
	}
	if err != nil {
		return d.classify(err)
	}
	d.bolt, d.file = bolt, file
	d.committed()
	return nil
}

// lock opens the file and takes the lock that bbolt takes.
func (d *database) lock() (*os.File, error) {
	for begin := time.Now(); ; {
		file, err := vfs.LockFile(d.name)
		if !errors.Is(err, vfs.ErrLocked) {
			return file, err
		}
		if time.Since(begin) >= lockWait {
			return nil, d.inUse()
		}
		time.Sleep(lockRetry)
	}
}

func (d *database) inUse() error {
	return fmt.Errorf("%w: another program has locked %s", fault.ErrDirInUse, d.name)
}

// committed notes the newest transaction. No transaction is under way.
func (d *database) committed() {
	if m, err := readMetas(d.file); err == nil {
		d.transaction.Store(m.transaction)
		d.pageSize.Store(m.pageSize)
	}
}

// call calls fn, which calls bbolt, in a goroutine of its own.
func (d *database) call(fn func() error) error {
	if failure := d.failure.Load(); failure != nil {
		return *failure
	}
	done := make(chan error, 1)
	go func() {
		// Bbolt reads the file through a mapping of memory. If the disk fails, or the file was shortened, the system
		// interrupts the read by a signal, which ends a process unless the goroutine asks for a panic.
		debug.SetPanicOnFault(true)
		returned := false
		defer func() {
			if !returned {
				d.fail(&storage.CorruptError{File: d.name, Err: panicked(recover())})
			}
		}()
		err := fn()
		returned = true
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-d.broken:
		return *d.failure.Load()
	}
}

// panicked returns the error for a panic of bbolt.
func panicked(r any) error {
	if _, ok := r.(interface{ Addr() uintptr }); ok {
		return errors.New("the system cannot read a part of it: the disk has failed, or another program has shortened the file")
	}
	return fmt.Errorf("bbolt cannot read it: %v", r)
}

// fail makes every call fail, including those in progress, because bbolt may hold any of its locks.
func (d *database) fail(err error) {
	if d.failure.CompareAndSwap(nil, &err) {
		close(d.broken)
	}
}

// read calls fn with the open file.
func (d *database) read(fn func(*raftboltdb.BoltStore) error) error {
	return d.call(func() error {
		d.mu.RLock()
		defer d.mu.RUnlock()
		if d.bolt == nil {
			return d.lost()
		}
		return fn(d.bolt)
	})
}

// write calls fn, which makes one transaction, with the open file.
//
// Errors: those for which vfs.Short holds, after which the transaction can be repeated. After any other error the file
// cannot be used any more.
func (d *database) write(fn func(*raftboltdb.BoltStore) error) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	err := d.call(func() error {
		if err := d.reopen(); err != nil {
			return err
		}
		d.lines.reset()
		d.mu.RLock()
		defer d.mu.RUnlock()
		return d.classify(fn(d.bolt))
	})
	switch {
	case err == nil:
		d.committed()
	case vfs.Short(err):
		if err := d.call(d.unmapped); err != nil {
			return err
		}
	default:
		err = damaged(d.name, err)
		d.fail(err)
	}
	return err
}

// unmapped closes the file if bbolt has no mapping of it. That happens when bbolt replaces the mapping by a larger one,
// and there is no memory.
func (d *database) unmapped() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bolt == nil {
		return nil
	}
	if _, err := d.bolt.FirstIndex(); !errors.Is(err, berrors.ErrInvalidMapping) {
		return nil
	}
	_ = d.bolt.Close() // nothing was written since the last error
	d.bolt, d.file = nil, nil
	return nil
}

// lost is the error of a call while there is no mapping. It matches vfs.Short.
func (d *database) lost() error {
	return &fs.PathError{Op: "mmap", Path: d.name, Err: syscall.ENOMEM}
}

// reopen opens the file if unmapped has closed it. The caller holds writing.
func (d *database) reopen() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bolt != nil {
		return nil
	}
	return d.open(nil)
}

// close closes the file. After a failure it only releases the lock of the file and closes the descriptor: bbolt may
// wait for its own locks forever.
func (d *database) close() error {
	d.writing.Lock()
	defer d.writing.Unlock()
	err := d.call(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.bolt == nil {
			return nil
		}
		return d.bolt.Close()
	})
	if d.failure.Load() == nil {
		return err
	}
	if d.file != nil {
		return vfs.UnlockFile(d.file)
	}
	return nil
}

// written returns the number of bytes that transactions have written.
func (d *database) written() (bytes int64) {
	_ = d.read(func(b *raftboltdb.BoltStore) error {
		stats := b.Stats()
		bytes = stats.TxStats.GetPageAlloc()
		return nil
	})
	return bytes
}

// classify returns the error of a call of bbolt in a form that callers can examine: bbolt returns some errors of the
// system as text. A failed sync is a *vfs.SyncError.
func (d *database) classify(err error) error {
	if err == nil {
		return nil
	}
	line, cause := d.lines.first()
	if cause == nil {
		cause = err
	}
	errno, bare := cause.(syscall.Errno)
	var path *fs.PathError
	found := errors.As(cause, &path)
	switch {
	case found && path.Op == "sync", strings.Contains(line, "sync"), bare && !strings.Contains(line, "map"):
		if bare {
			cause = &fs.PathError{Op: "fdatasync", Path: d.name, Err: errno}
		}
		return &vfs.SyncError{Err: cause}
	case bare:
		return &fs.PathError{Op: "mmap", Path: d.name, Err: errno}
	case found:
		return path
	}
	return err
}

// lines is a logger for bbolt that keeps the first error since a reset. Bbolt logs the errors of the system that it
// returns as text. mu guards the fields.
type lines struct {
	mu     sync.Mutex
	format string
	err    error
}

func (l *lines) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.format, l.err = "", nil
}

// first returns the first line about an error, and the error.
func (l *lines) first() (format string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.format, l.err
}

// Errorf implements bbolt.Logger.
func (l *lines) Errorf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, arg := range args {
		if err, ok := arg.(error); ok && l.err == nil {
			l.format, l.err = format, err
		}
	}
}

// The other methods implement bbolt.Logger and do nothing.

func (*lines) Error(...any)            {}
func (*lines) Debug(...any)            {}
func (*lines) Debugf(string, ...any)   {}
func (*lines) Info(...any)             {}
func (*lines) Infof(string, ...any)    {}
func (*lines) Warning(...any)          {}
func (*lines) Warningf(string, ...any) {}
func (*lines) Fatal(...any)            {}
func (*lines) Fatalf(string, ...any)   {}
func (*lines) Panic(...any)            {}
func (*lines) Panicf(string, ...any)   {}
