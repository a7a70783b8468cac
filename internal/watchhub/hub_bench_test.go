// SPDX-License-Identifier: Apache-2.0

package watchhub

import (
	"fmt"
	"testing"
)

// BenchmarkNotify notifies the watchers of a key, beside watchers of other keys and ranges.
func BenchmarkNotify(b *testing.B) {
	for _, c := range []struct{ watchers, others int }{{1, 0}, {1000, 0}, {0, 100_000}, {1, 100_000}} {
		b.Run(fmt.Sprintf("Watchers=%d/Others=%d", c.watchers, c.others), func(b *testing.B) {
			h := NewHub(0)
			var watchers []*Watcher
			for range c.watchers {
				watchers = append(watchers, add(h, "key", ""))
			}
			for i := range c.others / 2 {
				add(h, fmt.Sprint("other", i), "")
				add(h, fmt.Sprint("other", i), fmt.Sprint("other", i+1))
			}
			b.ReportAllocs()
			rev := int64(0)
			for b.Loop() {
				rev++
				h.Notify([]Change{{rev, "key"}})
				for _, w := range watchers {
					<-w.Wake()
					w.Take()
				}
			}
		})
	}
}
