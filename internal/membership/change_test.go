// SPDX-License-Identifier: Apache-2.0

package membership

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/wire"
)

func TestChangeObjection(t *testing.T) {
	first := run.Line{}.Next(run.Number{}, 11)
	second := first.Next(run.Number{}, 12)
	enroll := func(incarnation, since uint64, runs run.Line) Change {
		return Change{Kind: Enroll, ID: 1, Name: "a", Addr: "a:1", Voter: true, Cluster: "c", Incarnation: incarnation, Since: since, Runs: runs}
	}
	inMemory := enroll(8, 0, first)
	inMemory.InMemory = true
	stranger := enroll(7, 0, first)
	stranger.Cluster = "other"
	add := Change{Kind: Add, ID: 1, Name: "a", Addr: "a:1", Voter: true}

	server := state.Server{ID: 1, Addr: "a:1"}
	added := &state.Member{Server: server, Name: "a", Wanted: true}
	started := &state.Member{Server: server, Name: "a", Wanted: true, Incarnation: 7, Run: first.Now()}
	again := &state.Member{Server: server, Name: "a", Wanted: true, Incarnation: 7, Run: second.Now()}
	empty := &state.Member{Server: server, Name: "a", Wanted: true, Run: run.Void}
	moved := &state.Member{Server: state.Server{ID: 1, Addr: "b:1"}, Name: "a", Wanted: true}
	for name, test := range map[string]struct {
		Change
		member *state.Member
		silent bool
		want   error
	}{
		"a new node":                        {enroll(7, 0, first), nil, false, nil},
		"a node of another cluster":         {stranger, nil, false, fault.ErrClusterMismatch},
		"a node that was removed":           {enroll(7, 3, first), nil, false, fault.ErrMemberNotFound},
		"a node that was added":             {enroll(7, 0, first), added, false, nil},
		"a new node on an empty directory":  {enroll(7, 0, first), empty, false, nil},
		"a removed node, added as empty":    {enroll(7, 3, first), empty, false, fault.ErrMemberNotFound},
		"a removed node, added again":       {enroll(7, 3, first), added, false, nil},
		"adding it again, as empty":         {add, empty, false, nil},
		"a node on record":                  {enroll(7, 3, first), started, false, nil},
		"its next run":                      {enroll(7, 3, second), started, false, nil},
		"a copy of its directory":           {enroll(7, 3, first), again, false, fault.ErrDirMismatch},
		"another directory":                 {enroll(8, 0, first), started, true, fault.ErrDirMismatch},
		"a node in memory that comes back":  {inMemory, started, true, nil},
		"a node in memory beside the first": {inMemory, started, false, fault.ErrDirMismatch},
		"adding a new member":               {add, nil, false, nil},
		"adding it again":                   {add, added, false, nil},
		"adding it elsewhere":               {add, moved, false, fault.ErrMemberExists},
		"adding a member that was started":  {add, started, false, fault.ErrMemberExists},
	} {
		var m state.Member
		if test.member != nil {
			m = *test.member
		}
		err := test.Objection("c", m, test.member != nil, func() bool { return test.silent })
		if test.want == nil {
			require.NoError(t, err, name)
		} else {
			require.ErrorIs(t, err, test.want, name)
		}
	}
}

func TestChangesAreEncoded(t *testing.T) {
	c := &Change{
		Kind: Enroll, ID: 1, Name: "a", Addr: "a:1", Voter: true, Cluster: "c", Incarnation: 7, Since: 3,
		Runs: run.Line{}.Next(run.Number{}, 11), InMemory: true,
		Start: 1 << 63, Metadata: map[string]string{"zone": "eu-1", "gone": ""}, Blank: true, Empty: true,
	}
	read, err := ReadChange(c.Append(nil))
	require.NoError(t, err)
	require.Equal(t, c, read)

	for _, m := range []map[string]string{nil, {}} { // the first leaves metadata alone, the second removes it
		read, err := ReadChange((&Change{Kind: Enroll, Metadata: m}).Append(nil))
		require.NoError(t, err)
		require.Equal(t, m, read.Metadata)
	}
	_, err = ReadChange([]byte("\x19\x01\xff"))
	require.ErrorIs(t, err, wire.ErrMalformed)

	a := Admission{Cluster: 1, Index: 2, Term: 3}
	again, err := ReadAdmission(a.Append(nil))
	require.NoError(t, err)
	require.Equal(t, a, again)

	p := Pong{Member: 1, New: true, Gathered: true, Incarnation: 7, Run: run.Number{Count: 2, Draw: 12}, Forgotten: true}
	pong, err := ReadPong(p.Append(nil))
	require.NoError(t, err)
	require.Equal(t, p, pong)
}
