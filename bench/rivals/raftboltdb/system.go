// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/coterie-kv/coterie/bench/harness"
	"github.com/coterie-kv/coterie/bench/rivals"
)

// system is the name of the only system.
const system = "raftboltdb"

const durability = "a majority of the members, the leader among them, have written the entry to their bbolt files, with fdatasync"

// cached is the number of entries that a member keeps in memory for the others, as Consul and Nomad do.
const cached = 512

// open starts the members, and returns when they have a leader. Their configuration is raft's default one. So there are
// no snapshots in the first two minutes, unless the setup asks for them.
func open(ctx context.Context, s harness.Setup) (*harness.System, error) {
	if cmp.Or(s.System, system) != system {
		return nil, fmt.Errorf("no system has the name %q", s.System)
	}
	var members []*member
	closeAll := func() error {
		var errs []error
		for _, m := range members {
			errs = append(errs, m.close())
		}
		return errors.Join(errs...)
	}
	var servers []raft.Server
	for i := range s.Members {
		m, err := openMember(filepath.Join(s.Dir, strconv.Itoa(i)), raft.ServerID(strconv.Itoa(i)), s.Snapshots)
		if err != nil {
			return nil, errors.Join(err, closeAll())
		}
		members = append(members, m)
		servers = append(servers, raft.Server{ID: m.id, Address: m.transport.LocalAddr()})
	}
	if err := members[0].raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		return nil, errors.Join(err, closeAll())
	}
	leader, err := awaitLeader(ctx, members)
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	return &harness.System{
		Stores: rivals.LeaderFirst(members, leader), Dir: s.Dir, Durability: durability, Close: closeAll,
	}, nil
}

// awaitLeader waits until the members have a leader, and returns its index.
func awaitLeader(ctx context.Context, members []*member) (leader int, err error) {
	err = rivals.Retry(ctx, func(context.Context) error {
		leader = slices.IndexFunc(members, func(m *member) bool { return m.raft.State() == raft.Leader })
		if leader < 0 {
			return errors.New("the members have no leader")
		}
		return nil
	})
	return leader, err
}

// A member is a replica. It is immutable, but for the table.
type member struct {
	id        raft.ServerID
	table     *rivals.Table
	log       *raftboltdb.BoltStore
	transport *raft.NetworkTransport
	raft      *raft.Raft
}

func openMember(dir string, id raft.ServerID, snapshotEvery uint64) (_ *member, err error) {
	m := &member{id: id, table: new(rivals.Table)}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if m.log, err = raftboltdb.NewBoltStore(filepath.Join(dir, "raft.db")); err != nil {
		return nil, err
	}
	snapshots, err := raft.NewFileSnapshotStore(dir, 2, io.Discard)
	if err != nil {
		return nil, err
	}
	if m.transport, err = raft.NewTCPTransport("127.0.0.1:0", nil, 3, 10*time.Second, io.Discard); err != nil {
		return nil, err
	}
	config := raft.DefaultConfig()
	config.LocalID, config.LogOutput = id, io.Discard
	if snapshotEvery > 0 {
		// A member compares the length of the log with the threshold once in each interval.
		config.SnapshotThreshold, config.SnapshotInterval = snapshotEvery, 100*time.Millisecond
	}
	cache, err := raft.NewLogCache(cached, m.log)
	if err != nil {
		return nil, err
	}
	m.raft, err = raft.NewRaft(config, fsm{m.table}, cache, m.log, snapshots, m.transport)
	return m, err
}

func (m *member) close() error {
	var errs []error
	if m.raft != nil {
		errs = append(errs, m.raft.Shutdown().Error())
	}
	if m.transport != nil {
		errs = append(errs, m.transport.Close())
	}
	if m.log != nil {
		errs = append(errs, m.log.Close())
	}
	return errors.Join(errs...)
}

// Put puts a key. Only the leader can.
func (m *member) Put(_ context.Context, key, value string) error {
	applied := m.raft.Apply(rivals.EncodePut(key, value), 0)
	if err := applied.Error(); err != nil {
		return err
	}
	err, _ := applied.Response().(error)
	return err
}

// Get reads a key. A linearizable read is possible on the leader alone: it asks the others first whether it still is.
func (m *member) Get(_ context.Context, key, want string, local bool) error {
	if !local {
		err := m.raft.VerifyLeader().Error()
		if errors.Is(err, raft.ErrNotLeader) {
			return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
		if err != nil {
			return err
		}
	}
	return m.table.Check(key, want)
}

// An fsm applies the log to a table.
type fsm struct{ *rivals.Table }

func (f fsm) Apply(l *raft.Log) any { return f.Table.Apply(l.Data) }

func (f fsm) Snapshot() (raft.FSMSnapshot, error) { return snapshot{f.Copy()}, nil }

func (f fsm) Restore(r io.ReadCloser) error {
	return errors.Join(f.Load(r), r.Close())
}

// A snapshot is the contents of a table at one entry of the log.
type snapshot struct{ *rivals.Table }

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.Save(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (snapshot) Release() {}
