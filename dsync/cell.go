// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"strconv"

	"github.com/coterie-kv/coterie"
)

// A cell is a key with a number, which is changed on the condition that it is what it was when it
// was seen last: one write, if nobody else has changed it since, else another attempt with what the
// refusal has shown. Callers of one cell take turns, so that they are not in each other's way.
type cell struct {
	n    *coterie.Node
	key  string
	turn chan coterie.KeyValue // has what was seen last, unless somebody's turn is on
}

func newCell(n *coterie.Node, key string) *cell {
	c := &cell{n: n, key: key, turn: make(chan coterie.KeyValue, 1)}
	c.turn <- c.found(nil) // a guess, which is right for a new cell
	return c
}

// found returns what a read has shown: 0, if there is nothing.
func (c *cell) found(kvs []coterie.KeyValue) coterie.KeyValue {
	if len(kvs) == 0 {
		return coterie.KeyValue{Key: c.key, Value: "0"}
	}
	return kvs[0]
}

// update changes the number to what change makes of it, with the operations that it wants done at
// the same time, and returns it. An error of change is returned only if it is of the present
// number.
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
		was, refused := number(seen)
		if refused == nil {
			is, ops, refused = change(was)
		}
		val := strconv.FormatInt(is, 10)
		if refused == nil {
			ops = append(ops, coterie.OpPut(c.key, val))
		}
		same := coterie.Compare(coterie.ModRevision(c.key), "=", seen.ModRevision)
		r, err := c.n.Txn(ctx).If(same).Then(ops...).Else(coterie.OpGet(c.key)).Commit()
		switch {
		case err != nil:
			return 0, err
		case r.Succeeded && refused != nil:
			return 0, refused
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
