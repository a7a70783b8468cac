// SPDX-License-Identifier: Apache-2.0

package datadir

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

// Nothing is lost only if a majority of voters has a directory that was inspected and that has everything its
// member acknowledged.
func TestNothingLostNeedsAMajority(t *testing.T) {
	voter := func(id coterie.MemberID) Member { return Member{ID: id, Voter: true, Incarnation: ID(id)} }
	of := func(id coterie.MemberID) Inspection { return Inspection{Member: id, Incarnation: ID(id)} }
	changed := func(in Inspection, change func(*Inspection)) Inspection { change(&in); return in }
	three := []Member{voter(1), voter(2), voter(3)}
	for name, c := range map[string]struct {
		members   []Member
		survivors []Inspection
		inspected int
		complete  bool
	}{
		"alone":             {three[:1], nil, 1, true},
		"one of two":        {three[:2], nil, 1, false},
		"one of three":      {three, nil, 1, false},
		"itself again":      {three, []Inspection{of(1)}, 1, false},
		"one twice":         {append(three, voter(4), voter(5)), []Inspection{of(2), of(2)}, 2, false},
		"two of three":      {three, []Inspection{of(2)}, 2, true},
		"two of four":       {append(three, voter(4)), []Inspection{of(2)}, 2, false},
		"three of four":     {append(three, voter(4)), []Inspection{of(2), of(4)}, 3, true},
		"a stranger":        {three, []Inspection{of(9)}, 1, false},
		"without a vote":    {append(three, Member{ID: 4}), []Inspection{of(4)}, 1, false},
		"damaged":           {three, []Inspection{changed(of(2), func(in *Inspection) { in.DamagedFiles = []DamagedFile{{}} })}, 1, false},
		"may lack entries":  {three, []Inspection{changed(of(2), func(in *Inspection) { in.MayLackAcknowledged = true })}, 1, false},
		"another directory": {three, []Inspection{changed(of(2), func(in *Inspection) { in.Incarnation = 9 })}, 1, false},
		"not on record": {
			[]Member{voter(1), {ID: 2, Voter: true}, voter(3)}, []Inspection{of(2)}, 2, true,
		},
	} {
		rec := &recovery{in: &inspector{found: of(1)}, survivors: c.survivors}
		rec.in.found.Members = c.members
		rec.count()
		require.Equal(t, c.inspected, rec.done.InspectedVoters, name)
		require.Equal(t, c.complete, rec.done.NothingLost, name)
	}
}

func TestNextTermIsLaterThanEveryKnownTerm(t *testing.T) {
	rec := &recovery{in: &inspector{found: Inspection{Term: 5, LastTerm: 4}}}
	require.EqualValues(t, 6, rec.nextTerm())
	rec.survivors = []Inspection{{Term: 9}, {Term: 7}}
	require.EqualValues(t, 10, rec.nextTerm())
}
