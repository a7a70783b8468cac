// SPDX-License-Identifier: Apache-2.0

// Package dsync has what package sync has, and a little more, for the instances of a service that
// share a coterie cluster: [RWMutex], [Semaphore], [Once], [Barrier], [DoubleBarrier], [Counter]
// and [Sequence]. Each stands on exported calls of package coterie alone, and may be copied and
// changed.
//
// What belongs to a session goes with it: when its holder crashes, or is cut off for as long as the
// session's lease lives, its places, locks and permits are free for others, and the session's
// context has ended before. A holder that was stopped may not know; so writes to the store take
// [Hold.Guard] as a condition. Other stores compare [Hold.Token], which they can where one holder
// excludes all others, and not among those that hold together.
//
// Every call that asks the cluster blocks until that answers: without a quorum, until its ctx ends.
// Locks come in the order in which they were asked for, and whoever waits watches one key, that of
// whom it waits for: what ends wakes only those it concerns.
//
// All values of one name are of one kind and size, on every instance. Different names are independent,
// also if one continues the other, as "a/b" continues "a". One exception is a name that continues
// another with a word of its keys: a Mutex "a/write" is among the keys of an RWMutex "a". These words
// are in the comments of the functions that begin with New.
//
// coterie.Mutex and coterie.Election, which are fair as well, are in package coterie.
package dsync
