// SPDX-License-Identifier: Apache-2.0

package state

import (
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// loadBytes is the size of the records that are added at a time, unless one is larger.
const loadBytes = 64 << 10

// A loading adds versions to a store in its own goroutine, while the goroutine that reads the snapshot decodes the next
// ones. The reading goroutine owns the fields.
type loading struct {
	next  versions // to be added next
	full  chan versions
	free  chan versions // that are added: their memory is used again
	added chan error    // receives the first error of the loader when the last versions are added
}

// versions are decoded versions of keys, and the records that their strings share the memory of.
type versions struct {
	records []byte
	decoded []mvcc.KeyValue
}

// newLoading begins a loading. Only its goroutine may use the loader until end returns.
func newLoading(loader *mvcc.Loader) *loading {
	l := &loading{full: make(chan versions, 2), free: make(chan versions, 4), added: make(chan error, 1)}
	go func() {
		var err error
		for v := range l.full {
			for i := 0; i < len(v.decoded) && err == nil; i++ {
				err = loader.Add(v.decoded[i])
			}
			select {
			case l.free <- versions{v.records[:0], v.decoded[:0]}:
			default:
			}
		}
		l.added <- err
	}()
	return l
}

// add decodes the record of the next version, and adds it sooner or later. It does not keep the record.
func (l *loading) add(record []byte) error {
	if size := len(record); size > cap(l.next.records)-len(l.next.records) {
		l.flush()
		if size > cap(l.next.records) {
			l.next.records = make([]byte, 0, max(size, loadBytes))
		}
	}
	begin := len(l.next.records)
	l.next.records = append(l.next.records, record...) // never grows: versions refer to it
	kv, err := command.DecodeKeyValue(l.next.records[begin:])
	if err == nil {
		l.next.decoded = append(l.next.decoded, kv)
	}
	return err
}

// flush passes the versions on.
func (l *loading) flush() {
	if len(l.next.decoded) == 0 {
		return
	}
	l.full <- l.next
	select {
	case l.next = <-l.free:
	default:
		l.next = versions{}
	}
}

// end waits until all versions are added, and returns the first error of the loader.
func (l *loading) end() error {
	l.flush()
	close(l.full)
	return <-l.added
}
