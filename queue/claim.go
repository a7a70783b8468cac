// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/coterie-kv/coterie"
)

// alternatives is the number of items that a claim names. The claim takes the first of them that still waits when the
// write is applied. So consumers that read the same line at the same moment usually need one write each, instead of
// all but one failing.
const alternatives = 8

// claim claims the first of some items that still waits, and returns nil if none does. If ctx ends before the outcome
// is known, a claimed item is given back later.
func (q *Queue) claim(ctx context.Context, ids []string) (*Item, error) {
	mark := q.mark()
	var undo []coterie.Op
	for _, id := range ids {
		ours := coterie.Compare(coterie.Value(q.keys.claims+id), "=", mark)
		undo = append(undo, coterie.OpTxn([]coterie.Comparison{ours}, q.release(id), nil))
	}
	cond, then, els := q.choice(ids, mark)
	r, err := q.s.CommitOrUndo(q.s.Node().Txn(ctx).If(cond...).Then(then...).Else(els...), undo...)
	if err != nil {
		return nil, err
	}
	for at := r; len(ids) > 0; ids = ids[1:] {
		if at.Succeeded {
			return q.item(ctx, ids[0], r.Revision)
		}
		if len(at.Responses) > 0 {
			at = at.Responses[0].Txn
		}
	}
	return nil, nil
}

// mark returns the value of a claim. It names the consumer, and no other claim has the same value.
func (q *Queue) mark() string {
	b, err := json.Marshal(struct {
		coterie.Holder
		Mark string `json:"mark"`
	}{coterie.NewHolder(q.s.Node()), fmt.Sprintf("%016x", rand.Uint64())})
	if err != nil {
		return fmt.Sprintf("%016x", rand.Uint64()) // the year is outside the range of JSON
	}
	return string(b)
}

// choice returns the branches of a transaction that claims the first of some items that waits.
func (q *Queue) choice(ids []string, mark string) (cond []coterie.Comparison, then, els []coterie.Op) {
	id := ids[0]
	if len(ids) > 1 {
		els = []coterie.Op{coterie.OpTxn(q.choice(ids[1:], mark))}
	}
	return []coterie.Comparison{present(q.keys.line + id)}, []coterie.Op{
		coterie.OpDelete(q.keys.line + id),
		coterie.OpPut(q.keys.claims+id, mark, coterie.WithLease(q.s.Lease())),
	}, els
}

// release returns the operations that give an item back, to its old place.
func (q *Queue) release(id string) []coterie.Op {
	return []coterie.Op{coterie.OpDelete(q.keys.claims + id), coterie.OpPut(q.keys.line+id, "")}
}

// mend returns items to the line that have neither a claim nor a place in the line, because the lease of their
// consumer has ended. It may leave some of them to the next call.
func (q *Queue) mend(ctx context.Context) error {
	keys := func(prefix string) coterie.Op {
		return byID(prefix, coterie.WithKeysOnly(), coterie.WithSerializable())
	}
	r, err := q.s.Node().Txn(ctx).Then(keys(q.keys.items), keys(q.keys.claims), keys(q.keys.line)).Commit()
	if err != nil {
		return err
	}
	held := map[string]bool{}
	for i, prefix := range []string{q.keys.claims, q.keys.line} {
		for _, kv := range r.Responses[i+1].Get.KVs {
			held[strings.TrimPrefix(kv.Key, prefix)] = true
		}
	}
	var back []coterie.Op
	for _, kv := range r.Responses[0].Get.KVs {
		if id := strings.TrimPrefix(kv.Key, q.keys.items); !held[id] {
			// Several consumers notice this. The condition keeps the second one from waking all waiters again.
			gone := []coterie.Comparison{present(kv.Key), missing(q.keys.claims + id), missing(q.keys.line + id)}
			back = append(back, coterie.OpTxn(gone, []coterie.Op{coterie.OpPut(q.keys.line+id, "")}, nil))
		}
	}
	for ops := range slices.Chunk(back, int(q.most.Load())) {
		_, err := q.s.Node().Txn(ctx).Then(ops...).Commit()
		if q.shrink(err, len(ops)) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// present returns a condition that holds if the key exists.
func present(key string) coterie.Comparison {
	return coterie.Compare(coterie.CreateRevision(key), ">", 0)
}

// missing returns a condition that holds if the key does not exist.
func missing(key string) coterie.Comparison {
	return coterie.Compare(coterie.CreateRevision(key), "=", 0)
}

// byID reads the keys that consist of a prefix and an ID. An ID begins with a digit, so the result has no keys of a
// queue that has this prefix as its name, as "jobs/item" beside "jobs".
func byID(prefix string, opts ...coterie.GetOption) coterie.Op {
	return coterie.OpGet(prefix+"0", append(opts, coterie.WithRange(prefix+":"))...)
}

// count counts the keys that consist of a prefix and an ID.
func count(prefix string) coterie.Op { return byID(prefix, coterie.WithCountOnly()) }
