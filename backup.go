// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/coterie-kv/coterie/internal/backup"
	"github.com/coterie-kv/coterie/internal/breakable"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A BackupResponse answers [Node.Backup]. Its revision is that of the backup.
type BackupResponse struct{ Header }

// Backup writes what this node has applied at one moment, while writes go on: all keys with their
// leases, the leases, and the history that is kept. It asks
// no other node, and so works on any, without a quorum as well; call [Node.Ready] before to have in
// it all that was answered until then. What holds it up is w alone: it returns after w's Write when
// ctx ends or the node closes. What was written before an error is no backup, and [RestoreBackup]
// refuses it.
//
// Errors: w's, ctx's cause, ErrClosed.
func (n *Node) Backup(ctx context.Context, w io.Writer) (*BackupResponse, error) {
	broken := func() error {
		if context.Cause(ctx) != nil {
			return context.Cause(ctx)
		}
		select {
		case <-n.life.Closing():
			return n.life.Err()
		default:
			return nil
		}
	}
	v := n.views.Load()
	head := backup.Head{Cluster: n.cfg.Cluster, ClusterID: n.identity.Load().Cluster, Member: uint64(n.id), Taken: time.Now()}
	if err := backup.Write(breakable.Writer{Writer: w, Broken: broken}, head, v.Snapshot()); err != nil {
		return nil, err
	}
	return &BackupResponse{n.header(v.KV.Revision())}, nil
}

// RestoreBackup makes cfg.Dir the directory of a founder of a new cluster that begins with what a
// backup has. Call it once for each founder, with the Config that Open is given afterwards: each
// with the same backup and the same Founders, which need not be those of the old cluster. Without
// Founders it is a cluster of one.
//
// Revisions go on from the backup's, leases begin their TTL anew. The new cluster has an ID of its
// own: its nodes talk neither to those of the old one nor to one that began with an empty
// directory. The ID follows from the backup, cfg.Cluster and Founders: who restores the same once more
// must see to it that no node of the first time still runs.
//
// The backup is read to its end, and held in memory, before anything is written. It is restored
// wholly or not at all: when the process ends while it is written, Open refuses the directory with
// ErrRestoreUnfinished, and RestoreBackup begins anew. When it ends before, nothing tells Open, which
// founds an empty cluster: open what was restored. RestoreBackup blocks on r and on the disk, and
// returns after r's Read when ctx ends.
//
// Errors: ErrInvalidOption with all that is wrong with cfg, ErrCorrupt for a backup that is damaged
// or cut off, ErrFormat for one of another version, ErrDirNotEmpty for a directory that has a node's data, ErrDirInUse, r's, ctx's cause,
// or what the operating system says of the directory. After any but the last two nothing was
// written.
func RestoreBackup(ctx context.Context, r io.Reader, cfg Config) error {
	cfg, err := cfg.forRestore()
	if err != nil {
		return err
	}
	b, err := readBackup(ctx, r)
	if err != nil {
		return err
	}
	b.State.Refound(raftlog.FoundingIndex, raftlog.FoundingTerm, cfg.founders())
	f := raftlog.Founding{
		Identity: raftlog.Identity{
			Cluster: cfg.restoredID(b.Sum[:]), Member: uint64(cfg.memberID(cfg.Name)), Incarnation: newIncarnation(),
		},
		Members: servers(cfg.founders()),
		State: func(w io.Writer) error {
			_, err := b.State.Snapshot().WriteTo(breakable.Writer{Writer: w, Broken: breakable.By(ctx)})
			return err
		},
	}
	err = raftlog.Found(vfs.For(ctx), cfg.Dir, f)
	if err != nil && context.Cause(ctx) != nil {
		return context.Cause(ctx)
	}
	return logError(err)
}

// readBackup reads a backup, and returns errors in their public form.
func readBackup(ctx context.Context, r io.Reader) (*backup.Backup, error) {
	b, err := backup.ReadContext(ctx, r)
	if format := formatError(err); format != nil {
		return nil, format
	}
	return b, err
}

// forRestore returns the configuration as resolve would leave it, but without a listener.
func (c Config) forRestore() (Config, error) {
	c, err := c.withDefaults()
	bad := func(text string) { err = errors.Join(err, fmt.Errorf("%w: Config.%s", ErrInvalidOption, text)) }
	if c.InMemory {
		bad("InMemory leaves nothing to restore to")
	}
	if len(c.Join) > 0 {
		bad("Join is for a node that is no founder")
	}
	switch {
	case c.Addr == "" || c.Advertise != "":
	case len(c.Founders) == 0:
		bad("Advertise is needed to restore a backup, since there is no listener to ask")
	case c.Name == "":
		bad("Name is needed to restore a backup, since there is no listener to ask")
	}
	if err != nil {
		return c, err
	}
	return c, c.resolve(nil)
}

// restoredID is the identity of a cluster that began with a backup of this checksum.
func (c *Config) restoredID(sum []byte) uint64 {
	return hashOf("restored", fmt.Sprintf("%016x", c.clusterID()), fmt.Sprintf("%x", sum))
}

// founders returns the members that a cluster begins with.
func (c *Config) founders() (all state.Members) {
	for _, p := range c.Founders {
		server := state.Server{ID: uint64(c.memberID(p.Name)), Addr: p.Addr, Voter: true}
		all = append(all, state.Member{Server: server, Name: p.Name, Wanted: true})
	}
	slices.SortFunc(all, func(a, b state.Member) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// servers are members as raft has them.
func servers(members state.Members) (all []raftlog.Member) {
	for _, m := range members {
		all = append(all, raftlog.Member{ID: serverID(MemberID(m.ID)), Addr: m.Addr, Voter: m.Voter})
	}
	return all
}
