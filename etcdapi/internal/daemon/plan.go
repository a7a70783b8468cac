// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
)

// plan returns the plan of the member: that of its data directory, or on its first start that of the flags.
func (s *Settings) plan(ctx context.Context, log *slog.Logger) (p bootstrap.Plan, err error) {
	if err := checkForeign(s.DataDir); err != nil {
		return p, err
	}
	kept, known, err := bootstrap.Read(s.DataDir)
	switch {
	case err != nil:
		return p, err
	case !known:
		return s.newPlan(ctx)
	case s.Given("initial-cluster-token") && s.Cluster.Token != kept.Cluster:
		return p, fmt.Errorf("%w: --data-dir %s belongs to the cluster %q, but --initial-cluster-token is %q",
			coterie.ErrClusterMismatch, s.DataDir, kept.Cluster, s.Cluster.Token)
	}
	log.Info("server has already been initialized", "data-dir", s.DataDir, "cluster", kept.Cluster, "name", kept.Name)
	if s.Given("initial-advertise-peer-urls") {
		kept.Move(s.Cluster.AdvertisePeer[0].Host)
	}
	kept.Hint(s.Cluster.Members)
	return kept, nil
}

// newPlan returns the plan of a member that starts for the first time.
func (s *Settings) newPlan(ctx context.Context) (bootstrap.Plan, error) {
	f := bootstrap.Flags{
		Name: s.Name, Token: s.Cluster.Token, Members: s.Cluster.Members, State: s.Cluster.State,
		AdvertiseURLs: s.Cluster.AdvertisePeer.strings(),
	}
	if s.Cluster.SRV != "" {
		var err error
		if f, err = s.discover(ctx, net.DefaultResolver); err != nil {
			return bootstrap.Plan{}, err
		}
	}
	return bootstrap.New(f)
}

// checkForeign rejects the data directory of an etcd.
func checkForeign(dataDir string) error {
	for _, name := range []string{"wal", "snap"} {
		if _, err := os.Stat(filepath.Join(bootstrap.NodeDir(dataDir), name, "")); err == nil {
			return fmt.Errorf("--data-dir %s belongs to an etcd: make a directory of its data with coteried restore, and name that one", dataDir)
		}
	}
	return nil
}

// forceNew makes the member of a data directory the only one of its cluster, with the data that it has. Another member has
// to join again with an empty directory.
func (s *Settings) forceNew(ctx context.Context, p *bootstrap.Plan, log *slog.Logger) error {
	recovery, err := datadir.Recover(ctx, bootstrap.NodeDir(s.DataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is no data: the member founds its cluster
	}
	if err != nil {
		return fmt.Errorf("--force-new-cluster: %w", err)
	}
	log.Warn("forced a new cluster: this member is the only one", "member", recovery.Member.String(), "revision", recovery.Revision,
		"nothing-lost", recovery.NothingLost)
	p.BeAlone()
	return nil
}
