// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/etcdapi"
)

// get sends a request to a handler, without a network.
func get(t testing.TB, h http.Handler, path string) (code int, body string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
	return w.Code, w.Body.String()
}

func TestProbesSayWhatFails(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		i := c.Join(func(cfg *coterie.Config) { cfg.NonVoter = true })
		h := etcdapi.NewHandler(c.Node(i))
		require.NoError(t, c.Node(i).Ready(t.Context()))
		code, body := get(t, h, "/readyz")
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.Equal(t, "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[-]non_learner failed: not supported for learner\n\n", body)
		code, body = get(t, h, "/readyz?exclude=non_learner")
		require.Equal(t, http.StatusOK, code, body)

		h = etcdapi.NewHandler(c.Follower())
		c.Partition()
		code, body = get(t, h, "/readyz/linearizable_read")
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.Equal(t, "[-]linearizable_read failed: etcdserver: request timed out\n\n", body)
		code, _ = get(t, h, "/livez")
		require.Equal(t, http.StatusOK, code)
		code, body = get(t, h, "/health")
		require.Equal(t, http.StatusServiceUnavailable, code)
		require.Equal(t, `{"health":"false","reason":"RAFT NO LEADER"}`+"\n", body)
		code, _ = get(t, h, "/health?serializable=true")
		require.Equal(t, http.StatusOK, code)
		_, body = get(t, h, "/metrics")
		require.Contains(t, body, `etcd_server_healthcheck{name="linearizable_read",type="readyz"} 0`)
	})
}
