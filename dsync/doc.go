// SPDX-License-Identifier: Apache-2.0

// Package dsync provides the primitives of package sync, and a few more, for the instances of a service that share a
// coterie cluster.
//
// # Primitives
//
//   - [RWMutex]: a lock for one writer or many readers.
//   - [Semaphore]: a limit on how many permits are held at a time.
//   - [Once]: a function that runs until it succeeds once in the life of the cluster, and its outcome.
//   - [Barrier]: callers wait while a key exists.
//   - [DoubleBarrier]: a fixed number of participants begin and end together.
//   - [Counter]: a number to which many instances add.
//   - [Sequence]: keys with growing numbers.
//
// The lock without readers, [coterie.Mutex], and elections are in package coterie. This package uses only the exported
// API of package coterie, so any of its types can be copied and changed.
//
// # Locks are objects
//
// An RWMutex or a Semaphore holds at most one lock, or the permits of one Acquire, at a time. Create one for each
// goroutine that competes:
//
//	m := dsync.NewRWMutex(session, "locks/prices")
//	if err := m.Lock(ctx); err != nil {
//		return err
//	}
//	defer m.Unlock(ctx) // if it fails, the end of the session releases the lock
//	_, err := node.Txn(ctx).If(m.Guard()).Then(coterie.OpPut("prices/apple", "3")).Commit()
//
// Locks and permits are granted in the order in which they were requested. A release wakes only the waiters that it
// concerns.
//
// # Sessions and fencing
//
// Keys of a session end with the session. If a holder crashes, or is cut off longer than the TTL of its session's
// lease, others get its locks, permits and places. The session's context, and every context of WorkContext, ends
// before that. A process that was stopped may not have noticed yet when it resumes. Therefore its writes to the store
// need the guard ([RWMutex.Guard], [Semaphore.Guard]) as a condition. Other stores compare the fencing token
// ([RWMutex.Token]). That works where one holder excludes all others, but not among holders that hold together.
//
// # Contexts
//
// Every call with a context contacts the cluster and blocks until the cluster answers: without a quorum, until the
// context ends. A context bounds its call only: a lock that was acquired is not released when the context ends.
//
// # Names
//
// All values of one name must be of one type and size, on every instance. Different names are independent, even if
// one continues the other, as "a/b" continues "a". The exception is a name that continues another with a word of its
// keys: a Mutex "a/write" is among the keys of an RWMutex "a". The comments of the functions that begin with New list
// these words.
package dsync
