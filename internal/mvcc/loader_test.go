// SPDX-License-Identifier: Apache-2.0

package mvcc

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The versions are of a store at revision 5 that is compacted to revision 4.
func TestLoaderRejectsImpossibleVersions(t *testing.T) {
	put := func(key string, rev int64) KeyValue {
		return KeyValue{Key: key, CreateRevision: rev, ModRevision: rev, Version: 1}
	}
	tombstone := func(key string, rev int64) KeyValue { return KeyValue{Key: key, ModRevision: rev} }
	base := put("b", 2)
	for name, c := range map[string]struct {
		versions []KeyValue
		rejects  bool // the last one
	}{
		"a base in order":                      {[]KeyValue{base, put("c", 3)}, false},
		"a base out of order":                  {[]KeyValue{base, put("a", 3)}, true},
		"a key twice in the base":              {[]KeyValue{base, put("b", 3)}, true},
		"a tombstone in the base":              {[]KeyValue{base, tombstone("c", 3)}, true},
		"a base after a change":                {[]KeyValue{put("c", 4), base}, true},
		"a tombstone of a compacted version":   {[]KeyValue{base, tombstone("c", 4)}, false},
		"two tombstones of one key":            {[]KeyValue{base, tombstone("c", 4), tombstone("c", 4)}, true},
		"a tombstone that deletes nothing":     {[]KeyValue{put("c", 4), tombstone("d", 5)}, true},
		"a tombstone with a value":             {[]KeyValue{base, {Key: "b", Value: "v", ModRevision: 4}}, true},
		"a tombstone with a lease":             {[]KeyValue{base, {Key: "b", Lease: 1, ModRevision: 4}}, true},
		"a version that follows no other":      {[]KeyValue{base, {Key: "b", CreateRevision: 2, ModRevision: 4, Version: 3}}, true},
		"a version of another creation":        {[]KeyValue{base, {Key: "b", CreateRevision: 3, ModRevision: 4, Version: 2}}, true},
		"a revision beyond that of the loader": {[]KeyValue{put("c", 4), put("c", 6)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLoader(5, 4)
			for i, kv := range c.versions {
				err := l.Add(kv)
				require.Equal(t, c.rejects && i == len(c.versions)-1, err != nil, "%v", err)
			}
		})
	}
}
