// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"cmp"
	"encoding/binary"
	"hash/crc32"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/coterie-kv/coterie"
)

// hashKV returns etcd's hash of the versions up to a revision: of the entries in its bucket "key" that a
// compaction to that revision would keep. It is the same on every member that has compacted to the same revision.
//
// It is also the hash of an etcd with the same history, unless a compaction has left a part of a revision that changed
// several keys: etcd numbers the changes of a revision, and here the numbers end with the compaction.
func hashKV(c *coterie.Contents, revision int64) (uint32, error) {
	versions, newest := versionsUntil(c, revision)
	// If no key exists at that revision, etcd hashes all versions.
	whole := !slices.ContainsFunc(versions, func(v coterie.KeyValue) bool { return newest[v.Key] == v.ModRevision && v.Version > 0 })
	hash := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	hash.Write([]byte("key"))
	var last, sub int64
	var buffer []byte
	for _, v := range versions {
		if sub++; v.ModRevision != last {
			last, sub = v.ModRevision, 0
		}
		deleted := v.Version == 0
		if v.ModRevision <= c.CompactRevision() && !whole && (deleted || newest[v.Key] != v.ModRevision) ||
			v.ModRevision == c.CompactRevision() && deleted {
			continue
		}
		buffer = binary.BigEndian.AppendUint64(buffer[:0], uint64(v.ModRevision))
		buffer = binary.BigEndian.AppendUint64(append(buffer, '_'), uint64(sub))
		stored := &mvccpb.KeyValue{Key: []byte(v.Key)}
		if deleted {
			buffer = append(buffer, 't')
		} else {
			stored = keyValue(&v)
		}
		var err error
		if buffer, err = (proto.MarshalOptions{}).MarshalAppend(buffer, stored); err != nil {
			return 0, err
		}
		hash.Write(buffer)
	}
	return hash.Sum32(), nil
}

// versionsUntil returns the versions up to a revision in the order in which they were made, and the newest revision of
// each key.
func versionsUntil(c *coterie.Contents, revision int64) (versions []coterie.KeyValue, newest map[string]int64) {
	newest = map[string]int64{}
	for v := range c.Versions() {
		if v.ModRevision <= revision {
			versions = append(versions, v)
			newest[v.Key] = v.ModRevision
		}
	}
	slices.SortStableFunc(versions, func(a, b coterie.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) })
	return versions, newest
}
