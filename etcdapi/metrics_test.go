// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
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

// An endpoint that requires certificates of clients is watched at another port.
func TestMetricsHaveAPortOfTheirOwn(t *testing.T) {
	m := etcdapi.Metrics{Extensive: true}
	n := open(t, func(c *coterie.Config) { c.Metrics = &m })
	first, second := serve(t, n, etcdapi.WithMetrics(&m)), serve(t, n, etcdapi.WithMetrics(&m))
	url := "http://" + serveMetrics(t, n, etcdapi.WithMetrics(&m))
	for _, addr := range []string{first, second} {
		_, err := pb.NewKVClient(dial(t, addr)).Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
		require.NoError(t, err)
	}
	code, text, _ := do(t, "GET", url+"/metrics", "")
	require.Equal(t, http.StatusOK, code)
	for _, line := range []string{
		"etcd_mvcc_put_total 2\n", "etcd_server_has_leader 1\n", "etcd_server_proposals_failed_total 0\n",
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 2` + "\n",
		`grpc_server_handling_seconds_count{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 2` + "\n",
		`etcd_server_request_duration_seconds_count{success="true",type="Put"} 2` + "\n",
	} {
		require.True(t, strings.Contains(text, line), line)
	}
	require.Eventually(t, func() bool { // gRPC may still answer the pings of clients
		before := countOf(t, text, "etcd_network_client_grpc_sent_bytes_total")
		_, text, _ = do(t, "GET", url+"/metrics", "")
		return before == countOf(t, text, "etcd_network_client_grpc_sent_bytes_total")
	}, 5*time.Second, 50*time.Millisecond, "the answers of this port do not count")

	for path, want := range map[string]int{
		"/health": http.StatusOK, "/livez": http.StatusOK, "/readyz?verbose": http.StatusOK,
		"/v3/kv/range": http.StatusNotFound, "/version": http.StatusNotFound,
	} {
		code, _, _ := do(t, "GET", url+path, "")
		require.Equal(t, want, code, path)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := pb.NewKVClient(dial(t, strings.TrimPrefix(url, "http://"))).Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	require.Error(t, err)
}

func TestMetricsOverTLS(t *testing.T) {
	ca := newAuthority(t, "ca")
	files := newPEMFiles(t, ca)
	cfg, err := etcdapi.LoadTLS(files.TLS)
	require.NoError(t, err)
	addr := serveMetrics(t, open(t), etcdapi.WithTLS(cfg), etcdapi.WithPprof())
	client := http.Client{Transport: &http.Transport{TLSClientConfig: ca.client(), ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/metrics", "/readyz", "/debug/pprof/heap"} {
		code, _, _ := doWith(t, &client, "GET", "https://"+addr+path, "")
		require.Equal(t, http.StatusOK, code, path)
	}
}

// countOf returns the value of a metric without labels.
func countOf(t testing.TB, text, name string) (value string) {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n"+name+" ")
	require.True(t, ok, name)
	value, _, _ = strings.Cut(rest, "\n")
	return value
}

func TestMetricsOfCalls(t *testing.T) {
	addr := serve(t, open(t))
	conn := dial(t, addr)
	get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}
	set := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k")}}}
	nested := &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{set}}}}
	for _, ops := range [][]*pb.RequestOp{{get}, {get, set}, {nested}} {
		_, err := pb.NewKVClient(conn).Txn(t.Context(), &pb.TxnRequest{Success: ops})
		require.NoError(t, err)
	}
	_, err := pb.NewLeaseClient(conn).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 100, ID: 7})
	require.NoError(t, err)
	_, err = pb.NewMaintenanceClient(conn).HashKV(t.Context(), &pb.HashKVRequest{})
	require.NoError(t, err)
	_, err = pb.NewClusterClient(conn).MemberPromote(t.Context(), &pb.MemberPromoteRequest{ID: 1})
	require.Error(t, err)
	_, err = pb.NewAuthClient(conn).AuthStatus(t.Context(), &pb.AuthStatusRequest{})
	require.NoError(t, err)
	_, err = pb.NewAuthClient(conn).UserGet(t.Context(), &pb.AuthUserGetRequest{Name: "u"})
	require.Error(t, err)
	renewals, err := pb.NewLeaseClient(conn).LeaseKeepAlive(t.Context())
	require.NoError(t, err)
	for _, id := range []int64{7, 8} {
		require.NoError(t, renewals.Send(&pb.LeaseKeepAliveRequest{ID: id}))
		_, err = renewals.Recv()
		require.NoError(t, err)
	}
	openWatchStream(t, conn).request(&pb.WatchCreateRequest{Key: []byte("k")})
	_, text, _ := do(t, "GET", "http://"+addr+"/metrics", "")
	for _, line := range []string{
		`etcd_server_request_duration_seconds_count{success="true",type="ReadonlyTxn"} 1`, `etcd_server_request_duration_seconds_count{success="true",type="Txn"} 2`,
		`etcd_server_request_duration_seconds_count{success="true",type="LeaseGrant"} 1`, `etcd_debugging_lease_ttl_total_sum 100`,
		`etcd_server_request_duration_seconds_count{success="true",type="AuthStatus"} 1`,
		`etcd_server_request_duration_seconds_count{success="false",type="AuthUserGet"} 1`,
		`etcd_mvcc_hash_rev_duration_seconds_count 1`, `etcd_server_learner_promote_failures{Reason="etcdserver: member not found"} 1`,
		`etcd_debugging_lease_renewed_total 1`, `etcd_debugging_mvcc_watch_stream_total 1`, `etcd_server_quota_backend_bytes +Inf`,
	} {
		require.True(t, strings.Contains(text, line+"\n"), line)
	}
	require.False(t, strings.Contains(text, "grpc_server_handling_seconds"), "only with Extensive")
	require.False(t, strings.Contains(text, `type="HashKV"`), "etcd measures none of these")
}
