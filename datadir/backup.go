// SPDX-License-Identifier: Apache-2.0

package datadir

import (
	"context"
	"io"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/backup"
)

// A BackupInspection is the result of [InspectBackup].
type BackupInspection struct {
	Cluster         string            `json:"clusterName"` // the cluster of the node that took the backup
	ClusterID       coterie.ClusterID `json:"cluster"`
	Member          coterie.MemberID  `json:"member"` // the member of the node that took the backup
	Taken           time.Time         `json:"taken"`
	Revision        int64             `json:"revision"`
	CompactRevision int64             `json:"compactRevision"` // the oldest revision that can be read; -1 before the first compaction
	Keys            int               `json:"keys"`
	Leases          int               `json:"leases"`
	Bytes           int64             `json:"bytes"` // the size of the backup
}

// InspectBackup reads a backup to its end and verifies every byte of it, as [coterie.RestoreBackup] does. It
// blocks in r.Read, and returns after that call when ctx ends.
//
// Errors: coterie.ErrCorrupt, coterie.ErrFormat, an error of r, ctx's cause.
func InspectBackup(ctx context.Context, r io.Reader) (BackupInspection, error) {
	b, err := backup.ReadContext(ctx, r)
	if format := formatError(err); format != nil {
		return BackupInspection{}, format
	}
	if err != nil {
		return BackupInspection{}, err
	}
	v := b.State.View()
	return BackupInspection{
		Cluster: b.Cluster, ClusterID: coterie.ClusterID(b.ClusterID), Member: coterie.MemberID(b.Member), Taken: b.Taken,
		Revision: b.Revision, CompactRevision: v.KV.CompactRevision(), Keys: v.KV.Keys(), Leases: v.Leases.Len(), Bytes: b.Bytes,
	}, nil
}
