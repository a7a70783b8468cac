// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"
)

// A Job is a workload that is ready to run on a system. One goroutine uses it.
type Job interface {
	// Run works for about d, or for as long as the workload takes, checks the results, and returns the measurements.
	Run(ctx context.Context, d time.Duration, m Meter) (Sample, error)
	// Close ends the goroutines of the job. It does not close the system.
	Close() error
}

// jobs prepare the workloads, by their names.
var jobs = map[string]func(ctx context.Context, b base) (Job, error){
	"put":       newPuts,
	"overwrite": newOverwrites,
	"get":       newGets,
	"range":     newRanges,
	"stream":    newStreams,
	"count":     newCounts,
	"delete":    newDeletes,
	"swap":      newSwaps,
	"txn":       newTxns,
	"compact":   newCompactions,
	"keepalive": newKeepAlives,
	"grant":     newGrants,
	"lock":      newLocks,
	"fanout":    newFanout,
	"event":     newEvents,
	"idlers":    newIdleWatchers,
	"stalled":   newStalledWatchers,
	"filling":   newFilling,
	"growing":   newGrowing,
	"crash":     wholly(failOver),
	"restart":   wholly(restart),
	"open":      wholly(open),
	"memory":    wholly(memory),
	"idle":      newIdle,
	"sessions":  newSessions,
}

// Works returns the names of all workloads.
func Works() []string { return slices.Sorted(maps.Keys(jobs)) }

// Prepare prepares a workload on a system: it puts the keys of the load and waits until all members have them.
func Prepare(ctx context.Context, sys *System, l Load) (Job, error) {
	prepare, ok := jobs[l.Work]
	if !ok {
		return nil, fmt.Errorf("no workload has the name %q", l.Work)
	}
	l.Callers, l.Place = max(l.Callers, 1), cmp.Or(l.Place, OnLeader)
	b := base{Load: l, sys: sys, values: newValues(l.ValueBytes)}
	if err := b.fill(ctx, 0, l.Keys); err != nil {
		return nil, err
	}
	return prepare(ctx, b)
}

// A base is the part that all jobs share.
type base struct {
	Load
	sys    *System
	values values
	keys   []string // the old keys
}

// fill puts the old keys with the numbers from first to n-1, and waits until all members have them.
func (b *base) fill(ctx context.Context, first, n int) error {
	if n <= first {
		return nil
	}
	if err := fill(ctx, b.sys.Stores[0], first, n, b.values); err != nil {
		return err
	}
	for i := int64(first); i < int64(n); i++ {
		b.keys = append(b.keys, keyOf(oldPrefix, i))
	}
	return b.settle(ctx, int64(n-1))
}

// settle waits until all members have the old key with a number, as far as they can read.
func (b *base) settle(ctx context.Context, n int64) error {
	for _, s := range b.sys.Stores {
		for deadline := time.Now().Add(time.Minute); ; {
			err := s.Get(ctx, keyOf(oldPrefix, n), b.values.of(n), true)
			if err == nil {
				break
			}
			if time.Now().After(deadline) || ctx.Err() != nil {
				return err
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

// place returns the members that callers use.
func (b *base) place() []Store {
	switch b.Place {
	case OnFollower:
		return b.sys.Stores[min(1, len(b.sys.Stores)-1):][:1]
	case OnAll:
		return b.sys.Stores
	default:
		return b.sys.Stores[:1]
	}
}

// old returns the number of an old key. Consecutive n are far apart.
func (b *base) old(n int64) int64 { return int64(uint64(n) * 2654435761 % uint64(len(b.keys))) }

// as returns a store as one of the optional interfaces.
func as[T Store](s Store) (T, error) {
	t, ok := s.(T)
	if !ok {
		return t, fmt.Errorf("a store of type %T is no %v", s, reflect.TypeFor[T]())
	}
	return t, nil
}
