// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// An EventType is the kind of a change.
type EventType uint8

// The types of events. The keys of a lease that expires are deleted like any others.
const (
	EventPut EventType = iota
	EventDelete
)

func (t EventType) String() string {
	if t == EventDelete {
		return "DELETE"
	}
	return "PUT"
}

// MarshalText returns the type as String does.
func (t EventType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText returns.
func (t *EventType) UnmarshalText(text []byte) error {
	for _, known := range []EventType{EventPut, EventDelete} {
		if known.String() == string(text) {
			*t = known
			return nil
		}
	}
	return fmt.Errorf("coterie: %q is not a type of events", text)
}

// An Event is one change of one key.
type Event struct {
	Type EventType `json:"type"`
	// KV is the key-value after the change. After a deletion only Key and ModRevision are set.
	KV KeyValue `json:"kv"`
	// PrevKV is the key-value before the change, if the watch is WithPrevKV. It is nil if the change
	// created the key or if the previous revision has been compacted.
	PrevKV *KeyValue `json:"prevKV,omitempty"`
}

// IsCreate reports whether the event created the key.
func (e Event) IsCreate() bool { return e.Type == EventPut && e.KV.CreateRevision == e.KV.ModRevision }

// IsModify reports whether the event changed a key that existed.
func (e Event) IsModify() bool { return e.Type == EventPut && !e.IsCreate() }

// A WatchResponse has all events of one revision, Header.Revision, in the order in which they were made.
// Without events it reports progress: every event up to Header.Revision has been yielded.
//
// The watches of a key share Events. A receiver that changes them, or a PrevKV, has to copy them first.
type WatchResponse struct {
	Header
	Created bool    `json:"created,omitempty"` // this is the first response of a watch WithCreatedNotify
	Events  []Event `json:"events"`
}

// A WatchResult is a value of [Node.WatchChan]: a response, or the error that ended the watch.
type WatchResult struct {
	WatchResponse
	Err error `json:"err,omitempty"`
}

type watchOptions struct {
	scope
	keys     keyRange
	from     int64
	progress bool
	requests <-chan struct{}
	created  bool
	leader   bool
}

// progressInterval bounds the silence of a watch WithProgressNotify. It is etcd's default.
const progressInterval = 10 * time.Minute

// Watch yields the changes to a key or, with a range option, to keys. It begins after the revision that
// this node has applied at the time of the call, or with the revision of [WithRevision]. It yields every
// change once, in order, and each revision whole.
//
// The loop runs on the caller's goroutine and reads the history of the store, so a slow loop delays
// no other call and loses nothing. If compaction overtakes it, the watch ends with a *CompactedError, which has
// the revision to resume from. The sequence may be used once.
//
// Unlike in clientv3, no response spans revisions, and an error is the second value of a pair.
//
// Errors: ctx's cause; ErrClosed; *CompactedError; ErrNoLeader with [WithRequireLeader]; ErrEmptyKey and
// ErrInvalidOption at once. The last pair has the error, unless the loop breaks.
func (n *Node) Watch(ctx context.Context, key string, opts ...WatchOption) iter.Seq2[WatchResponse, error] {
	return n.own().Watch(ctx, key, opts...)
}

// WatchChan is [Node.Watch] for a select statement. The last value has the error that ended the watch;
// then the channel is closed. A goroutine sends until ctx ends or the node closes, even if the caller does
// not receive. Watch needs no such goroutine, and costs about half as much for each event.
func (n *Node) WatchChan(ctx context.Context, key string, opts ...WatchOption) <-chan WatchResult {
	return sendResults(ctx, n, n.Watch(ctx, key, opts...))
}

// sendResults returns a channel, to which it sends the responses of a watch and then the error that ended the watch.
func sendResults(ctx context.Context, n *Node, watch iter.Seq2[WatchResponse, error]) <-chan WatchResult {
	results := make(chan WatchResult, 1)
	ended := ctx.Done() // a nil ctx panics here, on the caller's goroutine
	go func() {
		defer close(results)
		for r, err := range watch {
			select { // one channel is faster than three
			case results <- WatchResult{r, err}:
				continue
			default:
			}
			select {
			case results <- WatchResult{r, err}:
				continue
			case <-ended:
			case <-n.life.Done():
			}
			if err != nil {
				// The caller may never receive again, and the channel has space for one value. So the error replaces a
				// response that was not received.
				select {
				case <-results:
				default:
				}
				results <- WatchResult{Err: err}
			}
		}
	}()
	return results
}
