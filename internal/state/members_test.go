// SPDX-License-Identifier: Apache-2.0

package state

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/run"
)

// enroll applies an enrollment in an entry of term 1.
func (m *machine) enroll(e command.Enroll) {
	m.Helper()
	require.Empty(m, m.propose(command.Proposal{Command: command.Command{Enroll: &e}}))
}

func TestMembersFollowConfiguration(t *testing.T) {
	m := start(t)
	m.Configure(5, []Server{{ID: 2, Addr: "b:1", Voter: true}, {ID: 1, Addr: "a:1", Voter: true}})
	m.enroll(command.Enroll{ID: 1, Name: "a", Addr: "a:2", Incarnation: 7, Voter: true, Term: 1})
	before := m.View()
	a := Member{Server: Server{ID: 1, Addr: "a:2", Voter: true}, Name: "a", Incarnation: 7, Wanted: true}
	b := Member{Server: Server{ID: 2, Addr: "b:1", Voter: true}}
	require.Equal(t, Members{a, b}, before.Members)
	require.Equal(t, 2, before.Members.Voters())

	m.enroll(command.Enroll{ID: 3, Name: "c", Term: 1})
	m.enroll(command.Enroll{ID: 2, Name: "late", Term: 2})
	require.Equal(t, before.Members, m.View().Members, "enrollments of non-members and of other terms have no effect")

	m.Configure(m.View().Index, nil)
	require.Equal(t, before.Members, m.View().Members, "an entry that was applied before")
	m.Configure(m.View().Index+1, []Server{{ID: 1, Addr: "a:1"}})
	a.Voter = false
	require.Equal(t, Members{a}, m.View().Members, "the record stays")
	require.Equal(t, 2, len(before.Members), "a view does not change")

	m.Configure(m.View().Index+1, nil)
	m.Configure(m.View().Index+1, []Server{{ID: 1, Addr: "a:1"}})
	require.Equal(t, Members{{Server: Server{ID: 1, Addr: "a:1"}}}, m.View().Members, "a returning member has no record")
}

func TestFirstEpochStays(t *testing.T) {
	m := start(t)
	for _, epoch := range []uint64{0, 5, 6} {
		m.do(command.Command{Term: true, Epoch: epoch})
	}
	require.EqualValues(t, 5, m.View().Epoch)
}

func TestMembersAreInTheHash(t *testing.T) {
	hash := func(do func(m *machine)) uint64 {
		m := start(t)
		m.Configure(2, []Server{{ID: 1}})
		do(m)
		return m.View().Hash
	}
	seen := map[uint64]string{}
	for name, do := range map[string]func(m *machine){
		"nothing":      func(*machine) {},
		"voter":        func(m *machine) { m.Configure(3, []Server{{ID: 1, Voter: true}}) },
		"another":      func(m *machine) { m.Configure(3, []Server{{ID: 2}}) },
		"no member":    func(m *machine) { m.Configure(3, nil) },
		"wanted":       func(m *machine) { m.enroll(command.Enroll{ID: 1, Voter: true, Term: 1}) },
		"an address":   func(m *machine) { m.enroll(command.Enroll{ID: 1, Addr: "a", Term: 1}) },
		"a name":       func(m *machine) { m.enroll(command.Enroll{ID: 1, Name: "a", Term: 1}) },
		"incarnation":  func(m *machine) { m.enroll(command.Enroll{ID: 1, Incarnation: 1, Term: 1}) },
		"founding":     func(m *machine) { m.do(command.Command{Term: true, Epoch: 1}) },
		"two voters":   func(m *machine) { m.Configure(3, []Server{{ID: 1, Voter: true}, {ID: 2, Voter: true}}) },
		"without name": func(m *machine) { m.Configure(3, []Server{{ID: 3}}) },
	} {
		h := hash(do)
		require.Empty(t, seen[h], "%s hashes as %s", name, seen[h])
		seen[h] = name
	}
}

func TestJudge(t *testing.T) {
	m := start(t)
	m.Configure(20, []Server{{ID: 1}, {ID: 2}})
	m.enroll(command.Enroll{ID: 1, Incarnation: 7, Term: 1})
	v := m.View()
	for _, test := range []struct {
		id, incarnation, since uint64
		want                   Standing
	}{
		{1, 7, 0, Welcome},
		{1, 7, 21, Welcome},
		{1, 8, 0, Forgotten},
		{1, 8, 21, Forgotten}, // it was replaced
		{1, 8, 22, Welcome},   // its record is newer than this state
		{2, 8, 0, Welcome},    // its data is not on record
		{3, 8, 0, Stranger},
		{3, 8, 21, Removed},
		{3, 8, 22, Welcome},
	} {
		require.Equal(t, test.want, v.Judge(test.id, test.incarnation, test.since, run.Line{}), "%+v", test)
	}
}

func TestJudgeByRunOnRecord(t *testing.T) {
	first := run.Line{}.Next(run.Number{}, 11)
	second := first.Next(first.Now(), 12)
	m := start(t)
	m.Configure(20, []Server{{ID: 1}})
	m.enroll(command.Enroll{ID: 1, Incarnation: 7, Run: second.Now(), Term: 1})
	require.Equal(t, Welcome, m.View().Judge(1, 7, 3, second))
	require.Equal(t, Welcome, m.View().Judge(1, 7, 3, second.Next(second.Now(), 13)))
	require.Equal(t, Welcome, m.View().Judge(1, 7, 3, run.Line{}), "a node that does not number runs")
	require.Equal(t, Forgotten, m.View().Judge(1, 7, 3, first))
	require.Equal(t, Forgotten, m.View().Judge(1, 7, 3, first.Next(first.Now(), 13)))
	require.Equal(t, Welcome, m.View().Judge(1, 7, 22, first), "this state may be old")
}

func TestJudgeOfMemberThatNeedsEmptyDirectory(t *testing.T) {
	first := run.Line{}.Next(run.Number{}, 11)
	m := start(t)
	m.Configure(20, []Server{{ID: 1}})
	m.enroll(command.Enroll{ID: 1, Run: run.Void, Term: 1})
	require.Equal(t, Welcome, m.View().Judge(1, 7, 0, first), "a new node")
	require.Equal(t, Removed, m.View().Judge(1, 7, 3, first), "it was on record before")
	require.Equal(t, Welcome, m.View().Judge(1, 7, 22, first), "this state may be old")
	m.enroll(command.Enroll{ID: 1, Incarnation: 7, Run: first.Now(), Term: 1})
	require.Equal(t, Welcome, m.View().Judge(1, 7, 21, first))
	require.Equal(t, Forgotten, m.View().Judge(1, 6, 3, first))
}

func TestMembersOutOfOrderAreCorrupt(t *testing.T) {
	in := &restore{state: New()}
	m := Member{Server: Server{ID: 3}}
	require.NoError(t, in.addMember(m.append(nil)))
	require.ErrorIs(t, in.addMember(m.append(nil)), errSnapshot)
}
