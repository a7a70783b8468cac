// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

// Settings is a part of an application that takes an interface, so that a test can give it a fake.
type settings struct{ kv coterie.KV }

func (s settings) limit(ctx context.Context) string {
	r, err := s.kv.Get(ctx, "limit")
	switch {
	case err != nil:
		return "unknown: " + err.Error()
	case len(r.KVs) == 0:
		return "unlimited"
	}
	return r.KVs[0].Value
}

func (s settings) lower(ctx context.Context, to string) error {
	r, err := s.kv.Txn(ctx).If(coterie.Compare(coterie.Value("limit"), coterie.Greater, to)).Then(coterie.OpPut("limit", to)).Commit()
	if err == nil && !r.Succeeded {
		err = errors.New("the limit is not higher")
	}
	return err
}

// A fakeKV answers each call with what a test wants. It embeds the interface, so that only the methods
// in use need code.
type fakeKV struct {
	coterie.KV
	get *coterie.GetResponse
	do  coterie.OpResponse
	err error
}

func (f *fakeKV) Get(context.Context, string, ...coterie.GetOption) (*coterie.GetResponse, error) {
	return f.get, f.err
}

func (f *fakeKV) Do(context.Context, coterie.Op) (coterie.OpResponse, error) { return f.do, f.err }

func (f *fakeKV) Txn(ctx context.Context) *coterie.Txn { return coterie.NewTxn(ctx, f) }

// Code that takes a KV, and not a *Node, works with a node, with a namespace, and with a fake.
func ExampleKV() {
	ctx := context.Background()
	n := openExample(ctx)
	defer n.Close()
	if _, err := n.Put(ctx, "orders/limit", "20"); err != nil {
		log.Fatal(err)
	}
	orders := settings{coterie.NewNamespace(n, "orders/")}
	fmt.Println(orders.limit(ctx), orders.lower(ctx, "10"), orders.limit(ctx))

	broken := settings{&fakeKV{err: coterie.ErrNoLeader}}
	fmt.Println(broken.limit(ctx))
	refusing := settings{&fakeKV{do: coterie.OpResponse{Txn: &coterie.TxnResponse{Succeeded: false}}}}
	fmt.Println(refusing.lower(ctx, "10"))
	// Output:
	// 20 <nil> 10
	// unknown: coterie: no leader
	// the limit is not higher
}

func TestTxnOfAFakeThatAnswersWrongly(t *testing.T) {
	f := &fakeKV{do: coterie.OpResponse{Put: &coterie.PutResponse{}}}
	require.ErrorIs(t, errOf(f.Txn(t.Context()).Commit()), coterie.ErrInvalidOption)
	f.err = coterie.ErrClosed
	require.ErrorIs(t, errOf(f.Txn(t.Context()).Commit()), coterie.ErrClosed)
	require.ErrorIs(t, errOf(coterie.NewTxn(t.Context(), nil).Commit()), coterie.ErrInvalidOption)
}
