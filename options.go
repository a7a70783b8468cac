// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"fmt"

	"github.com/coterie-kv/coterie/internal/command"
)

// Each option has a type for the calls that accept it, so that Put(…, WithPrefix()) does not compile;
// in clientv3 it panics.
type (
	// A GetOption is an option of [Node.Get] and [OpGet].
	GetOption interface {
		// get returns the options with this one. They go by value, since a pointer would move those of each call
		// to the heap.
		get(getOptions) getOptions
	}
	// A ScanOption is an option of [Node.Get], [OpGet] and [Node.Range].
	ScanOption interface {
		GetOption
		scan()
	}
	// A PutOption is an option of [Node.Put] and [OpPut].
	PutOption interface{ put(*command.Put) }
	// A DeleteOption is an option of [Node.Delete] and [OpDelete].
	DeleteOption interface{ del(*deleteOptions) }
	// A WatchOption is an option of [Node.Watch] and [Node.WatchChan].
	WatchOption interface{ watch(*watchOptions) }
	// A RangeOption is an option of [Node.Get], [Node.Range], [Node.Delete], [Node.Watch], and of the
	// calls built on them.
	RangeOption interface {
		ScanOption
		DeleteOption
		WatchOption
	}
	// A RevisionOption is an option of [Node.Get], [Node.Range] and [Node.Watch].
	RevisionOption interface {
		ScanOption
		WatchOption
	}
	// A MembersOption is an option of [Node.Members] and [Node.Alarms].
	MembersOption interface{ members(*membersOptions) }
	// A SerializableOption is an option of [Node.Get], [Node.Range], [Node.Members] and [Node.Alarms].
	SerializableOption interface {
		ScanOption
		MembersOption
	}
	// A PrevKVOption is an option of [Node.Put], [Node.Delete] and [Node.Watch].
	PrevKVOption interface {
		PutOption
		DeleteOption
		WatchOption
	}
)

type getOptions struct {
	command.Get
	keys         keyRange
	serializable bool
	waits        bool // WithWaitRevision was given
	waitRevision int64
}

type membersOptions struct{ serializable bool }

type deleteOptions struct {
	command.Delete
	keys keyRange
}

// A keyRange says how a call reads its key. bounds turns it into a range once the key is known, since
// an option is made without the key.
type keyRange struct {
	kind     rangeKind
	end      string
	conflict bool // both WithPrefix and WithFromKey were given
}

type rangeKind uint8

const (
	oneKey rangeKind = iota
	prefixKeys
	fromKey
	untilEnd
)

// allKeys as an end means that the range has none.
const allKeys = "\x00"

// bounds returns the range that the key and the option name, in the form that the store wants.
func (r keyRange) bounds(key string) (string, string, error) {
	if r.conflict {
		return "", "", fmt.Errorf("%w: WithPrefix and WithFromKey exclude each other", ErrInvalidOption)
	}
	switch r.kind {
	case prefixKeys:
		if key == "" {
			return allKeys, allKeys, nil
		}
		return key, prefixEnd(key), nil
	case fromKey:
		if key == "" {
			key = allKeys
		}
		return key, allKeys, nil
	case untilEnd:
		if key == "" {
			return "", "", ErrEmptyKey
		}
		if r.end == "" {
			return "", "", fmt.Errorf("%w: WithRange needs an end", ErrInvalidOption)
		}
		return key, r.end, nil
	}
	if key == "" {
		return "", "", ErrEmptyKey
	}
	return key, "", nil
}

// prefixEnd returns the end of the range of keys that begin with prefix: the least key greater than
// all of them.
func prefixEnd(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return allKeys
}

func (r keyRange) scan()                 {}
func (r keyRange) del(o *deleteOptions)  { o.keys = r.after(o.keys) }
func (r keyRange) watch(o *watchOptions) { o.keys = r.after(o.keys) }

func (r keyRange) get(o getOptions) getOptions {
	o.keys = r.after(o.keys)
	return o
}

// after returns the range that a call reads if this option follows an earlier one. The last one counts, except
// that a prefix and every greater key exclude each other, as in clientv3.
func (r keyRange) after(earlier keyRange) keyRange {
	r.conflict = earlier.conflict || earlier.kind == prefixKeys && r.kind == fromKey || earlier.kind == fromKey && r.kind == prefixKeys
	return r
}

// WithPrefix applies a call to every key that begins with its key, and to all keys if that is empty. It
// excludes WithFromKey.
func WithPrefix() RangeOption { return keyRange{kind: prefixKeys} }

// WithRange applies a call to the keys from its key up to, but not including, end. If end is not
// greater than the key, the range is empty; Watch refuses an empty range.
func WithRange(end string) RangeOption { return keyRange{kind: untilEnd, end: end} }

// WithFromKey applies a call to its key and every greater one, and to all keys if the key is empty. It
// excludes WithPrefix.
func WithFromKey() RangeOption { return keyRange{kind: fromKey} }

type revisionOption int64

func (r revisionOption) scan()                 {}
func (r revisionOption) watch(o *watchOptions) { o.from = int64(r) }

func (r revisionOption) get(o getOptions) getOptions {
	o.Revision = int64(r)
	return o
}

// WithRevision makes Get and Range read the state as it was at a revision, and makes Watch begin with
// the events of that revision, which may be in the past or in the future.
//
// For reads, 0 means the latest revision; outside transactions so does a negative one, as in etcd. For
// Watch, 0 means the events from now on.
func WithRevision(revision int64) RevisionOption { return revisionOption(revision) }

type prevKV struct{}

func (prevKV) put(p *command.Put)    { p.PrevKV = true }
func (prevKV) del(o *deleteOptions)  { o.PrevKV = true }
func (prevKV) watch(o *watchOptions) { o.prevKV = true }

// WithPrevKV asks for the key-value as it was before the change. In a watch it is missing if the change
// created the key or if the previous revision has been compacted.
func WithPrevKV() PrevKVOption { return prevKV{} }

type putFunc func(*command.Put)

func (f putFunc) put(p *command.Put) { f(p) }

// WithLease attaches the key to a lease, which deletes it when it ends. A put without it detaches the
// key.
func WithLease(id LeaseID) PutOption { return putFunc(func(p *command.Put) { p.Lease = int64(id) }) }

// WithIgnoreValue keeps the present value of the key. The key must exist, and the value of the call
// must be empty.
func WithIgnoreValue() PutOption { return putFunc(func(p *command.Put) { p.IgnoreValue = true }) }

// WithIgnoreLease keeps the key attached to its present lease. The key must exist.
func WithIgnoreLease() PutOption { return putFunc(func(p *command.Put) { p.IgnoreLease = true }) }

type getFunc func(*getOptions)

func (f getFunc) get(o getOptions) getOptions {
	f(&o)
	return o
}

type scanFunc func(*getOptions)

func (f scanFunc) scan() {}

func (f scanFunc) get(o getOptions) getOptions {
	f(&o)
	return o
}

// WithLimit returns at most n key-values, the first ones in the order asked for; 0 returns all.
// GetResponse.More reports whether there were others.
func WithLimit(n int64) ScanOption { return scanFunc(func(o *getOptions) { o.Limit = n }) }

// WithSerializable reads the state that this node has applied, at once and without asking the cluster.
// It may be stale, but it is a state that was once the latest. It works without a quorum.
// Status.LastContact bounds how stale it is.
//
// Members and Alarms return those of that state.
func WithSerializable() SerializableOption { return serializable{} }

type serializable struct{}

func (serializable) scan()                     {}
func (serializable) members(o *membersOptions) { o.serializable = true }

func (serializable) get(o getOptions) getOptions {
	o.serializable = true
	return o
}

// WithWaitRevision reads the state that this node has applied, as soon as that includes a revision. It
// asks no other node. With the revision of a write, or of a read on another node, the result is at
// least as new as that.
func WithWaitRevision(revision int64) ScanOption {
	return scanFunc(func(o *getOptions) { o.waits, o.waitRevision = true, revision })
}

// WithMinModRevision leaves out the keys that were last changed before a revision.
// GetResponse.Count still counts them.
func WithMinModRevision(revision int64) ScanOption {
	return scanFunc(func(o *getOptions) { o.MinModRevision = revision })
}

// WithMaxModRevision leaves out the keys that were last changed after a revision.
func WithMaxModRevision(revision int64) ScanOption {
	return scanFunc(func(o *getOptions) { o.MaxModRevision = revision })
}

// WithMinCreateRevision leaves out the keys that were created before a revision.
func WithMinCreateRevision(revision int64) ScanOption {
	return scanFunc(func(o *getOptions) { o.MinCreateRevision = revision })
}

// WithMaxCreateRevision leaves out the keys that were created after a revision.
func WithMaxCreateRevision(revision int64) ScanOption {
	return scanFunc(func(o *getOptions) { o.MaxCreateRevision = revision })
}

// A SortTarget is the property of a key-value that [WithSort] sorts by.
type SortTarget uint8

// The targets of a sort. Values are compared bytewise.
const (
	SortByKey SortTarget = iota
	SortByVersion
	SortByCreateRevision
	SortByModRevision
	SortByValue
)

// A SortOrder is the direction of [WithSort].
type SortOrder uint8

// The orders of a sort. SortNone is ascending, but applies the limit before a sort by anything but the
// key, as etcd does.
const (
	SortNone SortOrder = iota
	SortAscend
	SortDescend
)

// WithSort orders the key-values. Without it they are in the order of their keys, and so are those that
// the sort finds equal.
func WithSort(by SortTarget, order SortOrder) GetOption {
	return getFunc(func(o *getOptions) {
		o.SortBy, o.Order = command.SortTarget(by), command.SortOrder(order)
	})
}

// WithKeysOnly leaves out values and, as etcd 3.7 does, leases (unless the sort is by value).
func WithKeysOnly() GetOption { return getFunc(func(o *getOptions) { o.KeysOnly = true }) }

// WithCountOnly returns the number of key-values and none of them. At the latest revision it costs next
// to nothing.
func WithCountOnly() GetOption { return getFunc(func(o *getOptions) { o.CountOnly = true }) }

type watchFunc func(*watchOptions)

func (f watchFunc) watch(o *watchOptions) { f(o) }

// WithProgressNotify yields a response without events whenever the watch has been silent for ten
// minutes: every event up to the response's revision has been yielded.
func WithProgressNotify() WatchOption { return watchFunc(func(o *watchOptions) { o.progress = true }) }

// WithProgressRequests yields a response without events for each value that the watch receives from
// requests: every event up to the response's revision has been yielded, and that revision is at least
// the one that this node had applied when the watch received the value. A watch from a revision later than
// the next one answers when this node has applied that revision. So send a value after a write on this
// node, or after a read [WithWaitRevision], to be told when the watch has caught up with it.
//
// It replaces clientv3's RequestProgress, which asks all watches of a stream, and is ignored while one of
// them is behind. Give each watch a channel of its own, with a buffer of one value: a request that finds
// the buffer full need not be sent, since the pending one is received later and covers it.
func WithProgressRequests(requests <-chan struct{}) WatchOption {
	return watchFunc(func(o *watchOptions) { o.requests = requests })
}

// WithCreatedNotify yields a response without events, with Created set, before all others.
func WithCreatedNotify() WatchOption { return watchFunc(func(o *watchOptions) { o.created = true }) }

// WithFilterPut leaves out puts.
func WithFilterPut() WatchOption { return watchFunc(func(o *watchOptions) { o.noPut = true }) }

// WithFilterDelete leaves out deletions.
func WithFilterDelete() WatchOption { return watchFunc(func(o *watchOptions) { o.noDelete = true }) }

// WithRequireLeader ends the watch with ErrNoLeader when this node has known no leader for three
// election timeouts.
func WithRequireLeader() WatchOption { return watchFunc(func(o *watchOptions) { o.leader = true }) }
