// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/coterie-kv/coterie"
)

// A line is a queue of places: the keys directly under one or several prefixes, in the order of their create
// revisions. Keys of names that continue these prefixes are not part of it.
type line struct {
	all      string // common prefix of prefixes
	prefixes []string
}

func newLine(prefix string) line { return line{prefix, []string{prefix}} }

// has reports whether a key is a place of the line: a prefix, the lease of a session in hex, "-", and 8 hex
// digits.
func (l line) has(key string) bool {
	return slices.ContainsFunc(l.prefixes, func(prefix string) bool {
		own, under := strings.CutPrefix(key, prefix)
		lease, chance, _ := strings.Cut(own, "-")
		_, leaseErr := strconv.ParseUint(lease, 16, 64)
		_, chanceErr := strconv.ParseUint(chance, 16, 32)
		return under && leaseErr == nil && chanceErr == nil && len(chance) == 8
	})
}

// only returns the places of the line among some keys.
func (l line) only(kvs []coterie.KeyValue) []coterie.KeyValue {
	return slices.DeleteFunc(kvs, func(kv coterie.KeyValue) bool { return !l.has(kv.Key) })
}

// get reads the line. The result may contain keys of names that continue its prefixes; only removes them.
func (l line) get(opts ...coterie.GetOption) coterie.Op {
	return coterie.OpGet(l.all, append(opts, coterie.WithPrefix())...)
}

// heldError adds the holder of the line's oldest place to err, the reason why a call got nothing. p is the
// call's own place, or nil if it took none. It reads this node's copy without contacting the cluster, because
// ctx may have ended.
func (l line) heldError(ctx context.Context, n *coterie.Node, name string, p *place, err error) error {
	r, readErr := n.Txn(context.WithoutCancel(ctx)).Then(l.get(coterie.WithSerializable(),
		coterie.WithSort(coterie.SortByCreateRevision, coterie.SortAscend))).Commit()
	if readErr != nil {
		return err
	}
	kvs := l.only(r.Responses[0].Get.KVs)
	if len(kvs) == 0 || p != nil && kvs[0].Key == p.key {
		return err
	}
	return coterie.NewHeldError(name, kvs[0], err)
}

// empty reports whether the line has no places.
func (l line) empty(ctx context.Context, n *coterie.Node) (bool, error) {
	r, err := n.Txn(ctx).Then(l.get(coterie.WithKeysOnly())).Commit()
	if err != nil {
		return false, err
	}
	return len(l.only(r.Responses[0].Get.KVs)) == 0, nil
}

// checkName rejects an empty name.
func checkName(name string) error {
	if name == "" {
		return fmt.Errorf("%w: the name is empty", coterie.ErrInvalidOption)
	}
	return nil
}
