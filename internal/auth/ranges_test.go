// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
)

// roleOf returns a role that may read ranges, each a key and an end.
func roleOf(bounds ...string) *Role {
	var permissions []command.Permission
	for i := 0; i < len(bounds); i += 2 {
		permissions = append(permissions, command.Permission{Key: bounds[i], End: bounds[i+1]})
	}
	slices.SortFunc(permissions, comparePermissions)
	return newRole("r", permissions)
}

func TestRangesAreCoveredTogether(t *testing.T) {
	for name, c := range map[string]struct {
		roles    [][]string
		key, end string
		want     bool
	}{
		"nothing":                        {nil, "k", "", false},
		"the key":                        {[][]string{{"k", ""}}, "k", "", true},
		"another key":                    {[][]string{{"k", ""}}, "kk", "", false},
		"a key before":                   {[][]string{{"k", ""}}, "j", "", false},
		"a key as a range":               {[][]string{{"k", ""}}, "k", "k\x00", true},
		"a key of a range":               {[][]string{{"a", "c"}}, "b", "", true},
		"the first key of a range":       {[][]string{{"a", "c"}}, "a", "", true},
		"the end of a range":             {[][]string{{"a", "c"}}, "c", "", false},
		"the range":                      {[][]string{{"a", "c"}}, "a", "c", true},
		"more than the range":            {[][]string{{"a", "c"}}, "a", "c\x00", false},
		"adjacent":                       {[][]string{{"a", "c", "c", "e"}}, "b", "d", true},
		"overlapping":                    {[][]string{{"a", "d", "b", "e"}}, "a", "e", true},
		"one inside of another":          {[][]string{{"a", "e", "b", "c"}}, "a", "e", true},
		"a gap":                          {[][]string{{"a", "c", "c\x00", "e"}}, "b", "d", false},
		"a key fills the gap":            {[][]string{{"a", "c", "c", "", "c\x00", "e"}}, "b", "d", true},
		"adjacent in two roles":          {[][]string{{"a", "c"}, {"c", "e"}}, "b", "d", true},
		"alternating in two roles":       {[][]string{{"a", "b", "c", "d"}, {"b", "c", "d", "e"}}, "a", "e", true},
		"a gap in two roles":             {[][]string{{"a", "b"}, {"c", "d"}}, "a", "d", false},
		"from a key on":                  {[][]string{{"b", noEnd}}, "c", noEnd, true},
		"from a key on, before":          {[][]string{{"b", noEnd}}, "a", noEnd, false},
		"a range inside of from a key":   {[][]string{{"b", noEnd}}, "c", "d", true},
		"from a key on, of a range":      {[][]string{{"b", "z"}}, "c", noEnd, false},
		"all keys":                       {[][]string{{"\x00", noEnd}}, "\x00", noEnd, true},
		"joined with from a key on":      {[][]string{{"a", "c"}, {"b", noEnd}}, "a", noEnd, true},
		"nothing follows from a key on":  {[][]string{{"a", noEnd, "b", "c"}}, "x", noEnd, true},
		"empty, inside of a range":       {[][]string{{"a", "d"}}, "c", "b", true},
		"empty, beside a range":          {[][]string{{"a", "d"}}, "x", "b", false},
		"empty, from a range into a gap": {[][]string{{"b", "d"}}, "c", "a", false},
	} {
		s := &Store{}
		u := &User{}
		for i, bounds := range c.roles {
			r := roleOf(bounds...)
			r.Name = string(rune('a' + i))
			s.roles = append(s.roles, r)
			u.Roles = append(u.Roles, r.Name)
		}
		require.Equal(t, c.want, s.covers(u, command.Read, c.key, c.end), name)
		require.False(t, s.covers(u, command.Write, c.key, c.end), name)
	}
}

// Ranges of short keys are covered if each key up to a length is, since no bound has a longer key.
func TestCoverageAgreesWithSingleKeys(t *testing.T) {
	keys := []string{}
	for _, a := range "\x00ab" {
		for _, b := range "\x00ab" {
			for _, c := range "\x00ab" {
				keys = append(keys, string(a), string(a)+string(b), string(a)+string(b)+string(c))
			}
		}
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var bounds []string
		for range random.IntN(5) {
			key, end := keys[random.IntN(len(keys))], ""
			if random.IntN(3) > 0 {
				if end = keys[random.IntN(len(keys))]; end <= key {
					end = noEnd
				}
			}
			bounds = append(bounds, key, end)
		}
		r := roleOf(bounds...)
		s, u := &Store{roles: []*Role{r}}, &User{Roles: []string{"r"}}
		contains := func(key, end, k string) bool {
			return k == key || end != "" && k >= key && (end == noEnd || k < end)
		}
		permitted := func(k string) bool {
			for i := 0; i < len(bounds); i += 2 {
				if contains(bounds[i], bounds[i+1], k) {
					return true
				}
			}
			return false
		}
		key, end := keys[random.IntN(len(keys))], ""
		if random.IntN(3) > 0 {
			end = keys[random.IntN(len(keys))]
		}
		if end != "" && end != noEnd && end <= key {
			continue
		}
		want := true
		for _, k := range append(keys, "\xff", "\xff\xff") {
			// Between two keys of the list there are others: their prefixes with a zero.
			for _, k := range []string{k, k + "\x00", k + "\x01"} {
				want = want && (!contains(key, end, k) || permitted(k))
			}
		}
		require.Equal(t, want, s.covers(u, command.Read, key, end), "%q: %q to %q", bounds, key, end)
	}
}
