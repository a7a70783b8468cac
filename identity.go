// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/raftnet"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/signal"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A directory numbers its runs: each Open draws a number, and writes it behind the earlier ones, back to
// the last run that the cluster had on record when the directory was last in use. So a copy of a directory
// does not know the later runs of the original. The number goes on record with the incarnation, and every
// node judges the others by it: a node that does not know its run on record was put back from a copy, or
// its directory is in use elsewhere. No node waits for its run to be on record before it votes or
// acknowledges: putting it on record takes a leader, and a leader takes votes.

// An identity is the knowledge of this node about itself as a member: the record in its directory, and the
// doubts of other nodes about that directory. Any goroutine may use it; replacing serializes the changes of
// record.
type identity struct {
	cfg      *Config
	log      *raftlog.Log
	founding func() bool // the log has nothing beyond the founding entries

	replacing sync.Mutex                       // held while record is replaced, on the disk too
	record    atomic.Pointer[raftlog.Identity] // as in the directory
	changed   signal.Signal                    // of record and runChecked

	runChecked atomic.Bool // the other members that could be reached were asked about this run
	forgotten  atomic.Bool // the cluster has another directory on record for this node, or exists already
	disputed   atomic.Bool // a member knows of data that the directory has lost: no part in raft until a leader decides
}

func newIdentity(cfg *Config, log *raftlog.Log, founding func() bool) *identity {
	i := &identity{cfg: cfg, log: log, founding: founding}
	record, _ := log.Identity()
	i.record.Store(&record)
	i.disputed.Store(record.Disputed)
	return i
}

// Load returns the record in the directory.
func (i *identity) Load() *raftlog.Identity { return i.record.Load() }

// Changed returns a channel that the next change closes. To miss none, call it before Load.
func (i *identity) Changed() <-chan struct{} { return i.changed.Wait() }

// isNew reports whether this node is on record nowhere, as far as it knows, and its log has nothing beyond
// the founding entries.
func (i *identity) isNew() bool { return i.Load().Since == 0 && i.founding() }

// hasGathered reports whether this node may take part in elections: as a founder it has met the others, or
// it is not new.
func (i *identity) hasGathered() bool { return i.Load().Gathered || !i.isNew() }

// wasMember reports whether this node was a member with this directory: it is on record, or it took part
// in the founding.
func (i *identity) wasMember() bool { return i.Load().Since > 0 || !i.founding() }

// update changes the record in the directory, durably.
func (i *identity) update(change func(*raftlog.Identity)) error {
	i.replacing.Lock()
	defer i.replacing.Unlock()
	record := *i.Load()
	change(&record)
	if err := i.log.Identify(record); err != nil {
		return err
	}
	i.record.Store(&record)
	i.changed.Broadcast()
	return nil
}

// confirm notes that the cluster has this node on record, and clears the doubts about its directory.
func (i *identity) confirm(a membership.Admission) error {
	record := *i.Load()
	if record.Since > 0 && !i.disputed.Load() {
		return nil
	}
	if record.Cluster != 0 && record.Cluster != a.Cluster {
		return ErrClusterMismatch
	}
	if err := raftnet.CheckJoin(a.Index, a.Term); err != nil {
		return err
	}
	founding := i.founding()
	err := i.update(func(record *raftlog.Identity) {
		record.Disputed = false
		if record.Since > 0 {
			return
		}
		record.Cluster, record.Since = a.Cluster, a.Index
		if founding {
			record.Floor = a.Term
		}
	})
	if err == nil {
		i.forgotten.Store(false)
		i.disputed.Store(false)
	}
	return err
}

// dispute notes that another member knows of data that this node has lost. The note is durable: when the
// node is started again, it may reach no member that knows. The node takes no part in raft until a leader
// decides.
func (i *identity) dispute() {
	i.disputed.Store(true)
	if i.Load().Disputed {
		return
	}
	if err := i.update(func(record *raftlog.Identity) { record.Disputed = true }); err != nil {
		i.cfg.Logger.Warn("the directory does not note that its node may have lost data", "err", err)
	}
}

// newDraw draws the number that tells a run from those of copies of its directory.
func newDraw() uint64 { return max(rand.Uint64(), 1) }

// beginRun begins another run of a directory, durably. recorded is the last run that the node knows to be
// on record. If the disk is full, the node starts all the same, and goes by the number of the run before.
func (i *identity) beginRun(recorded run.Number) error {
	runs := i.Load().Runs
	next := runs.Next(recorded, newDraw())
	if next == runs {
		return nil
	}
	err := i.update(func(record *raftlog.Identity) { record.Runs = next })
	if vfs.Short(err) {
		return nil
	}
	return logError(err)
}

// endRunCheck notes that the other members were asked about this run: the node may vote.
func (i *identity) endRunCheck() {
	i.runChecked.Store(true)
	i.changed.Broadcast()
}
