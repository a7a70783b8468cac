// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestANodeThatLagsIsNotReady(t *testing.T) {
	for _, c := range []struct {
		status Status
		ready  bool
		text   string
	}{
		{Status{Leader: 1, Committed: 2000, Applied: 1000}, true, "[+] applied"},
		{Status{Leader: 1, Committed: 2001, Applied: 1000}, false, "[-] applied: 1001 committed entries are not applied"},
		{Status{Leader: 1, Committed: 5, Applied: 1000}, true, "[+] applied"}, // it may apply before it is told
		{Status{Leader: 1, LastContact: time.Second}, true, "[+] contact"},
		{Status{Leader: 1, LastContact: time.Second + 1}, false, "[-] contact: the leader was last heard 1.000000001s ago"},
	} {
		text, ok := report("readyz", ready(&c.status, time.Second), true)
		require.Equal(t, c.ready, ok, text)
		require.Contains(t, text, c.text)
	}
}
