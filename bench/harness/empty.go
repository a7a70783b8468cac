// SPDX-License-Identifier: Apache-2.0

package harness

import "context"

// OpenEmpty opens a system that keeps nothing: each call returns at once, without an error. It shows the time that the
// harness itself takes for a call.
func OpenEmpty(context.Context, Setup) (*System, error) {
	return &System{
		Stores: []Store{emptyStore{}}, Durability: "none: nothing is stored", Close: func() error { return nil },
	}, nil
}

type emptyStore struct{}

func (emptyStore) Put(context.Context, string, string) error       { return nil }
func (emptyStore) Get(context.Context, string, string, bool) error { return nil }
