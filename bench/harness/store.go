// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"time"
)

// A Store is one member of a system, as callers in its process use it, or a connection to a member. Its methods, and those
// of the optional interfaces below, may be called concurrently.
//
// Methods that read are given the expected result instead of returning it, so that a check needs no copy.
type Store interface {
	Put(ctx context.Context, key, value string) error
	// Get reads a key. It returns an error unless the value is want. A local read is that of this member alone; the
	// others are linearizable. The error is errors.ErrUnsupported if the system has no such reads.
	Get(ctx context.Context, key, want string, local bool) error
}

// A Ranger reads, counts and deletes keys in the order of their names. Ranges have an exclusive end.
type Ranger interface {
	Store
	// Range reads the keys of a range. It returns an error unless there are n, and the values have bytes together.
	Range(ctx context.Context, key, end string, n, bytes int, local bool) error
	// Stream does the same in parts.
	Stream(ctx context.Context, key, end string, n, bytes int, local bool) error
	// Count counts the keys of a range. It returns an error unless there are n.
	Count(ctx context.Context, key, end string, n int, local bool) error
	// DeleteRange deletes the keys of a range. It returns an error unless there were n.
	DeleteRange(ctx context.Context, key, end string, n int) error
}

// A Txner executes transactions.
type Txner interface {
	Store
	// Swap puts a key if its revision is the given one: 0 for a key that does not exist. It returns the new revision,
	// and an error if the key had another one.
	Swap(ctx context.Context, key, value string, revision int64) (int64, error)
	// PutAll puts keys with their values in one transaction. It returns the revision.
	PutAll(ctx context.Context, keys, values []string) (int64, error)
	// Compact drops the history before a revision.
	Compact(ctx context.Context, revision int64) error
}

// A Watcher watches keys.
type Watcher interface {
	Store
	// Watch calls created when the watch has begun, and then event with the number of each value that is put to the key,
	// in order, until ctx ends. See [Numbered]. Then it returns nil.
	Watch(ctx context.Context, key string, created func(), event func(number int64)) error
}

// A Leaser grants leases.
type Leaser interface {
	Store
	Grant(ctx context.Context, ttl time.Duration) (id int64, err error)
	// KeepAlive renews a lease once. It returns an error if the lease has ended.
	KeepAlive(ctx context.Context, id int64) error
	Revoke(ctx context.Context, id int64) error
}

// A Locker makes locks.
type Locker interface {
	Store
	// NewLock returns a lock with a session of its own. The lease of the session has the given TTL.
	NewLock(ctx context.Context, name string, ttl time.Duration) (Lock, error)
}

// A Lock is shared by all that use its name. One goroutine uses a value.
type Lock interface {
	Lock(ctx context.Context) error
	Unlock(ctx context.Context) error
	Close() error // ends the keep-alives of the session; its lease may last until its TTL
}

// A System is a running cluster. One goroutine uses it, except for the stores.
type System struct {
	Stores     []Store  // one for each member, that of the leader first, and those of members without a vote last
	Addrs      []string // of the endpoints of the members, in the same order; nil without endpoints
	Durability string   // the writes that are synced before a put is acknowledged
	Dir        string   // of the data of all members; empty if it is in memory
	// Crash stops the leader, as a crash would: without a word to the others. Then Stores has the others. The function
	// repair starts the member again, waits until it serves, and sets Stores. Crash may be nil.
	Crash func(ctx context.Context) (repair func(ctx context.Context) error, err error)
	// Stop and Start close the first member of Stores and open it again; Stores is invalid in between. They may be nil.
	Stop, Start func(ctx context.Context) error
	// Fresh opens another cluster of the same kind, and returns a store of its leader. It may be nil.
	Fresh func(ctx context.Context) (s Store, close func() error, err error)
	Close func() error
}
