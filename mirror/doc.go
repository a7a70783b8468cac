// SPDX-License-Identifier: Apache-2.0

// Package mirror keeps a typed index of a prefix in memory, for programs that look things up rather
// than loop over changes: lookups wait for nobody, and nobody waits for them.
//
//	byTeam := mirror.GroupBy(func(u User) []string { return u.Teams })
//	users, err := mirror.New(ctx, node, "users/", mirror.JSON[User], byTeam)
//	…
//	u, ok := users.Get("users/ann")
//	for key, u := range users.Snapshot().Group(byTeam, "storage") { … }
//
// An [Index] is a sequence of immutable [Snapshot]s, one for each revision that touches the prefix,
// of which the newest is an atomic pointer away. They share what they have in common: a write costs
// a few small copies, whatever the size of the prefix, and what differs between two snapshots is
// found without walking what does not. It writes nothing, asks the cluster nothing, and takes one
// watch.
//
// A lookup takes tens of nanoseconds as long as the keys are in the processor's caches: 28 among a
// hundred keys, 30 among a thousand and 70 among ten thousand, on a virtual machine of 2026. Any of a
// hundred thousand takes half a microsecond, which is spent waiting for memory. That is as long as
// with a sync.Map at every size, and 1.2 to 2.5 times as long as with a map and a sync.RWMutex that
// nobody contends for. Neither has snapshots. BenchmarkGet compares them.
//
// What it has is what its node has applied: as old as that, and never older than before. It is kept
// through changes of leaders, partitions and lost quorums, during which it stays as it is; after a
// compaction or a snapshot that its watch missed it reads the prefix anew. [Index.WaitRevision]
// makes it as new as a write.
//
// Do not use it to decide what to write: use what it found as the condition of a transaction, with
// [Entry.Revision]. Where a program loops over changes of a prefix that is small, coterie.Follow is
// enough. A prefix is held twice in memory, as the store's strings and as decoded values.
package mirror
