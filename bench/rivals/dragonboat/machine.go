// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"

	"github.com/lni/dragonboat/v4/statemachine"

	"github.com/coterie-kv/coterie/bench/rivals"
)

// A machine is the state machine of a replica. Dragonboat calls Lookup and SaveSnapshot while it calls Update.
type machine struct{ table rivals.Table }

func newMachine(_, _ uint64) statemachine.IConcurrentStateMachine { return new(machine) }

func (m *machine) Update(entries []statemachine.Entry) ([]statemachine.Entry, error) {
	for _, e := range entries {
		if err := m.table.Apply(e.Cmd); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// A query is the argument of Lookup: a key, and the value that it should have.
type query struct{ key, want string }

func (m *machine) Lookup(q any) (any, error) {
	asked := q.(*query)
	return nil, m.table.Check(asked.key, asked.want)
}

func (m *machine) PrepareSnapshot() (any, error) { return m.table.Copy(), nil }

func (m *machine) SaveSnapshot(s any, w io.Writer, _ statemachine.ISnapshotFileCollection, _ <-chan struct{}) error {
	return s.(*rivals.Table).Save(w)
}

func (m *machine) RecoverFromSnapshot(r io.Reader, _ []statemachine.SnapshotFile, _ <-chan struct{}) error {
	return m.table.Load(r)
}

func (*machine) Close() error { return nil }
