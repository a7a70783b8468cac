// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"time"

	"github.com/coterie-kv/coterie"
)

// compareMembers compares the data of the members at intervals while the node leads, until ctx ends.
func (s *server) compareMembers(ctx context.Context) {
	if s.corruptionCheck <= 0 {
		return
	}
	due := time.NewTicker(s.corruptionCheck)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.node.Done():
			return
		case <-due.C:
			if s.node.Status().Role == coterie.RoleLeader {
				s.compareOnce(ctx)
			}
		}
	}
}

// compareOnce compares the members. After an error, the next comparison finds the same.
func (s *server) compareOnce(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.corruptionCheck)
	defer cancel()
	if r, err := s.node.CompareMembers(ctx); err == nil {
		s.raiseCorrupt(ctx, r)
	}
}

// raiseCorrupt raises an alarm for each member that differs.
func (s *server) raiseCorrupt(ctx context.Context, r *coterie.CompareMembersResponse) {
	for _, member := range r.Divergent {
		alarm, err := s.node.RaiseAlarm(ctx, coterie.Alarm{Member: member, Kind: coterie.AlarmCorrupt})
		if err == nil && alarm.Changed {
			s.node.Logger().Error("the data of a member differs", "member", member.String(), "rev", r.HashRevision)
		}
	}
}
