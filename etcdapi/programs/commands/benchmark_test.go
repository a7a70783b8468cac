// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// etcd's program benchmark finishes on both without an error. The figures are not compared.
func TestBenchmark(t *testing.T) {
	t.Parallel()
	p := start(t, 3, false)
	total := "--total=500"
	if *long {
		total = "--total=20000"
	}
	put := []string{"put", "--key-size=8", "--sequential-keys", total, "--val-size=256"}
	for _, s := range p.stores {
		leader, all := "--endpoints="+s.endpoints[0], "--endpoints="+strings.Join(s.endpoints, ",")
		for _, args := range [][]string{
			append([]string{leader, "--conns=10", "--clients=50"}, put...),
			append([]string{all, "--conns=10", "--clients=50"}, put...),
			{all, "--conns=10", "--clients=50", "range", "foo", "--consistency=l", total},
			{all, "--conns=10", "--clients=50", "range", "foo", "--consistency=s", total},
			{all, "txn-put", total},
			{all, "--clients=4", "stm", "--total=100"},
			{all, "watch-latency", "--put-total=20", "--put-rate=100"},
			{all, "lease-keepalive", total},
		} {
			r := run(t, nil, benchmark, args...).wait(t)
			require.Zero(t, r.code, "%s: benchmark %q: %v", s.name, args, r)
			require.Contains(t, r.stdout, "Requests/sec:", "%s: benchmark %q: %v", s.name, args, r)
			require.NotContains(t, r.stdout, "Error distribution", "%s: benchmark %q", s.name, args)
		}
	}
}
