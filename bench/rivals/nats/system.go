// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/coterie-kv/coterie/bench/harness"
	"github.com/coterie-kv/coterie/bench/rivals"
)

// The systems. Their difference is their durability.
const (
	syncAlways  = "nats-sync" // runs unless another one is named
	syncDefault = "nats"
)

// durabilities are the writes that the systems sync before they acknowledge a put.
var durabilities = map[string]string{
	syncAlways:  "a majority of the servers have written the entry to their Raft logs, with fsync (sync_interval: always)",
	syncDefault: "none: a majority of the servers have written the entry to their Raft logs, which they sync every 2 minutes (the default)",
}

// bucket is the name of the key-value bucket. JetStream keeps it in a stream.
const (
	bucket = "bench"
	stream = "KV_" + bucket
)

// attempts is the number of times that a put is tried. An attempt takes at most 5 seconds, the default of the client.
const attempts = 6

// open starts the servers, and returns when the replicas of the bucket have a leader. The servers decide themselves when to
// take snapshots.
func open(ctx context.Context, s harness.Setup) (*harness.System, error) {
	system := cmp.Or(s.System, syncAlways)
	durability, ok := durabilities[system]
	if !ok {
		return nil, fmt.Errorf("no system has the name %q", s.System)
	}
	addrs, err := harness.FreeAddrs(s.Members)
	if err != nil {
		return nil, err
	}
	var members []*member
	closeAll := func() error {
		for _, m := range members {
			m.close()
		}
		return nil
	}
	for i := range addrs {
		m, err := openMember(filepath.Join(s.Dir, strconv.Itoa(i)), system == syncAlways, i, addrs)
		if err != nil {
			return nil, errors.Join(err, closeAll())
		}
		members = append(members, m)
	}
	for _, m := range members {
		if err := m.connect(ctx); err != nil {
			return nil, errors.Join(err, closeAll())
		}
	}
	leader, err := openBucket(ctx, members)
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	return &harness.System{
		Stores: rivals.LeaderFirst(members, leader), Dir: s.Dir, Durability: durability, Close: closeAll,
	}, nil
}

// openBucket creates the bucket, opens it for all members, and returns the index of the member that leads its replicas.
func openBucket(ctx context.Context, members []*member) (leader int, err error) {
	first, err := jetstream.New(members[0].client)
	if err != nil {
		return 0, err
	}
	// The servers create streams as soon as they have elected a leader among them.
	err = rivals.Retry(ctx, func(ctx context.Context) error {
		_, err := first.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: bucket, Storage: jetstream.FileStorage, Replicas: len(members),
		})
		return err
	})
	if err != nil {
		return 0, err
	}
	err = rivals.Retry(ctx, func(ctx context.Context) error {
		s, err := first.Stream(ctx, stream)
		if err != nil {
			return err
		}
		leader = slices.IndexFunc(members, func(m *member) bool { return m.server.Name() == s.CachedInfo().Cluster.Leader })
		if leader < 0 {
			return errors.New("the bucket has no leader")
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, m := range members {
		if err := m.openBucket(ctx); err != nil {
			return 0, err
		}
	}
	return leader, nil
}
