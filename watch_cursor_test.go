// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A revision is applied, but the watches are not notified of it yet, when the notification of a silent watch
// is due. It does not answer the request, which is for that revision.
func TestProgressNotifyKeepsARequestPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := Open(t.Context(), Config{InMemory: true})
		require.NoError(t, err)
		defer n.Close()
		require.NoError(t, n.Ready(t.Context()))
		_, err = n.Put(t.Context(), "k", "v")
		require.NoError(t, err)
		requests := make(chan struct{}, 1)
		watch := n.WatchChan(t.Context(), "k", WithProgressNotify(), WithProgressRequests(requests))
		time.Sleep(time.Second)

		notify := make(chan struct{})
		release := sync.OnceFunc(func() { close(notify) })
		defer release()
		// The first consumers publish the view, and the others notify the watches.
		consumers := n.supervisor.fsm.applier.(*consumers)
		consumers.inOrder = slices.Insert(consumers.inOrder, 3, func(appliedBatch) { <-notify })
		put := make(chan error, 1)
		go func() {
			_, err := n.Put(t.Context(), "other", "v")
			put <- err
		}()
		time.Sleep(time.Second)
		require.EqualValues(t, 3, n.views.Load().KV.Revision())
		requests <- struct{}{}
		time.Sleep(progressInterval)
		require.Len(t, watch, 1, "of the silence")
		require.EqualValues(t, 2, (<-watch).Revision)
		release()
		require.NoError(t, <-put)
		time.Sleep(time.Second)
		select {
		case r := <-watch:
			require.NoError(t, r.Err)
			require.EqualValues(t, 3, r.Revision)
		default:
			t.Fatal("the request has no answer")
		}
	})
}
