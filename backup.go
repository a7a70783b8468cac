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

// Backup writes the state that this node has applied at one moment, while writes continue: all keys with their
// leases, the leases, and the history that is kept. It asks no other node, so it works on every node, also
// without a quorum. Call [Node.Ready] first if the backup must have everything that was answered until then.
// Only w can delay it: it returns after w's Write when ctx ends or the node closes. The output of a Backup that
// failed is not a backup, and [RestoreBackup] rejects it.
//
// Errors: those of w, ctx's cause, ErrClosed.
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

// RestoreBackup makes cfg.Dir the directory of a founder of a new cluster that begins with the contents of a
// backup. Call it once for each founder, with the Config that Open gets afterwards, and each time with the same
// backup and the same Founders. They need not be the founders of the old cluster. Without Founders it is a
// cluster of one. The directory gets the storage of cfg.Storage.
//
// Revisions continue from the backup's, and leases begin their TTL again. The new cluster has an ID of its own:
// its nodes talk neither to nodes of the old cluster nor to a founder that began with an empty directory. The ID
// follows from the backup, cfg.Cluster and Founders. So if you restore the same backup again, make sure that no
// node of the first time still runs.
//
// RestoreBackup reads the backup to its end, and holds it in memory, before it writes anything. The restore is
// done completely or not at all. If the process ends while RestoreBackup writes, Open refuses the directory with
// ErrRestoreUnfinished, and RestoreBackup can be called again. If the process ends before that, Open cannot know
// about the restore and founds an empty cluster: call Open only after RestoreBackup has succeeded. RestoreBackup
// blocks on r and on the disk, and returns after r's Read when ctx ends.
//
// Errors: ErrInvalidOption with everything that is wrong with cfg; ErrCorrupt for a backup that is damaged or cut
// off; ErrFormat for one of another version; ErrDirNotEmpty for a directory that has a node's data;
// ErrDirInUse; those of r; ctx's cause; those of the operating system about the directory. After all but the
// last two nothing was written.
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
	format, err := cfg.format()
	if err != nil {
		return err
	}
	err = raftlog.Found(vfs.For(ctx), cfg.Dir, format, f)
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

// forRestore returns the configuration with all that resolve derives, without a listener.
func (c Config) forRestore() (Config, error) {
	c, err := c.withDefaults()
	bad := func(text string) { err = errors.Join(err, fmt.Errorf("%w: Config.%s", ErrInvalidOption, text)) }
	if c.InMemory {
		bad("InMemory leaves nothing to restore to")
	}
	if len(c.Join) > 0 {
		bad("Join is only for a node that is not a founder")
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

// restoredID returns the ID of a cluster that begins with a backup that has a checksum.
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

// servers returns members in the form of a raft configuration.
func servers(members state.Members) (all []raftlog.Member) {
	for _, m := range members {
		all = append(all, raftlog.Member{ID: serverID(MemberID(m.ID)), Addr: m.Addr, Voter: m.Voter})
	}
	return all
}
