// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The load of check perf lasts a minute, or until an interrupt. Its result depends on the machine, and is not compared.
func TestCheckPerf(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		whole := p.members == 3 && len(p.stores[0].flags) == 0
		for _, s := range p.stores {
			c := s.start(t, "", "check", "perf", "--load=s", "--auto-compact", "--auto-defrag")
			if c.limit = 3 * time.Minute; !whole {
				time.AfterFunc(2*time.Second, func() { c.interrupt(t) })
			}
			r := c.wait(t)
			require.Contains(t, []int{0, 1}, r.code, "%s: %v", s.name, r)
			require.Regexp(t, `(PASS|FAIL): Throughput`, r.stdout, "%s: %v", s.name, r)
			require.NotContains(t, r.stdout, "ERROR", "%s: %v", s.name, r)
			require.Contains(t, r.stdout, "Compacted with revision", "%s: %v", s.name, r)
			require.Contains(t, r.stdout, "Defragmented", "%s: %v", s.name, r)
		}
		p.prints("", "get", "/etcdctl-check-perf/", "--prefix")
		p.fails("check", "perf", "--load=none")
		p.same("put", "/mine/k", "v")
		p.fails("check", "perf", "--prefix=/mine/")
	})
}

func TestCheckDatascale(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p = p.masking(`used : -?[\d.]+ MB`, "used : SIZE MB", `revision \d+`, "revision REVISION")
		p.compare([]string{"check", "datascale"}, p.each(func(s *store) result {
			endpoint := "--endpoints={endpoint0}"
			if len(s.flags) > 0 { // the program asks for metrics by the scheme of its endpoint
				endpoint = "--endpoints=https://{endpoint0}"
			}
			r := s.start(t, "", "check", "datascale", "--load=s", "--auto-compact", "--auto-defrag", endpoint).wait(t)
			return result{stdout: r.stdout, code: r.code} // the rest is a progress bar
		}))
		p.prints("", "get", "/etcdctl-check-datascale/", "--prefix")
		p.fails("check", "datascale", "--load=none")
		p.same("put", "/mine/k", "v")
		p.fails("check", "datascale", "--prefix=/mine/")
	})
}
