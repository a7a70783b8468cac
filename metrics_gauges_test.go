// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A process may outlive its node, and keeps the last value of each gauge. The sum of coterie_leading over all
// nodes must not count a stopped one.
func TestStoppedNodeIsNotMeasuredAsLeading(t *testing.T) {
	for name, stop := range map[string]func(t *testing.T, n *coterie.Node, disk *vfs.Memory){
		"closed": func(t *testing.T, n *coterie.Node, _ *vfs.Memory) { require.NoError(t, n.Close()) },
		"failed": func(t *testing.T, n *coterie.Node, disk *vfs.Memory) {
			disk.FailSync(errors.New("broken"))
			_, _ = n.Put(t.Context(), "k", "w") // the node notices the fault
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var r coterie.ExpvarMetrics
			disk := vfs.NewForgetful()
			n, err := coterie.Open(vfs.With(t.Context(), disk.Mount()), coterie.Config{Dir: "/data", Metrics: &r})
			require.NoError(t, err)
			put(t, n, "k", "v")
			for r.Value(coterie.MetricLeading) == 0 {
				time.Sleep(time.Second)
			}
			stop(t, n, disk)
			<-n.Done()
			require.Zero(t, r.Value(coterie.MetricLeading), name)
		})
	}
}
