// SPDX-License-Identifier: Apache-2.0

package membership

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTrustMayAnswer(t *testing.T) {
	const foundingIndex = 2 // at which the log of a founder ends
	vote := func(from, term uint64) Request { return Request{Since: from, Vote: true, Term: term} }
	entries := func(from, term uint64) Request { return Request{Since: from, Term: term} }
	elect := func(from uint64) Request { return Request{Since: from, Elect: true} }
	const founder, member = 0, 3 // the senders' Since

	alone := Trust{Founding: true, Last: foundingIndex}
	fresh := Trust{Gathered: true, Founding: true, Last: foundingIndex}
	refused := Trust{Gathered: true, Founding: true, Last: foundingIndex, Forgotten: true}
	elector := Trust{Gathered: true, Founding: true, Elected: true, Last: foundingIndex}
	refusedElector := Trust{Gathered: true, Founding: true, Elected: true, Forgotten: true, Last: foundingIndex}
	participant := Trust{Last: 5}
	onRecord := Trust{Since: 9, Last: 5} // with its first directory
	behind := Trust{Since: 9, Floor: 4, Last: 8}
	caughtUp := Trust{Since: 9, Floor: 4, Last: 9}
	for name, test := range map[string]struct {
		Trust
		Request
		want bool
	}{
		"a vote before it has met all founders":          {alone, vote(founder, 2), false},
		"a founding vote":                                {fresh, vote(founder, 2), true},
		"a vote for a member on record":                  {fresh, vote(member, 2), false},
		"a founding vote after a refusal":                {refused, vote(founder, 2), false},
		"entries of a leader without its vote":           {fresh, entries(founder, 2), false},
		"entries of later terms":                         {fresh, entries(member, 100), false},
		"to lead":                                        {fresh, elect(member), false},
		"entries of a leader with its vote":              {elector, entries(founder, 2), true},
		"another founding vote":                          {elector, vote(founder, 3), true},
		"to lead the founding":                           {elector, elect(founder), false},
		"entries of a leader with its vote, but refused": {refusedElector, entries(founder, 2), false},
		"entries in the founding":                        {participant, entries(founder, 2), true},
		"a vote in the founding":                         {participant, vote(member, 3), true},
		"a vote of a node that has its data":             {onRecord, vote(member, 3), true},
		"entries of an earlier leader":                   {behind, entries(member, 3), false},
		"entries of the leader that put it on record":    {behind, entries(member, 4), true},
		"a vote of a node that lags behind":              {behind, vote(member, 9), false},
		"to lead without having caught up":               {behind, elect(member), false},
		"a vote in the term in which it joined":          {caughtUp, vote(member, 4), false},
		"a vote later":                                   {caughtUp, vote(member, 5), true},
		"to lead later":                                  {caughtUp, elect(member), true},
		"entries of an earlier leader, still":            {caughtUp, entries(member, 3), false},
	} {
		require.Equal(t, test.want, test.MayAnswer(test.Request), name)
	}
}
