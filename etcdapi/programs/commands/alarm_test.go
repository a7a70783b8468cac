// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// A full store raises an alarm. Writes that need space fail until there is space again, and the alarm is disarmed. Each
// member of an etcd raises its own alarm, some time after the first one, so this is a test of single members.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	p := figures(setup{members: 1, quota: 2 << 20}.start(t)).
		masking(`"revision":\d+`, `"revision":REVISION`, `"Revision" : \d+`, `"Revision" : REVISION`) // a value takes more space in one of them
	for _, s := range p.stores {
		i := 0
		require.Eventually(t, func() bool { // with new keys, because a node near its quota compacts superseded values
			i++
			_, err := s.client.Put(t.Context(), fmt.Sprint("big/", i), strings.Repeat("x", 100_000))
			return errors.Is(err, rpctypes.ErrNoSpace)
		}, 30*time.Second, time.Millisecond, s.name)
		require.Eventually(t, func() bool {
			r, err := s.client.AlarmList(t.Context())
			return err == nil && len(r.Alarms) == 1
		}, 10*time.Second, 10*time.Millisecond, s.name)
	}
	p.formatted("alarm", "list")
	p.fails("put", "k", "v")
	p.fails("lease", "grant", "60")
	p.typing("\nput k v\n\n\n").fails("txn")
	p.same("get", "k")
	p.fails("endpoint", "health")
	p.fails("endpoint", "health", "--write-out=json")
	p.same("endpoint", "status")
	p.same("endpoint", "status", "--write-out=json")
	p.masking(`^\d+\n`, "NUMBER\n").same("del", "big/", "--prefix")
	_, err := p.stores[0].client.Compact(t.Context(), p.stores[0].revision(t)) // a node near its quota has compacted them
	require.NoError(t, err)
	p.same("defrag")
	p.fails("put", "k", "v")
	p.formatted("alarm", "disarm")
	p.same("alarm", "list")
	p.prints("OK\n", "put", "k", "v")
	p.same("endpoint", "health")
	p.fails("alarm", "list", "more")
	p.fails("alarm", "disarm", "more")
}
