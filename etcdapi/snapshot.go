// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"errors"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
)

// blobSize is the size of the parts of a snapshot, as etcd sends them.
const blobSize = 32 << 10

// Snapshot sends the node's state as an etcd snapshot, and its checksum as a part of its own.
func (s *maintenanceServer) Snapshot(_ *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	if err := s.requireRoot(stream.Context()); err != nil {
		return err
	}
	contents, err := s.node.Contents(stream.Context())
	if err != nil {
		return err
	}
	snapshot, err := etcdsnapshot.New(stream.Context(), contents)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	for left := snapshot.Size(); left > 0; {
		size := min(left, blobSize)
		if left > etcdsnapshot.ChecksumSize {
			size = min(left-etcdsnapshot.ChecksumSize, blobSize)
		}
		blob := make([]byte, size) // gRPC may send it after Send has returned
		if _, err := io.ReadFull(snapshot, blob); err != nil {
			return errors.Join(errors.New("etcdapi: the temporary file of a snapshot cannot be read"), err)
		}
		left -= size
		resp := &pb.SnapshotResponse{Blob: blob, Version: etcdsnapshot.StorageVersion}
		resp.RemainingBytes = uint64(max(left-etcdsnapshot.ChecksumSize, 0))
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
	return nil
}
