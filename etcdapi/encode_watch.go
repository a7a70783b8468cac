// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"sync/atomic"
	"unsafe"

	"github.com/coterie-kv/coterie"
)

// A watchAnswer is a response with events of one or several revisions, in coterie's own form.
type watchAnswer struct {
	id        int64
	revisions []coterie.WatchResponse // in their order
	events    *eventCache

	count int // of events
	bytes int // about the size of the message
}

// add adds the events of a revision of a watch.
func (r *watchAnswer) add(id int64, of *coterie.WatchResponse) {
	r.id, r.revisions = id, append(r.revisions, *of)
	r.count += len(of.Events)
	r.bytes += eventBytes(of.Events)
}

// fits reports whether a result of a watch may be added to the answer.
func (r *watchAnswer) fits(id int64, more *coterie.WatchResult) bool {
	return more.Err == nil && len(more.Events) > 0 && id == r.id && r.count+len(more.Events) <= maxAnswerEvents &&
		r.bytes+eventBytes(more.Events) <= maxAnswerBytes
}

// clear removes the revisions, and keeps their memory for the next answer.
func (r *watchAnswer) clear() {
	clear(r.revisions)
	*r = watchAnswer{revisions: r.revisions[:0]}
}

// header returns the header of the newest revision, so that a client that resumes after it misses nothing.
func (r *watchAnswer) header() *coterie.Header { return &r.revisions[len(r.revisions)-1].Header }

func (r *watchAnswer) encode(e *encoder) {
	e.header(r.header())
	e.int(2, r.id)
	for i := range r.revisions {
		events := r.revisions[i].Events
		for j := range events {
			if fields := r.events.encoded(&events[j]); fields != nil {
				e.raw(fields)
			} else {
				e.event(eventField, &events[j])
			}
		}
	}
}

// eventBytes returns about the size of events in a message.
func eventBytes(events []coterie.Event) (size int) {
	for i := range events {
		size += keyBytes(&events[i]) + encodedOverhead
	}
	return size
}

// keyBytes returns the size of the keys and values of an event.
func keyBytes(v *coterie.Event) int {
	size := len(v.KV.Key) + len(v.KV.Value)
	if v.PrevKV != nil {
		size += len(v.PrevKV.Key) + len(v.PrevKV.Value)
	}
	return size
}

// eventField is the number of the field of a WatchResponse that has the events.
const eventField = 11

// An eventCache has the encoding of recent events, so that an event is encoded once for all watches of an endpoint that get
// it. Their messages refer to the same bytes. It holds up to 256 KiB. The zero value is ready to use, and its methods may be
// called concurrently.
type eventCache struct {
	slots [64]atomic.Pointer[encodedEvent]
}

// maxCachedEvent is the size of the largest event that is cached. The values of larger events are not copied in any
// case.
const maxCachedEvent = 4 << 10

// An encodedEvent is an event as a field of a WatchResponse. It is immutable.
type encodedEvent struct {
	event  coterie.Event
	fields []byte
}

// encoded returns an event as a field of a WatchResponse, or nil if it is too large to be cached.
func (c *eventCache) encoded(v *coterie.Event) []byte {
	if keyBytes(v) > maxCachedEvent-encodedOverhead {
		return nil
	}
	slot := &c.slots[(uint64(v.KV.ModRevision)+31*uint64(len(v.KV.Key))+uint64(v.KV.Key[len(v.KV.Key)-1]))%uint64(len(c.slots))]
	if known := slot.Load(); known != nil && same(&known.event, v) {
		return known.fields
	}
	fields := encode((*eventAnswer)(v)).Materialize()
	slot.Store(&encodedEvent{*v, fields})
	return fields
}

// encodedOverhead is an upper bound of the bytes of the numbers in an event with a previous version.
const encodedOverhead = 256

// An eventAnswer is the field of an event alone.
type eventAnswer coterie.Event

func (v *eventAnswer) encode(e *encoder) { e.event(eventField, (*coterie.Event)(v)) }

// same reports whether two events have equal fields. It compares the memory of the values and not the values: the events of
// a change share the memory of the store.
func same(a, b *coterie.Event) bool {
	return a.Type == b.Type && sameVersion(&a.KV, &b.KV) && (a.PrevKV == nil) == (b.PrevKV == nil) &&
		(a.PrevKV == nil || sameVersion(a.PrevKV, b.PrevKV))
}

func sameVersion(a, b *coterie.KeyValue) bool {
	return a.ModRevision == b.ModRevision && a.Version == b.Version && a.CreateRevision == b.CreateRevision && a.Lease == b.Lease &&
		a.Key == b.Key && len(a.Value) == len(b.Value) && unsafe.StringData(a.Value) == unsafe.StringData(b.Value)
}
