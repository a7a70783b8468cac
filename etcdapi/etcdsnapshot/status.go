// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot

import (
	"context"
	"hash/crc32"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// A Status describes an etcd snapshot, as "etcdutl snapshot status" does.
type Status struct {
	Hash      uint32 `json:"hash"` // of all entries of the database
	Revision  int64  `json:"revision"`
	TotalKey  int    `json:"totalKey"`  // the current keys
	TotalSize int64  `json:"totalSize"` // of the database, in bytes
	Version   string `json:"version"`   // of the storage; empty before etcd 3.6
}

// ReadStatus verifies a snapshot or a data directory as [Read] does, and describes it.
//
// Errors: those of Read.
func ReadStatus(ctx context.Context, path string, opts ...Option) (s Status, err error) {
	err = withImporter(ctx, path, opts, func(im *importer, _ options) error {
		if _, err := im.run(); err != nil {
			return err
		}
		s, err = im.status()
		return err
	})
	return s, err
}

func (im *importer) status() (s Status, err error) {
	s.TotalSize = int64(im.d.pages) * im.d.pageSize
	keys := map[string]bool{}
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	im.d.forget()
	err = im.d.buckets(func(name string, b bucket) error {
		sum.Write([]byte(name))
		return b.entries(func(key, value []byte) error {
			sum.Write(key)
			sum.Write(value)
			if name == bucketMeta && string(key) == keyStorageVersion {
				s.Version = string(value)
			}
			return nil
		})
	})
	if err != nil {
		return s, err
	}
	err = im.changes(func(r revision, kv *mvccpb.KeyValue) error {
		s.Revision = r.main
		if r.deleted {
			delete(keys, string(kv.Key))
		} else {
			keys[string(kv.Key)] = true
		}
		return nil
	})
	s.TotalKey, s.Hash = len(keys), sum.Sum32()
	return s, err
}
