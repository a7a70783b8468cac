// SPDX-License-Identifier: Apache-2.0

//go:build !race

package mvcc

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLookupsDoNotAllocate(t *testing.T) {
	s := New()
	s.Put("deleted", "value", 0)
	s.Put("key", "value", 0)
	s.Commit()
	s.Delete("deleted", "")
	s.Put("key", "value", 0)
	s.Commit()
	v := s.View()
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		_, now := v.Get("key", 0)
		_, then := v.Get("key", 2)
		_, deleted := v.Get("deleted", 0)
		_, next := v.Next("key", 2)
		if !now || !then || deleted || !next || v.Count("key", "") != 1 || v.Count("a", "z") != 1 {
			t.Error("a look-up found another key")
		}
	}))
}

func TestPutOfExistingKeyAllocatesItsVersion(t *testing.T) {
	s := New()
	require.LessOrEqual(t, testing.AllocsPerRun(10_000, func() {
		s.Put("key", "value", 0)
		s.Commit()
	}), 1.1) // the version, and a part of a node and of the history
}

func TestPutOfNewKeyAllocatesItsVersion(t *testing.T) {
	s := New()
	keys := make([]string, 10_001)
	for i := range keys {
		keys[i] = fmt.Sprint("key-", i)
	}
	next := 0
	require.LessOrEqual(t, testing.AllocsPerRun(len(keys)-1, func() {
		s.Put(keys[next], "value", 0)
		s.Commit()
		next++
	}), 1.1)
}

// heap returns the size of the live objects.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMemoryOfKey(t *testing.T) {
	const keys = 100_000
	value := strings.Repeat("v", 256)
	for name, format := range map[string]string{"keys of 8 bytes": "%08d", "keys of 20 bytes": "service/key/%08d"} {
		t.Run(name, func(t *testing.T) {
			before := heap()
			s := New()
			for i := range keys {
				s.Put(fmt.Sprintf(format, uint32(i)*2654435761%100_000_000), value, 0)
				s.Commit()
				if i%100 == 0 {
					s.View()
				}
			}
			perKey := float64(heap()-before) / keys
			runtime.KeepAlive(s)
			t.Logf("%.1f bytes a key", perKey)
			require.Less(t, perKey, 330.0)
		})
	}
}
