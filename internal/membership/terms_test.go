// SPDX-License-Identifier: Apache-2.0

package membership

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTermsDifference(t *testing.T) {
	own := Terms{"c", []Founder{{"a", "a:1"}, {"b", "b:1"}}}
	others := Terms{"c", []Founder{{"b", "b:2"}, {"d", "d:1"}}}
	const differences = "a a:1 is here alone, b is b:1 here and b:2 there, d d:1 is there alone"
	exists := `cluster "c" exists already, and Config.Founders is for founding one: a new node, with an empty directory, needs Config.Join`
	for name, test := range map[string]struct {
		other          Terms
		founded, isNew bool
		want           string
	}{
		"another name":       {Terms{Cluster: "x"}, true, true, `the node is of cluster "x", this one of "c" (Config.Cluster)`},
		"the same":           {own, true, false, ""},
		"other founders":     {others, false, true, "Config.Founders differs: " + differences},
		"unknown founders":   {Terms{Cluster: "c"}, true, false, ""},
		"a founded cluster":  {own, true, true, exists},
		"founded by others":  {others, true, true, exists + "; Config.Founders differs from the founders: " + differences},
		"founded by unknown": {Terms{Cluster: "c"}, true, true, exists},
	} {
		require.Equal(t, test.want, own.Difference(test.other, test.founded, test.isNew), name)
	}
}

func TestTermsAreEncoded(t *testing.T) {
	terms := Terms{"c", []Founder{{"a", "a:1"}, {"b", "b:1"}}}
	b := terms.Append(nil, 100)
	read, err := ReadTerms(b)
	require.NoError(t, err)
	require.Equal(t, terms, read)
	for n := 1; n < len(b); n++ {
		if read, err := ReadTerms(b[:n]); err == nil {
			require.Less(t, len(read.Founders), 2)
		}
	}
	read, err = ReadTerms(terms.Append(nil, len(b)-1))
	require.NoError(t, err)
	require.Equal(t, Terms{Cluster: "c"}, read, "the founders do not fit")
}
