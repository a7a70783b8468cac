// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/coterie-kv/coterie"
)

//go:embed config
var files embed.FS

// prefix begins the keys of the configuration.
const prefix = "config/"

// shareConfiguration puts every file into the store in one transaction, and reads them on another node.
func shareConfiguration(ctx context.Context, s *shop) error {
	var puts []coterie.Op
	err := fs.WalkDir(files, "config", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := files.ReadFile(path)
		puts = append(puts, coterie.OpPut(path, string(text)))
		return err
	})
	if err != nil {
		return err
	}
	r, err := s.nodes[0].Txn(ctx).Then(puts...).Commit()
	if err != nil {
		return err
	}
	read, err := s.nodes[2].Get(ctx, prefix, coterie.WithPrefix())
	if err != nil {
		return err
	}
	if int(read.Count) != len(puts) {
		return fmt.Errorf("%d files were put, and %d were read", len(puts), read.Count)
	}
	for _, kv := range read.KVs {
		text, err := files.ReadFile(kv.Key)
		if err != nil || kv.Value != string(text) {
			return fmt.Errorf("%s differs from its file", kv.Key)
		}
	}
	say("configuration", "%d files put on node1 in one transaction, revision %d, read on node3", len(puts), r.Revision)
	return nil
}

// followChange follows the configuration on one node while another node changes a value, on the condition
// that no other change came first.
func followChange(ctx context.Context, s *shop) error {
	const key = prefix + "features.json"
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	mirrors := make(chan coterie.PrefixState)
	go func() {
		defer close(mirrors)
		for m, err := range coterie.Follow(ctx, s.nodes[1], prefix) {
			if err != nil {
				return
			}
			mirrors <- m
		}
	}()
	first := <-mirrors
	say("node2 follows", "%s", strings.Join(slices.Sorted(maps.Keys(first.KVs)), " "))

	old := first.KVs[key]
	unchanged := coterie.Compare(coterie.ModRevision(key), "=", old.ModRevision)
	next := strings.Replace(old.Value, `"percent": 25`, `"percent": 50`, 1)
	begin := time.Now()
	r, err := s.nodes[0].Txn(ctx).If(unchanged).Then(coterie.OpPut(key, next)).Commit()
	if err != nil {
		return err
	}
	if !r.Succeeded {
		return errors.New("the value was changed, although no other node writes it")
	}
	m := <-mirrors
	if len(m.Events) != 1 || m.Events[0].KV.Key != key || m.KVs[key].Value != next || m.Events[0].PrevKV.Value != old.Value {
		return fmt.Errorf("the follower saw %+v", m.Events)
	}
	say("node1 changes a value", "node2 has it, revision %d, %v after the change began", m.Revision, since(begin))

	// The same transaction again, after the value was changed.
	r, err = s.nodes[2].Txn(ctx).If(unchanged).Then(coterie.OpPut(key, "lost update")).Commit()
	if err != nil {
		return err
	}
	if r.Succeeded {
		return errors.New("an update was lost")
	}
	say("node3 is too late", "its change is based on revision %d, and is rejected", old.ModRevision)
	return nil
}
