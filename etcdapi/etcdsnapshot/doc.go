// SPDX-License-Identifier: Apache-2.0

// Package etcdsnapshot converts between the data of coterie and snapshots of etcd v3, so that a cluster can move in both
// directions. Keys keep their values, revisions, versions and leases. Compacted history, users and roles move, too.
//
// # From etcd
//
// [Restore] makes the directory of a founder from a snapshot, which "etcdctl snapshot save" writes:
//
//	err := etcdsnapshot.Restore(ctx, "backup.db", cfg)
//	…
//	node, err := coterie.Open(ctx, cfg)
//
// Call it once for each founder, with the same snapshot. [Read] returns the data themselves. Both verify the
// checksum of the snapshot, and the structure of each page that they read, before anything is written. They also read
// the data directory of an etcd that is stopped, and compare its database with its log. The tests run etcd v3.7.3;
// earlier versions of v3 store keys, leases and users in the same form. [WithBumpRevision] raises the revision, for
// clients that may know later revisions than the snapshot has.
//
// # To etcd
//
// [New] makes a snapshot of the data of a node, and [Write] writes one:
//
//	contents, err := node.Contents(ctx)
//	…
//	err = etcdsnapshot.Write(ctx, file, contents)
//
// "etcdutl snapshot restore" makes the data directory of an etcd v3.7 of it.
//
// # Differences
//
// A lease begins its TTL again, and its TTL is rounded up to seconds for etcd. Members, alarms and raft's log are
// not converted, because both programs make a new cluster. etcd numbers the changes of a revision. Changes from
// before the compact revision get new numbers, so if one revision changed several keys, etcd's HashKV of the whole
// store can differ from that of the etcd that the data came from. The revisions are the same.
package etcdsnapshot
