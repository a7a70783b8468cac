// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"runtime"
	"syscall"
	"time"
)

// A Usage is the usage of a process, since its start or within a run.
type Usage struct {
	CPU     time.Duration `json:"cpuNanos"`
	SysCPU  time.Duration `json:"systemCPUNanos"` // the part of CPU that the system has used for the process
	Allocs  uint64        `json:"allocs"`
	Bytes   uint64        `json:"allocatedBytes"`
	MaxRSS  int64         `json:"maxRSSBytes"` // since the start of the process
	GCCount uint32        `json:"collections"`
}

// Used returns the usage of this process since its start.
func Used() (u Usage) {
	r := rusage()
	u.SysCPU = time.Duration(r.Stime.Nano())
	u.CPU = time.Duration(r.Utime.Nano()) + u.SysCPU
	u.MaxRSS = r.Maxrss << 10
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.Allocs, u.Bytes, u.GCCount = m.Mallocs, m.TotalAlloc, m.NumGC
	return u
}

// since returns the usage after an earlier one.
func (u Usage) since(earlier Usage) Usage {
	u.CPU -= earlier.CPU
	u.SysCPU -= earlier.SysCPU
	u.Allocs -= earlier.Allocs
	u.Bytes -= earlier.Bytes
	u.GCCount -= earlier.GCCount
	return u
}

func cpuTime() time.Duration {
	r := rusage()
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func rusage() (r syscall.Rusage) {
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err) // RUSAGE_SELF is always valid
	}
	return r
}
