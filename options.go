// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"fmt"

	"github.com/coterie-kv/coterie/internal/command"
)

// Options are typed by the calls they fit, so that Put(…, WithPrefix()) does not compile. Unlike
// clientv3, where such a call panics.
type (
	// A GetOption fits [Node.Get] and [OpGet].
	GetOption interface{ get(*getOptions) }
	// A ScanOption fits [Node.Get], [OpGet] and [Node.Range].
	ScanOption interface {
		GetOption
		scan()
	}
	// A PutOption fits [Node.Put] and [OpPut].
	PutOption interface{ put(*command.Put) }
	// A DeleteOption fits [Node.Delete] and [OpDelete].
	DeleteOption interface{ del(*deleteOptions) }
	// A WatchOption fits [Node.Watch] and [Node.WatchChan].
	WatchOption interface{ watch(*watchOptions) }
	// A RangeOption fits [Node.Get], [Node.Range], [Node.Delete], [Node.Watch] and what is built on
	// them.
	RangeOption interface {
		ScanOption
		DeleteOption
		WatchOption
	}
	// A RevOption fits [Node.Get], [Node.Range] and [Node.Watch].
	RevOption interface {
		ScanOption
		WatchOption
	}
	// A PrevKVOption fits [Node.Put], [Node.Delete] and [Node.Watch].
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
	minRevision  int64 // of this node before it answers; 0: any
	local        bool  // minRevision was asked for
}

type deleteOptions struct {
	command.Delete
	keys keyRange
}

// keyRange says how a call's key is to be read. It becomes an end by end, once the key is known.
type keyRange struct {
	kind rangeKind
	end  string
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

// bounds returns the range that key and the option name, as the store wants it.
func (r keyRange) bounds(key string) (string, string, error) {
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

func (r keyRange) get(o *getOptions)     { o.keys = r }
func (r keyRange) scan()                 {}
func (r keyRange) del(o *deleteOptions)  { o.keys = r }
func (r keyRange) watch(o *watchOptions) { o.keys = r }

// WithPrefix makes a call concern every key that begins with its key; an empty key then means all
// keys.
func WithPrefix() RangeOption { return keyRange{kind: prefixKeys} }

// WithRange makes a call concern the keys from its key up to, but without, end. A range whose end
// does not exceed its key is empty, which Watch refuses.
func WithRange(end string) RangeOption { return keyRange{kind: untilEnd, end: end} }

// WithFromKey makes a call concern every key from its key on; an empty key then means all keys.
func WithFromKey() RangeOption { return keyRange{kind: fromKey} }

type rev int64

func (r rev) get(o *getOptions)     { o.Revision = int64(r) }
func (r rev) scan()                 {}
func (r rev) watch(o *watchOptions) { o.from, o.fromSet = int64(r), true }

// WithRev makes Get and Range read the state as it was at a revision, and Watch begin with the
// events of that revision, which may be past or still to come. For reads 0 is the latest revision,
// and so is a negative one outside transactions, as in etcd; for Watch 0 is what happens from now
// on.
func WithRev(revision int64) RevOption { return rev(revision) }

type prevKV struct{}

func (prevKV) put(p *command.Put)    { p.PrevKV = true }
func (prevKV) del(o *deleteOptions)  { o.PrevKV = true }
func (prevKV) watch(o *watchOptions) { o.prevKV = true }

// WithPrevKV asks for the key-value as it was before the change. In a watch it is missing for a key
// that was created, and where the previous revision has been compacted.
func WithPrevKV() PrevKVOption { return prevKV{} }

type putFunc func(*command.Put)

func (f putFunc) put(p *command.Put) { f(p) }

// WithLease attaches the key to a lease, with which it is deleted. A put without it detaches the
// key.
func WithLease(id LeaseID) PutOption { return putFunc(func(p *command.Put) { p.Lease = int64(id) }) }

// WithIgnoreValue keeps the key's present value; the value of the call must be empty, and the key
// exist.
func WithIgnoreValue() PutOption { return putFunc(func(p *command.Put) { p.IgnoreValue = true }) }

// WithIgnoreLease keeps the key attached to its present lease; the key must exist.
func WithIgnoreLease() PutOption { return putFunc(func(p *command.Put) { p.IgnoreLease = true }) }

type getFunc func(*getOptions)

func (f getFunc) get(o *getOptions) { f(o) }

type scanFunc func(*getOptions)

func (f scanFunc) get(o *getOptions) { f(o) }
func (f scanFunc) scan()             {}

// WithLimit returns at most n key-values, the first in the order asked for; 0 is all.
// GetResponse.More tells whether there were others.
func WithLimit(n int64) ScanOption { return scanFunc(func(o *getOptions) { o.Limit = n }) }

// WithSerializable reads what this node has applied, at once, without asking the cluster: maybe
// stale, but a state that was once the latest. It works without a quorum. Status().LastContact
// tells how stale it may be.
func WithSerializable() ScanOption { return scanFunc(func(o *getOptions) { o.serializable = true }) }

// WithMinRevision reads what this node has applied, as soon as that includes a revision: with the
// revision of a write, or of a read elsewhere, it reads no older state, without asking the cluster.
func WithMinRevision(revision int64) ScanOption {
	return scanFunc(func(o *getOptions) { o.local, o.minRevision = true, revision })
}

// WithMinModRev leaves out keys last changed before a revision. GetResponse.Count counts them all
// the same.
func WithMinModRev(revision int64) ScanOption {
	return scanFunc(func(o *getOptions) { o.MinModRevision = revision })
}

// WithMaxModRev leaves out keys last changed after a revision.
func WithMaxModRev(revision int64) ScanOption {
	return scanFunc(func(o *getOptions) { o.MaxModRevision = revision })
}

// WithMinCreateRev leaves out keys created before a revision.
func WithMinCreateRev(revision int64) ScanOption {
	return scanFunc(func(o *getOptions) { o.MinCreateRevision = revision })
}

// WithMaxCreateRev leaves out keys created after a revision.
func WithMaxCreateRev(revision int64) ScanOption {
	return scanFunc(func(o *getOptions) { o.MaxCreateRevision = revision })
}

// A SortTarget is what [WithSort] sorts by.
type SortTarget uint8

// A SortOrder is the direction of [WithSort].
type SortOrder uint8

// What to sort by. Values compare bytewise.
const (
	SortByKey            = SortTarget(command.SortByKey)
	SortByVersion        = SortTarget(command.SortByVersion)
	SortByCreateRevision = SortTarget(command.SortByCreateRevision)
	SortByModRevision    = SortTarget(command.SortByModRevision)
	SortByValue          = SortTarget(command.SortByValue)
)

// The order of a sort. SortNone is ascending, but applies the limit before a sort by anything but
// the key, as etcd does.
const (
	SortNone    = SortOrder(command.SortNone)
	SortAscend  = SortOrder(command.SortAscend)
	SortDescend = SortOrder(command.SortDescend)
)

// WithSort orders the key-values. Without it they come in the order of their keys. Equal ones come
// in the order of their keys.
func WithSort(by SortTarget, order SortOrder) GetOption {
	return getFunc(func(o *getOptions) {
		o.SortBy, o.Order = command.SortTarget(by), command.SortOrder(order)
	})
}

// WithKeysOnly leaves out values and, as etcd 3.7 does, leases (unless the sort is by value).
func WithKeysOnly() GetOption { return getFunc(func(o *getOptions) { o.KeysOnly = true }) }

// WithCountOnly returns no key-values, only their count, which costs next to nothing at the latest
// revision.
func WithCountOnly() GetOption { return getFunc(func(o *getOptions) { o.CountOnly = true }) }

type watchFunc func(*watchOptions)

func (f watchFunc) watch(o *watchOptions) { f(o) }

// WithProgressNotify sends a response without events whenever nothing has happened for ten minutes:
// every event up to its revision has been seen.
func WithProgressNotify() WatchOption { return watchFunc(func(o *watchOptions) { o.progress = true }) }

// WithCreatedNotify sends a response without events, with Created set, before all others.
func WithCreatedNotify() WatchOption { return watchFunc(func(o *watchOptions) { o.created = true }) }

// WithFilterPut leaves out puts.
func WithFilterPut() WatchOption { return watchFunc(func(o *watchOptions) { o.noPut = true }) }

// WithFilterDelete leaves out deletions.
func WithFilterDelete() WatchOption { return watchFunc(func(o *watchOptions) { o.noDelete = true }) }

// WithRequireLeader ends the watch with ErrNoLeader when this node has known no leader for three
// election timeouts.
func WithRequireLeader() WatchOption { return watchFunc(func(o *watchOptions) { o.leader = true }) }
