// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot

import (
	"encoding/binary"
	"fmt"
)

// The buckets of etcd's database.
const (
	bucketMeta           = "meta"
	bucketKey            = "key"
	bucketLease          = "lease"
	bucketAuth           = "auth"
	bucketUsers          = "authUsers"
	bucketRoles          = "authRoles"
	bucketAlarm          = "alarm"
	bucketCluster        = "cluster"
	bucketMembers        = "members"
	bucketMembersRemoved = "members_removed"
)

// buckets returns the names of all buckets. etcd expects that each of them exists.
func buckets() []string {
	return []string{
		bucketAlarm, bucketAuth, bucketRoles, bucketUsers, bucketCluster, bucketKey, bucketLease, bucketMembers,
		bucketMembersRemoved, bucketMeta,
	}
}

// The keys of the buckets meta and auth.
const (
	keyScheduledCompact = "scheduledCompactRev"
	keyFinishedCompact  = "finishedCompactRev"
	keyConsistentIndex  = "consistent_index"
	keyTerm             = "term"
	keyStorageVersion   = "storageVersion"
	keyAuthEnabled      = "authEnabled"
	keyAuthRevision     = "authRevision"
)

// A revision is the key of a change in the bucket key: 8 bytes of main, "_", 8 bytes of sub, and "t" for a deletion.
type revision struct {
	main, sub int64
	deleted   bool
}

const revisionSize = 8 + 1 + 8

func (r revision) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.main))
	b = binary.BigEndian.AppendUint64(append(b, '_'), uint64(r.sub))
	if r.deleted {
		b = append(b, 't')
	}
	return b
}

func parseRevision(b []byte) (r revision, err error) {
	r.deleted = len(b) == revisionSize+1 && b[revisionSize] == 't'
	if len(b) != revisionSize && !r.deleted || b[8] != '_' {
		return r, fmt.Errorf("%x is not a revision", b)
	}
	r.main, r.sub = int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[9:]))
	if r.main < 1 || r.sub < 0 {
		return r, fmt.Errorf("%x is not a revision", b)
	}
	return r, nil
}

// number returns a number of 8 bytes, as etcd writes it.
func number(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func parseNumber(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%x is not a number of 8 bytes", b)
	}
	return binary.BigEndian.Uint64(b), nil
}
