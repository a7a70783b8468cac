// SPDX-License-Identifier: Apache-2.0

// Package boltlog keeps the log, the vote and the identity of a node in a file of bbolt, through hashicorp/raft-boltdb.
//
//	node, err := coterie.Open(ctx, coterie.Config{
//		Storage: boltlog.New(boltlog.Options{}),
//		…
//	})
//
// # Purpose
//
// Without this package, a node keeps its log in segments, a format of coterie's own. Choose boltlog if you trust the
// format of bbolt, operate files of bbolt already, or want to open the log of a node with bbolt's tools. Every promise
// of package [coterie] holds with both. The nodes of a cluster need not agree: each may keep its log as it likes. A
// program that does not import this package does not link bbolt.
//
// # Files
//
// The directory of a node has two files of this package:
//
//   - log.db is a file of bbolt. Bucket "logs" has the entries, as raft-boltdb encodes them, and bucket "conf" has the
//     vote, the identity and the applied index. Bbolt itself has checksums of its two meta pages only. So each entry has
//     a checksum of its own in front of its extensions, and so has each record in "conf".
//   - log.extent says how far the log reached, so that a log.db that has lost its last writes, or was replaced by an
//     older copy, is found. It is small, and written in place.
//
// Bbolt holds a lock of log.db while the node runs. Stop the node before you open the file with another program, and do
// not change it. The exception is "bbolt compact": log.db may be replaced by the result if log.extent is removed with
// it, because a compacted file looks like an older copy.
//
// # Cost
//
// A write of the log makes one transaction for all entries that have gathered. Bbolt syncs the file twice for each
// transaction, and writes each page that changes anew: an entry of 100 bytes writes several pages. Segments sync once,
// and write little more than the entry.
//
// The file grows with the log and never shrinks. When a snapshot has replaced entries, their pages become free, and
// later entries use them. Bbolt writes the list of free pages with each transaction, unless [Options.NoFreelistSync] is
// set.
//
// Open reads the whole file.
//
// # Damage and shortages
//
// Open verifies all pages and entries before bbolt reads the file. For a damaged file it returns [coterie.ErrCorrupt]
// with the name of the file; the damage neither ends the process nor makes it hang. Both meta pages must be whole,
// although bbolt needs only one: without the newer one the last write, such as a vote, would be lost silently. While
// the node runs, everything that can go wrong within bbolt is an error of the node, which then stops: a panic, or a
// page that the system cannot read. [Options.NoFreelistSync] has one exception.
//
// If the system is short of disk space, descriptors or memory, the node waits, as with segments. A failed sync stops it.
//
// # Limits
//
// Bbolt maps its file into memory. So boltlog needs a file system of the operating system, and a node with
// Config.InMemory cannot have it. For the same reason coterie's tests cannot crash it at each step on a simulated file
// system, as they do with segments. They kill processes instead.
//
// Raft-boltdb passes measurements to the global instance of armon/go-metrics. Unless the program configures one, that
// instance drops them, and keeps nothing in memory.
package boltlog
