// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

func TestMetricsOfAnEndpoint(t *testing.T) {
	var m etcdapi.Metrics
	addr := serve(t, open(t, func(c *coterie.Config) { c.Metrics = &m }), etcdapi.WithMetrics(&m))
	kv := pb.NewKVClient(dial(t, addr))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "client-api-version", "3.7.3")
	_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k")})
	require.NoError(t, err)
	_, err = kv.Range(metadata.AppendToOutgoingContext(t.Context(), "client-api-version", "any text"), &pb.RangeRequest{})
	require.Error(t, err)
	code, _, _ := do(t, "POST", "http://"+addr+"/v3/kv/range", `{"key":"aw=="}`)
	require.Equal(t, http.StatusOK, code)
	do(t, "GET", "http://"+addr+"/health", "")
	do(t, "GET", "http://"+addr+"/livez", "")
	openWatchStream(t, dial(t, addr)).request(&pb.WatchCreateRequest{Key: []byte("k")})

	scrape := func() string {
		code, text, _ := do(t, "GET", "http://"+addr+"/metrics", "")
		require.Equal(t, http.StatusOK, code)
		return text
	}
	text := scrape()
	for _, line := range []string{
		"etcd_server_has_leader 1\n", "etcd_server_is_leader 1\n", "etcd_server_is_learner 0\n", "etcd_mvcc_put_total 1\n", "etcd_mvcc_range_total 1\n",
		`etcd_server_client_requests_total{client_api_version="3.7.3",type="unary"} 1` + "\n",
		`etcd_server_client_requests_total{client_api_version="unknown",type="unary"} 2` + "\n",
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1` + "\n",
		`grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1` + "\n",
		`grpc_server_started_total{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 1` + "\n",
		"etcd_server_health_success 1\n", `etcd_server_healthcheck{name="serializable_read",type="livez"} 1` + "\n",
		"etcd_debugging_mvcc_keys_total 1\n", "etcd_network_client_grpc_received_bytes_total ", "process_resident_memory_bytes ",
	} {
		require.True(t, strings.Contains(text, line), line)
	}
	require.Eventually(t, func() bool {
		text = scrape()
		return strings.Contains(text, "etcd_server_leader_changes_seen_total 1\n")
	}, 5*time.Second, 100*time.Millisecond)
	require.True(t, strings.Contains(text, "coterie_leading 1\n"))
	require.True(t, strings.Contains(text, "etcd_server_proposals_pending 0\n"))
}
