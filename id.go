// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// A ClusterID identifies a cluster, in text as 16 hex digits. 0 is none: the node was not let into a
// cluster yet.
type ClusterID uint64

// A MemberID identifies a member of a cluster, in text as 16 hex digits. 0 is none.
type MemberID uint64

// A LeaseID identifies a lease, in text as 16 hex digits, as etcdctl prints it. 0 is none.
type LeaseID int64

func (id ClusterID) String() string { return hexID(id) }
func (id MemberID) String() string  { return hexID(id) }
func (id LeaseID) String() string   { return hexID(id) }

// MarshalText returns the ID as String does: many readers of JSON round numbers of 64 bits.
func (id ClusterID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// MarshalText returns the ID as String does: many readers of JSON round numbers of 64 bits.
func (id MemberID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// MarshalText returns the ID as String does: many readers of JSON round numbers of 64 bits.
func (id LeaseID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads an ID in hex. Leading zeros may be missing.
func (id *ClusterID) UnmarshalText(text []byte) error { return parseID(id, text) }

// UnmarshalText reads an ID in hex. Leading zeros may be missing.
func (id *MemberID) UnmarshalText(text []byte) error { return parseID(id, text) }

// UnmarshalText reads an ID in hex. Leading zeros may be missing.
func (id *LeaseID) UnmarshalText(text []byte) error { return parseID(id, text) }

func hexID[T ClusterID | MemberID | LeaseID](id T) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(id))
	return hex.EncodeToString(b[:])
}

func parseID[T ClusterID | MemberID | LeaseID](id *T, text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	*id = T(n)
	return err
}
