// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"cmp"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
)

// defaultQuota is etcd's.
const defaultQuota = 2 << 30

// config returns the configuration of the node, without its log and its metrics.
func (s *Settings) config(p bootstrap.Plan) (coterie.Config, error) {
	cfg := p.Config(s.DataDir)
	cfg.Addr = address(s.Listen.Peer[0])
	cfg.ElectionTimeout = time.Duration(s.ElectionMs) * time.Millisecond
	cfg.SnapshotEntries = s.Snapshots
	cfg.MaxTxnOps = int(s.MaxTxnOps)
	cfg.MaxRequestBytes = int(s.MaxRequest)
	cfg.QuotaBytes = max(cmp.Or(s.QuotaBytes, defaultQuota), 0)
	age, revisions, err := s.retention()
	if err != nil {
		return cfg, err
	}
	// etcd keeps the whole history unless a client or a flag compacts it.
	cfg.Retention = coterie.Retention{Age: cmp.Or(age, -1), Revisions: cmp.Or(revisions, -1), Bytes: -1}
	return cfg, s.securePeers(&cfg)
}
