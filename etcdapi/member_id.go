// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/coterie-kv/coterie"
)

// wireID returns the ID of a member in etcd's protocol, in which the ID of a removed member is never used again. The
// ID of a node follows from its name, so a later member can have it again, with another generation.
func wireID(m *coterie.Member) uint64 {
	if m.Generation == 0 {
		return uint64(m.ID)
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(m.ID))
	hash := sha256.Sum256(binary.BigEndian.AppendUint64(b, m.Generation))
	return binary.BigEndian.Uint64(hash[:])
}

// findMember returns the member with an ID of etcd's protocol.
func findMember(members []coterie.Member, id uint64) (coterie.Member, bool) {
	i := slices.IndexFunc(members, func(m coterie.Member) bool { return wireID(&m) == id })
	if i < 0 {
		return coterie.Member{}, false
	}
	return members[i], true
}

// wireIDOf returns the ID in etcd's protocol of one of the members. Other IDs stay as they are.
func wireIDOf(members []coterie.Member, id coterie.MemberID) uint64 {
	for i := range members {
		if members[i].ID == id {
			return wireID(&members[i])
		}
	}
	return uint64(id)
}

// selfID returns the ID of this node's member. It does not change while the node runs: a node stops when its member is
// removed.
func (s *server) selfID() uint64 {
	if id := s.self.Load(); id != 0 {
		return id
	}
	members, _ := s.node.Members(context.Background(), coterie.WithSerializable()) // does not wait
	for i := range members {
		if members[i].ID == s.node.ID() {
			id := wireID(&members[i])
			s.self.Store(id)
			return id
		}
	}
	return uint64(s.node.ID())
}
