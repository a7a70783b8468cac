// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"fmt"
	"strconv"

	"github.com/coterie-kv/coterie"
)

// A cell is a number in a key. An update compares and sets it: it is one write if the key is as
// this cell saw it last; otherwise the rejection returns the present value, and the update tries again. Callers
// of one cell take turns, so that they do not conflict with each other.
type cell struct {
	n    *coterie.Node
	key  string
	turn chan coterie.KeyValue // has the key as it was seen last; empty during a turn
}

func newCell(n *coterie.Node, key string) *cell {
	c := &cell{n: n, key: key, turn: make(chan coterie.KeyValue, 1)}
	c.turn <- c.found(nil) // a guess that is right if the key does not exist
	return c
}

// found returns the key that a read has found, or 0 for a missing key.
func (c *cell) found(kvs []coterie.KeyValue) coterie.KeyValue {
	if len(kvs) == 0 {
		return coterie.KeyValue{Key: c.key, Value: "0"}
	}
	return kvs[0]
}

// update replaces the number by the result of change, in one transaction with the operations that change
// returns, and returns the new number. It returns an error of change only if change was called with the number
// that is stored now.
func (c *cell) update(ctx context.Context, change func(int64) (int64, []coterie.Op, error)) (int64, error) {
	var seen coterie.KeyValue
	select {
	case seen = <-c.turn:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	defer func() { c.turn <- seen }()
	var pause backoff
	for {
		var is int64
		var ops []coterie.Op
		was, rejected := number(seen)
		if rejected == nil {
			is, ops, rejected = change(was)
		}
		val := strconv.FormatInt(is, 10)
		if rejected == nil {
			ops = append(ops, coterie.OpPut(c.key, val))
		}
		same := coterie.Compare(coterie.ModRevision(c.key), "=", seen.ModRevision)
		r, err := c.n.Txn(ctx).If(same).Then(ops...).Else(coterie.OpGet(c.key)).Commit()
		switch {
		case err != nil:
			return 0, err
		case r.Succeeded && rejected != nil:
			return 0, rejected
		case r.Succeeded:
			seen = coterie.KeyValue{Key: c.key, Value: val, ModRevision: r.Revision}
			return is, nil
		}
		seen = c.found(r.Responses[0].Get.KVs)
		select {
		case <-pause.wait():
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// number returns the number that is the value of a key.
func number(kv coterie.KeyValue) (int64, error) {
	n, err := strconv.ParseInt(kv.Value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %q of %s is not a number", ErrForeignValue, kv.Value, kv.Key)
	}
	return n, nil
}
