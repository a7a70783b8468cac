// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// The figures of the memory of a process, divided by the number of members.
const (
	FigureResident = "residentBytes"   // of the process, after a collection
	FigureMapped   = "mappedFileBytes" // the part of it that is pages of files
	FigureHeap     = "heapBytes"       // live objects
	FigureHeapKey  = "heapBytesAKey"   // live objects that the keys have added, for each key
)

// memory puts Added keys, each with a call of its own, and measures the memory of the process.
func memory(ctx context.Context, b *base, h *histogram) (map[string]float64, error) {
	before, err := readMemory()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := fillSingly(ctx, b.sys.Stores[0], len(b.keys), len(b.keys)+b.Added, b.values); err != nil {
		return nil, err
	}
	if err := b.settle(ctx, int64(len(b.keys)+b.Added-1)); err != nil {
		return nil, err
	}
	h.add(0, time.Since(start))
	// The members finish their snapshots.
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	f, err := readMemory()
	if err != nil {
		return nil, err
	}
	f[FigureHeapKey] = (f[FigureHeap] - before[FigureHeap]) / float64(b.Added)
	for name := range f {
		f[name] /= float64(len(b.sys.Stores))
	}
	return f, nil
}

// readMemory returns the memory of this process after a collection.
func readMemory() (map[string]float64, error) {
	runtime.GC() // also of objects with finalizers, which need two collections
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	resident, err := procNumber("status", "VmRSS:")
	if err != nil {
		return nil, err
	}
	mapped, err := procNumber("status", "RssFile:")
	if err != nil {
		return nil, err
	}
	return map[string]float64{FigureResident: resident * 1024, FigureMapped: mapped * 1024, FigureHeap: float64(m.HeapAlloc)}, nil
}

// procNumber returns the number of a line of a file of /proc/self.
func procNumber(file, name string) (float64, error) {
	text, err := os.ReadFile("/proc/self/" + file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
			return strconv.ParseFloat(fields[1], 64)
		}
	}
	return 0, fmt.Errorf("/proc/self/%s has no line %s", file, name)
}
