// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie"
)

// A console watches the directory. It gives the orders of lost systems to other systems, unless another console has done
// so.
type console struct {
	node    *coterie.Node
	reached map[string]string // percent of each part that has begun; outlives the progress key
}

func newConsole(node *coterie.Node) *console { return &console{node, map[string]string{}} }

// watch prints all events, and calls saw with each state until it reports enough.
func (c *console) watch(ctx context.Context, saw func(coterie.PrefixState) (enough bool, err error)) error {
	for m, err := range coterie.Follow(ctx, c.node, root) {
		if err != nil {
			return err
		}
		if m.Events == nil { // the initial state
			for _, key := range slices.Sorted(maps.Keys(m.KVs)) {
				c.tell(coterie.Event{Type: coterie.EventPut, KV: m.KVs[key]})
			}
		}
		for _, e := range m.Events {
			c.tell(e)
		}
		if enough, err := saw(m); enough || err != nil {
			return err
		}
		if err := c.reassign(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// tell prints an event.
func (c *console) tell(e coterie.Event) {
	dir, name := e.KV.Key[:strings.LastIndex(e.KV.Key, "/")+1], e.KV.Key[strings.LastIndex(e.KV.Key, "/")+1:]
	switch {
	case dir == systems && e.Type == coterie.EventDelete:
		fmt.Printf("%s is down\n", name)
	case dir == systems:
		fmt.Printf("%s is up\n", name)
	case e.Type == coterie.EventDelete: // another event says the same, or it does not matter
	case dir == progress:
		c.reached[name] = e.KV.Value
		fmt.Printf("  %s: %s%%\n", name, e.KV.Value)
	case dir == done:
		delete(c.reached, name)
		fmt.Printf("  %s: done by %s\n", name, e.KV.Value)
	default:
		fmt.Printf("%s is ordered to push %s\n", strings.TrimSuffix(strings.TrimPrefix(dir, orders), "/"), name)
	}
}

// reassign gives the orders of systems that are down to one that is up.
func (c *console) reassign(ctx context.Context, m coterie.PrefixState) error {
	var heir string // the first name, so that all consoles choose the same system
	for key := range m.KVs {
		if name, is := strings.CutPrefix(key, systems); is && (heir == "" || name < heir) {
			heir = name
		}
	}
	if heir == "" {
		return nil
	}
	for key, kv := range m.KVs {
		system, part, _ := strings.Cut(strings.TrimPrefix(key, orders), "/")
		if _, up := m.KVs[systems+system]; up || !strings.HasPrefix(key, orders) {
			continue
		}
		percent := kv.Value
		if reached, ok := c.reached[part]; ok {
			percent = reached
		}
		_, err := c.node.Txn(ctx).If(coterie.Compare(coterie.CreateRevision(key), "=", kv.CreateRevision)).
			Then(coterie.OpDelete(key), coterie.OpPut(orders+heir+"/"+part, percent)).Commit()
		if err != nil {
			return err
		}
	}
	return nil
}
