// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// An iocb is the kernel's struct iocb: an operation that is to be made. A sync needs few of its fields.
type iocb struct {
	_       [2]uint64
	opcode  uint16
	_       int16
	file    uint32
	_       [4]uint64
	flags   uint32
	eventfd uint32 // with flag iocbEventfd
}

// An ioEvent is the kernel's struct io_event: an operation that has ended.
type ioEvent struct {
	_      [2]uint64
	result int64
	_      int64
}

const (
	iocbFdatasync = 3 // IOCB_CMD_FDSYNC, since Linux 4.18
	iocbEventfd   = 1 // IOCB_FLAG_RESFD
)

// open reports whether the Syncer can sync. It makes its descriptors at the first call.
func (s *Syncer) open() bool {
	if s.queue != 0 || s.refused {
		return !s.refused
	}
	s.refused = true
	ended, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return false
	}
	file := os.NewFile(ended, "eventfd")
	if _, _, errno := syscall.Syscall(syscall.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&s.queue)), 0); errno != 0 {
		s.queue = 0
		file.Close()
		return false
	}
	s.eventfd, s.ended, s.refused = uint32(ended), file, false
	return true
}

// sync is fdatasync. It returns false if the kernel did not begin it.
func (s *Syncer) sync(f *os.File) (begun bool, err error) {
	op := &iocb{opcode: iocbFdatasync, file: uint32(f.Fd()), flags: iocbEventfd, eventfd: s.eventfd}
	ops := []*iocb{op}
	n, _, errno := syscall.Syscall(syscall.SYS_IO_SUBMIT, s.queue, 1, uintptr(unsafe.Pointer(&ops[0])))
	runtime.KeepAlive(op)
	if errno != 0 || n != 1 {
		return false, nil
	}
	var count [8]byte
	if _, err := s.ended.Read(count[:]); err != nil {
		return true, wrap("fdatasync", f, err)
	}
	var event ioEvent
	for {
		n, _, errno = syscall.Syscall6(syscall.SYS_IO_GETEVENTS, s.queue, 1, 1, uintptr(unsafe.Pointer(&event)), 0, 0)
		if errno != syscall.EINTR {
			break
		}
	}
	switch {
	case errno != 0:
		return true, wrap("fdatasync", f, errno)
	case n != 1:
		return true, wrap("fdatasync", f, errors.New("the kernel reports no result"))
	case event.result != 0:
		return true, wrap("fdatasync", f, syscall.Errno(-event.result))
	}
	return true, nil
}

// Close closes the descriptors. It leaves them open if a sync hangs. The Syncer must not be used any more.
func (s *Syncer) Close() error {
	if !s.mu.TryLock() {
		return nil
	}
	defer s.mu.Unlock()
	s.refused = true
	if s.queue == 0 {
		return nil
	}
	_, _, errno := syscall.Syscall(syscall.SYS_IO_DESTROY, s.queue, 0, 0)
	s.queue = 0
	err := s.ended.Close()
	if errno != 0 {
		return os.NewSyscallError("io_destroy", errno)
	}
	return err
}
