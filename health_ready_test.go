// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReadinessBounds(t *testing.T) {
	cfg := &Config{ElectionTimeout: time.Second, DiskTimeout: 5 * time.Second}
	for _, c := range []struct {
		status Status
		ready  bool
		text   string
	}{
		{Status{Leader: 1, Committed: 2000, Applied: 1000}, true, "[+] applied"},
		{Status{Leader: 1, Committed: 2001, Applied: 1000}, false, "[-] applied: 1001 committed entries are not applied"},
		{Status{Leader: 1, Committed: 5, Applied: 1000}, true, "[+] applied"}, // an entry may be applied before its commit is reported
		{Status{Leader: 1, LastContact: 3 * time.Second}, true, "[+] contact"},
		{Status{Leader: 1, LastContact: 3*time.Second + 1}, false, "[-] contact: the leader was last heard 3.000000001s ago"},
		{Status{Leader: 1, DiskRefused: time.Second - 1, DiskStalled: 5*time.Second - 1}, true, "[+] disk"},
		{Status{Leader: 1, DiskRefused: time.Second, DiskError: syscall.EMFILE}, false, "[-] disk: the log could not be written for 1s: too many open files"},
		{Status{Leader: 1, DiskStalled: 5 * time.Second}, false, "[-] disk: a write to it has hung for 5s"},
	} {
		text, ok := report("readyz", ready(&c.status, cfg), true)
		require.Equal(t, c.ready, ok, text)
		require.Contains(t, text, c.text)
	}
}
