// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

func TestDoAnswersLikeTheMethods(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		do := func(op coterie.Op) coterie.OpResponse {
			r, err := n.Do(ctx, op)
			require.NoError(t, err)
			return r
		}
		r := do(coterie.OpPut("k", "1"))
		require.Equal(t, coterie.OpResponse{Put: &coterie.PutResponse{Header: r.Put.Header}}, r)
		require.EqualValues(t, 2, r.Put.Revision)
		require.Equal(t, n.ID(), r.Put.MemberID)

		for _, opts := range [][]coterie.GetOption{
			nil, {coterie.WithSerializable()}, {coterie.WithWaitRevision(2)}, {coterie.WithRevision(1)}, {coterie.WithCountOnly()},
			{coterie.WithPrefix(), coterie.WithSort(coterie.SortByValue, coterie.SortDescend)},
		} {
			want, err := n.Get(ctx, "k", opts...)
			require.NoError(t, err)
			require.Equal(t, coterie.OpResponse{Get: want}, do(coterie.OpGet("k", opts...)))
		}

		r = do(coterie.OpTxn([]coterie.Comparison{coterie.Compare(coterie.Value("k"), coterie.Equal, "1")},
			[]coterie.Op{coterie.OpPut("k", "2", coterie.WithPrevKV()), coterie.OpTxn(nil, []coterie.Op{coterie.OpGet("k")}, nil)}, nil))
		require.True(t, r.Txn.Succeeded)
		require.Equal(t, "1", r.Txn.Responses[0].Put.PrevKV.Value)
		require.Equal(t, "2", r.Txn.Responses[1].Txn.Responses[0].Get.KVs[0].Value)

		local := []coterie.Op{coterie.OpGet("k", coterie.WithSerializable())}
		require.Equal(t, "2", do(coterie.OpTxn(nil, local, nil)).Txn.Responses[0].Get.KVs[0].Value)

		r = do(coterie.OpDelete("", coterie.WithPrefix(), coterie.WithPrevKV()))
		require.EqualValues(t, 1, r.Delete.Deleted)
		require.Equal(t, "2", r.Delete.PrevKVs[0].Value)
	})
}

func TestDoRejectsLikeTheMethods(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.MaxTxnOps = 1 })
	two := []coterie.Op{coterie.OpGet("k"), coterie.OpGet("l")}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for name, c := range map[string]struct {
		op  coterie.Op
		err error
	}{
		"no function": {coterie.Op{}, coterie.ErrInvalidOption},
		"empty put":   {coterie.OpPut("", ""), coterie.ErrEmptyKey},
		"empty get":   {coterie.OpGet(""), coterie.ErrEmptyKey},
		"empty del":   {coterie.OpDelete(""), coterie.ErrEmptyKey},
		"lease":       {coterie.OpPut("k", "", coterie.WithLease(9)), coterie.ErrLeaseNotFound},
		"future":      {coterie.OpGet("k", coterie.WithRevision(99)), coterie.ErrFutureRevision},
		"txn":         {coterie.OpTxn(nil, two, nil), coterie.ErrTooManyOps},
		"nested wait": {coterie.OpTxn(nil, []coterie.Op{coterie.OpGet("k", coterie.WithWaitRevision(1))}, nil), coterie.ErrInvalidOption},
		"waits":       {coterie.OpGet("k", coterie.WithWaitRevision(99)), context.DeadlineExceeded},
	} {
		_, err := n.Do(ctx, c.op)
		if c.err != context.DeadlineExceeded {
			_, err = n.Do(t.Context(), c.op)
		}
		require.ErrorIs(t, err, c.err, name)
	}
	require.EqualValues(t, 1, n.Status().Revision)
}
