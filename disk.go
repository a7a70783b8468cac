// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// openLog opens the log of a node. On the first start, which fresh reports, it writes the node's identity into
// the directory; later it compares the two.
func openLog(ctx context.Context, cfg *Config) (log *raftlog.Log, fresh bool, err error) {
	fs, given := vfs.From(ctx), true
	if fs == nil {
		given = false
		fs = vfs.OS{}
		if cfg.InMemory {
			fs = vfs.NewMemory().Mount()
		}
	}
	dir := cfg.Dir
	if cfg.InMemory {
		dir = "/" + cfg.Name
	}
	format, err := cfg.format()
	if err != nil {
		return nil, false, err
	}
	if log, err = raftlog.Open(fs, dir, format, cfg.InMemory && !given); err != nil {
		return nil, false, logError(err)
	}
	if fresh, err = identify(log, cfg); err != nil {
		return nil, false, errors.Join(err, log.Close(context.Background()))
	}
	return log, fresh, nil
}

// identify gives a new directory the identity of the node, or compares the two.
func identify(log *raftlog.Log, cfg *Config) (fresh bool, err error) {
	member := uint64(cfg.memberID(cfg.Name))
	kept, known := log.Identity()
	if !known {
		id := raftlog.Identity{Member: member, Incarnation: newIncarnation(), Runs: run.Line{}.Next(run.Number{}, newDraw())}
		if len(cfg.Join) == 0 {
			id.Cluster = cfg.clusterID()
		}
		return true, logError(log.Identify(id))
	}
	if kept.Member != member {
		return false, fmt.Errorf("%w: %s belongs to member %v, not to %q of %q, which is %v", ErrClusterMismatch, cfg.Dir,
			MemberID(kept.Member), cfg.Name, cfg.Cluster, MemberID(member))
	}
	return false, nil
}

// onDisk runs fn while the node is opened. fn may block on the disk, as raft does when the disk fails. When the
// disk fails or cannot be written, onDisk unblocks fn, which then may have read placeholder entries, so its
// result is discarded. Once the node is open, followDisk does this.
//
// Errors: fn's, or the error of the disk.
func onDisk(log *raftlog.Log, fn func() error) error {
	over, watched := make(chan struct{}), make(chan struct{})
	var fault error
	go func() {
		defer close(watched)
		for fault == nil {
			select {
			case <-log.Trouble():
				fault = diskFault(log)
			case <-over:
				return
			}
		}
		log.End()
	}()
	err := fn()
	close(over)
	<-watched
	if fault == nil {
		fault = diskError(log.Condition().Err)
	}
	return cmp.Or(fault, err)
}

// diskFault returns why the log cannot be written, if so.
func diskFault(log *raftlog.Log) error {
	disk := log.Condition()
	if disk.Lack != nil {
		return logError(disk.Lack)
	}
	return diskError(disk.Err)
}

// diskError says that the disk has failed, and how, or that its contents contradict those of the cluster.
func diskError(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, raftlog.ErrDiverged) {
		return logError(err)
	}
	return fmt.Errorf("the disk has failed: %w", logError(err))
}

// room returns ErrNoSpace if the system has refused to write the log for more than a moment, in which
// another node would have begun to lead. This node would not even see its own writes applied.
func (n *Node) room() error {
	if disk := n.log.Condition(); disk.Short >= n.cfg.ElectionTimeout {
		return fmt.Errorf("%w: %s cannot write its log: %w", ErrNoSpace, n.cfg.Name, disk.Lack)
	}
	return nil
}

// followDisk stops the node when its disk has failed. While the log cannot be written, or a write hangs,
// another node has to lead: followDisk hands leadership over or, if raft's main loop itself waits for the disk
// and cannot, stops this node's heartbeats, so that the others elect a leader.
func (s *supervisor) followDisk() {
	look := time.NewTicker(s.cfg.DiskTimeout / 4)
	defer look.Stop()
	for logged := false; ; {
		disk := s.log.Condition()
		if disk.Err != nil {
			fault := diskError(disk.Err)
			if errors.Is(fault, raftlog.ErrDiverged) {
				s.cfg.Logger.Error("node stops", "err", fault)
			} else {
				s.cfg.Logger.Error("the disk has failed, the node stops", "err", disk.Err)
			}
			s.stop(fault, true)
			return
		}
		if disk.Short > 0 && !logged {
			s.cfg.Logger.Warn("the log cannot be written, and is tried again", "err", disk.Lack)
		}
		logged = disk.Short > 0
		s.raft().net.Mute(disk.Blocked >= s.cfg.DiskTimeout)
		if (disk.Short > 0 || disk.Stalled >= s.cfg.DiskTimeout) && s.lead.Now().Self && len(s.raft().voters()) > 1 {
			s.cfg.Logger.Warn("the disk takes no writes, leadership is handed over", "refused", disk.Short, "stalled", disk.Stalled)
			s.raft().stepDown()
		}
		select {
		case <-s.log.Trouble():
		case <-look.C:
		case <-s.life.Context().Done():
			return
		}
	}
}
