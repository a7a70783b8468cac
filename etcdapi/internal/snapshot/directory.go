// SPDX-License-Identifier: Apache-2.0

package snapshot

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
)

// A directory is the flags about the data directory of a coteried that is stopped.
type directory struct {
	dir        string
	incomplete bool
}

func (d *directory) flags(set *flag.FlagSet) {
	set.StringVar(&d.dir, "data-dir", "", "save the data in this `directory` of a coteried that is stopped, instead of those of an endpoint")
	set.BoolVar(&d.incomplete, "incomplete", false, "with --data-dir of one of several members: accept that other members may have newer writes")
}

// copy writes a snapshot of the directory. It copies the directory and recovers the copy, as datadir.Recover does for a
// cluster that has lost its other members. This is needed because a member alone does not know which entries at the end
// of its log are committed.
func (d *directory) copy(ctx context.Context, w, stderr io.Writer) (err error) {
	plan, ok, err := bootstrap.Read(d.dir)
	if err == nil && !ok {
		err = fmt.Errorf("%s is not the data directory of a coteried", d.dir)
	}
	if err != nil {
		return err
	}
	node := bootstrap.NodeDir(d.dir)
	if _, err := datadir.Inspect(ctx, node); err != nil { // also if the directory is in use
		return err
	}
	temp, err := os.MkdirTemp("", "coteried-snapshot-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	copied := bootstrap.NodeDir(temp)
	if err := os.CopyFS(copied, os.DirFS(node)); err != nil {
		return err
	}
	r, err := datadir.Recover(ctx, copied)
	if err != nil {
		return err
	}
	if !r.NothingLost {
		if !d.incomplete {
			return fmt.Errorf("%s is the directory of one of %d members: the others may have newer writes. Save a snapshot of an endpoint of the "+
				"running cluster, or give --incomplete", d.dir, len(r.Voters))
		}
		fmt.Fprintf(stderr, "warning: the other %d members may have newer writes\n", len(r.Voters)-1)
	}
	n, err := coterie.Open(ctx, coterie.Config{
		Dir: copied, Cluster: plan.Cluster, Name: plan.Name, Retention: coterie.Retention{Age: -1, Revisions: -1, Bytes: -1},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if err := n.Ready(ctx); err != nil {
		return err
	}
	c, err := n.Contents(ctx)
	if err != nil {
		return err
	}
	return etcdsnapshot.Write(ctx, w, c)
}
