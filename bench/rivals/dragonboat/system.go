// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/logger"

	"github.com/coterie-kv/coterie/bench/harness"
	"github.com/coterie-kv/coterie/bench/rivals"
)

// The systems. They differ in their snapshots: dragonboat takes none unless it is configured to.
const (
	withoutSnapshots = "dragonboat" // runs unless another one is named
	withSnapshots    = "dragonboat-snapshots"
)

// snapshotEntries are the entries of the log between two snapshots, unless the setup has another number: as many as in the
// defaults of coterie and of etcd.
var snapshotEntries = map[string]uint64{withoutSnapshots: 0, withSnapshots: 10_000}

const durability = "a majority of the replicas have written the entry to their logs, which are databases of Pebble, with fdatasync"

// shard is the ID of the only shard.
const shard = 1

// The parts of the configuration for which dragonboat has no defaults.
const (
	rttMillis    = 10     // of a tick
	electionRTT  = 100    // ticks: a second, as in coterie's defaults
	heartbeatRTT = 10     // ticks
	keptEntries  = 10_000 // of the log, behind a snapshot
)

// open starts the replicas, and returns when they have a leader.
func open(ctx context.Context, s harness.Setup) (*harness.System, error) {
	every, ok := snapshotEntries[cmp.Or(s.System, withoutSnapshots)]
	if !ok {
		return nil, fmt.Errorf("no system has the name %q", s.System)
	}
	quiet()
	addrs, err := harness.FreeAddrs(s.Members)
	if err != nil {
		return nil, err
	}
	peers := map[uint64]dragonboat.Target{}
	for i, addr := range addrs {
		peers[uint64(i+1)] = addr
	}
	var replicas []*replica
	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	closeAll := func() error {
		cancel()
		for _, r := range replicas {
			r.host.Close()
		}
		return nil
	}
	for i, addr := range addrs {
		host, err := dragonboat.NewNodeHost(config.NodeHostConfig{
			NodeHostDir: filepath.Join(s.Dir, strconv.Itoa(i)), RaftAddress: addr, RTTMillisecond: rttMillis,
		})
		if err != nil {
			return nil, errors.Join(err, closeAll())
		}
		replicas = append(replicas, &replica{host, host.GetNoOPSession(shard), patient{calls}})
		err = host.StartConcurrentReplica(peers, false, newMachine, config.Config{
			ReplicaID: uint64(i + 1), ShardID: shard, ElectionRTT: electionRTT, HeartbeatRTT: heartbeatRTT,
			CheckQuorum: true, PreVote: true, SnapshotEntries: cmp.Or(s.Snapshots, every), CompactionOverhead: keptEntries,
		})
		if err != nil {
			return nil, errors.Join(err, closeAll())
		}
	}
	leader, err := awaitLeader(ctx, replicas)
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	return &harness.System{
		Stores: rivals.LeaderFirst(replicas, leader), Dir: s.Dir, Durability: durability, Close: closeAll,
	}, nil
}

// quiet silences the loggers of dragonboat's packages. Even their errors are no news: a replica that closes before
// another one ends its connections.
func quiet() {
	for _, name := range []string{
		"config", "dragonboat", "logdb", "pebblekv", "raft", "raftpb", "registry", "rsm", "server", "settings", "transport",
	} {
		logger.GetLogger(name).SetLevel(logger.CRITICAL)
	}
}

// awaitLeader waits until all replicas know the leader, and returns its index.
func awaitLeader(ctx context.Context, replicas []*replica) (leader int, err error) {
	err = rivals.Retry(ctx, func(context.Context) error {
		var known uint64
		for i, r := range replicas {
			id, _, ok, err := r.host.GetLeaderID(shard)
			if err != nil {
				return err
			}
			if !ok || i > 0 && id != known {
				return errors.New("the replicas have no leader")
			}
			known = id
		}
		leader = int(known) - 1
		return nil
	})
	return leader, err
}

// attemptTimeout is how long an attempt of a call may take. A replica loses a call that it forwards to a replica that no longer leads.
const attemptTimeout = 5 * time.Second

// attempts is the number of times that a call is tried.
const attempts = 6

// A patient is a context. Its deadline is always attemptTimeout away. Dragonboat requires a deadline, and a context for
// each call would be charged to it.
type patient struct{ context.Context }

func (patient) Deadline() (time.Time, bool) { return time.Now().Add(attemptTimeout), true }

// A replica is immutable, but for its state machine.
type replica struct {
	host    *dragonboat.NodeHost
	session *client.Session // which does not detect duplicate puts: coterie's Put does not, either
	ctx     patient         // of all calls
}

// Put puts a key. It repeats a put without an answer.
func (r *replica) Put(_ context.Context, key, value string) (err error) {
	command := rivals.EncodePut(key, value)
	for range attempts {
		if _, err = r.host.SyncPropose(r.ctx, r.session, command); !errors.Is(err, dragonboat.ErrTimeout) {
			break
		}
	}
	return err
}

// Get reads a key. It repeats a linearizable read without an answer.
func (r *replica) Get(_ context.Context, key, want string, local bool) (err error) {
	q := &query{key, want}
	if local {
		_, err = r.host.StaleRead(shard, q)
		return err
	}
	for range attempts {
		if _, err = r.host.SyncRead(r.ctx, shard, q); !errors.Is(err, dragonboat.ErrTimeout) {
			break
		}
	}
	return err
}
