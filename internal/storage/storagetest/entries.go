// SPDX-License-Identifier: Apache-2.0

// Package storagetest makes entries of a log for tests of storage.
package storagetest

import (
	"bytes"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Entry returns an entry with its index and term as data.
func Entry(index, term uint64) *raft.Log {
	return &raft.Log{
		Index: index, Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "entry %d of term %d", index, term),
		Extensions: []byte{byte(term) | 1}, AppendedAt: time.Unix(int64(index), int64(term)).UTC(),
	}
}

// Entries returns the entries from first to last.
func Entries(first, last, term uint64) (logs []*raft.Log) {
	for i := first; i <= last; i++ {
		logs = append(logs, Entry(i, term))
	}
	return logs
}

// Sized returns an entry with this much data. No byte of the data is zero.
func Sized(index, term uint64, size int) *raft.Log {
	l := &raft.Log{Index: index, Term: term}
	if size > 0 {
		l.Data = bytes.Repeat([]byte{max(byte(index), 1)}, size)
	}
	return l
}
