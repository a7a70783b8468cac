// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot

import (
	"cmp"
	"slices"

	"github.com/coterie-kv/coterie"
)

// maxBump is the largest raise. It leaves enough numbers for later revisions.
const maxBump = 1 << 60

// bump returns contents with a revision that is higher by an amount of at most maxBump, and with a compacted history.
func bump(c *coterie.Contents, by uint64) (*coterie.Contents, error) {
	revision := c.Revision() + int64(by)
	b, err := coterie.NewContentsBuilder(revision, revision)
	if err != nil {
		return nil, err
	}
	for l := range c.Leases() {
		if err := b.AddLease(l); err != nil {
			return nil, err
		}
	}
	current := map[string]coterie.KeyValue{}
	for kv := range c.Versions() {
		if kv.Version == 0 {
			delete(current, kv.Key)
		} else {
			current[kv.Key] = kv
		}
	}
	sorted := make([]coterie.KeyValue, 0, len(current))
	for _, kv := range current {
		sorted = append(sorted, kv)
	}
	slices.SortFunc(sorted, func(a, b coterie.KeyValue) int { return cmp.Compare(a.Key, b.Key) })
	for _, kv := range sorted {
		if err := b.AddVersion(kv); err != nil {
			return nil, err
		}
	}
	if err := b.SetAuth(c.Auth()); err != nil {
		return nil, err
	}
	return b.Contents()
}
