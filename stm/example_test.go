// SPDX-License-Identifier: Apache-2.0

package stm_test

import (
	"context"
	"fmt"
	"log"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/stm"
)

// The function swaps the values of two keys. The key of the order makes it happen once, although Run is called twice, as
// it must be after coterie.ErrMaybeApplied.
func ExampleRun() {
	ctx := context.Background()
	n, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()

	swap := func(tx *stm.Tx) error {
		if _, done, err := tx.Get("orders/17"); done || err != nil {
			return err
		}
		left, _, err := tx.Get("seats/left")
		if err != nil {
			return err
		}
		right, _, err := tx.Get("seats/right")
		if err != nil {
			return err
		}
		for key, val := range map[string]string{"seats/left": right, "seats/right": left, "orders/17": "done"} {
			if err := tx.Put(key, val); err != nil {
				return err
			}
		}
		return nil
	}
	for key, val := range map[string]string{"seats/left": "alice", "seats/right": "bob"} {
		if _, err := n.Put(ctx, key, val); err != nil {
			log.Fatal(err)
		}
	}
	for range 2 {
		if _, err := stm.Run(ctx, n, swap); err != nil {
			log.Fatal(err)
		}
	}
	got, err := n.Get(ctx, "seats/", coterie.WithPrefix())
	if err != nil {
		log.Fatal(err)
	}
	for _, kv := range got.KVs {
		fmt.Println(kv.Key, kv.Value)
	}
	// Output:
	// seats/left bob
	// seats/right alice
}
