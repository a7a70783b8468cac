// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// mixin has the expressions of the alerts and dashboards in etcd's contrib/mixin, without their selectors and times. The
// metric up is Prometheus's own.
var mixin = map[string]string{
	"etcdMembersDown": `max without (endpoint) (sum without (instance) (up == bool 0) or
		count without (To) (sum without (instance) (rate(etcd_network_peer_sent_failures_total[120s])) > 0.01)) > 0`,
	"etcdInsufficientMembers": `sum(up == bool 1) without (instance) < ((count(up) without (instance) + 1) / 2)`,
	"etcdNoLeader":            `etcd_server_has_leader == 0`,
	"etcdHighNumberOfLeaderChanges": `increase((max without (instance) (etcd_server_leader_changes_seen_total) or
		0*absent(etcd_server_leader_changes_seen_total))[15m:1m]) >= 4`,
	"etcdHighNumberOfFailedGRPCRequests": `100 * sum(rate(grpc_server_handled_total{grpc_code=~"Unknown|FailedPrecondition|ResourceExhausted|Internal|
		Unavailable|DataLoss|DeadlineExceeded"}[5m])) without (grpc_type, grpc_code) /
		sum(rate(grpc_server_handled_total[5m])) without (grpc_type, grpc_code) > 1`,
	"etcdGRPCRequestsSlow": `histogram_quantile(0.99, sum(rate(grpc_server_handling_seconds_bucket{grpc_method!="Defragment",
		grpc_type="unary"}[5m])) without(grpc_type)) > 0.15`,
	"etcdMemberCommunicationSlow":     `histogram_quantile(0.99, rate(etcd_network_peer_round_trip_time_seconds_bucket[5m])) > 0.15`,
	"etcdHighNumberOfFailedProposals": `rate(etcd_server_proposals_failed_total[15m]) > 5`,
	"etcdHighFsyncDurations":          `histogram_quantile(0.99, rate(etcd_disk_wal_fsync_duration_seconds_bucket[5m])) > 0.5`,
	"etcdHighCommitDurations":         `histogram_quantile(0.99, rate(etcd_disk_backend_commit_duration_seconds_bucket[5m])) > 0.25`,
	"etcdDatabaseQuotaLowSpace": `(last_over_time(etcd_mvcc_db_total_size_in_bytes[5m]) /
		last_over_time(etcd_server_quota_backend_bytes[5m]))*100 > 95`,
	"etcdExcessiveDatabaseGrowth": `predict_linear(etcd_mvcc_db_total_size_in_bytes[4h], 4*60*60) > etcd_server_quota_backend_bytes`,
	"etcdDatabaseHighFragmentationRatio": `(last_over_time(etcd_mvcc_db_total_size_in_use_in_bytes[5m]) /
		last_over_time(etcd_mvcc_db_total_size_in_bytes[5m])) < 0.5 and etcd_mvcc_db_total_size_in_use_in_bytes > 104857600`,

	"Up":           `sum(etcd_server_has_leader)`,
	"RPC rate":     `sum(rate(grpc_server_started_total{grpc_type="unary"}[5m]))`,
	"RPC failures": `sum(rate(grpc_server_handled_total{grpc_type="unary",grpc_code=~"Unknown|Unavailable"}[5m]))`,
	"Watch streams": `sum(grpc_server_started_total{grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}) -
		sum(grpc_server_handled_total{grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"})`,
	"Lease streams": `sum(grpc_server_started_total{grpc_service="etcdserverpb.Lease",grpc_type="bidi_stream"}) -
		sum(grpc_server_handled_total{grpc_service="etcdserverpb.Lease",grpc_type="bidi_stream"})`,
	"DB size":            `etcd_mvcc_db_total_size_in_bytes`,
	"Disk sync duration": `histogram_quantile(0.99, sum(rate(etcd_disk_wal_fsync_duration_seconds_bucket[5m])) by (instance, le))`,
	"DB fsync":           `histogram_quantile(0.99, sum(rate(etcd_disk_backend_commit_duration_seconds_bucket[5m])) by (instance, le))`,
	"Memory":             `process_resident_memory_bytes`,
	"Client traffic in":  `rate(etcd_network_client_grpc_received_bytes_total[5m])`,
	"Client traffic out": `rate(etcd_network_client_grpc_sent_bytes_total[5m])`,
	"Peer traffic in":    `sum(rate(etcd_network_peer_received_bytes_total[5m])) by (instance)`,
	"Peer traffic out":   `sum(rate(etcd_network_peer_sent_bytes_total[5m])) by (instance)`,
	"Peer RTT":           `histogram_quantile(0.99, sum by (instance, le) (rate(etcd_network_peer_round_trip_time_seconds_bucket[5m])))`,
	"Raft proposals": `sum(rate(etcd_server_proposals_failed_total[5m])), sum(etcd_server_proposals_pending),
		sum(rate(etcd_server_proposals_committed_total[5m])), sum(rate(etcd_server_proposals_applied_total[5m]))`,
	"Leader elections per day": `changes(etcd_server_leader_changes_seen_total[1d])`,
	"Snapshot duration":        `histogram_quantile(0.99, sum(rate(etcd_debugging_snap_save_total_duration_seconds_bucket[5m])) by (le))`,
	"Keys":                     `etcd_debugging_mvcc_keys_total`,
}

// TestMixinFindsItsMetrics runs three nodes, stops one, and looks for each metric of the expressions, and for a series
// with each label that they select.
func TestMixinFindsItsMetrics(t *testing.T) {
	urls := make([]string, 3)
	metrics := make([]etcdapi.Metrics, 3)
	nodes := openThree(t, func(i int, cfg *coterie.Config) {
		metrics[i].Extensive = true
		cfg.Metrics = &metrics[i]
	})
	for i, n := range nodes {
		addr := serve(t, n, etcdapi.WithMetrics(&metrics[i]))
		urls[i] = "http://" + addr + "/metrics"
		_, err := pb.NewKVClient(dial(t, addr)).Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
		require.NoError(t, err)
	}
	leader := slices.IndexFunc(nodes, func(n *coterie.Node) bool { return n.Status().Role == coterie.RoleLeader })
	require.NotEqual(t, -1, leader)
	require.NoError(t, nodes[(leader+1)%3].Close())

	require.EventuallyWithT(t, func(c *assert.CollectT) {
		_, text, _ := do(t, "GET", urls[leader], "")
		var missing []string
		for name, expression := range mixin {
			missing = append(missing, missingSeries(name, expression, text)...)
		}
		assert.Empty(c, missing)
	}, 15*time.Second, 200*time.Millisecond)
	_, text, _ := do(t, "GET", urls[leader], "")
	require.Equal(t, "+Inf", countOf(t, text, "etcd_server_quota_backend_bytes"), "no part of the quota is in use")
	require.Equal(t, 2, strings.Count(text, "\netcd_network_known_peers{"))
}

// missingSeries returns the metrics and labels of an expression that are not in the text of an endpoint.
func missingSeries(name, expression, text string) (missing []string) {
	for _, m := range regexp.MustCompile(`((?:etcd|grpc|process)_[a-z_]+)(?:\{([^}]*)\})?`).FindAllStringSubmatch(expression, -1) {
		if slices.Contains([]string{"grpc_type", "grpc_code"}, m[1]) {
			continue // labels
		}
		series := `(?m)^` + m[1] + `(\{.*\})? `
		if !regexp.MustCompile(series).MatchString(text) {
			missing = append(missing, name+": "+m[1])
		}
		for _, label := range regexp.MustCompile(`(\w+)="([^"]*)"`).FindAllString(m[2], -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `\{.*` + label + `.*\} `).MatchString(text) {
				missing = append(missing, name+": "+m[1]+" with "+label)
			}
		}
	}
	return missing
}

// openThree opens a cluster of three nodes over TCP, for one test. change gets the configuration of each.
func openThree(t testing.TB, change func(i int, cfg *coterie.Config)) []*coterie.Node {
	t.Helper()
	founders := make([]coterie.Founder, 3)
	for i := range founders {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		founders[i] = coterie.Founder{Name: fmt.Sprint("node", i+1), Addr: l.Addr().String()}
		require.NoError(t, l.Close())
	}
	nodes := make([]*coterie.Node, 3)
	for i, f := range founders {
		nodes[i] = openUnready(t, func(cfg *coterie.Config) {
			cfg.Name, cfg.Addr, cfg.Founders, cfg.ElectionTimeout = f.Name, f.Addr, founders, 500*time.Millisecond
			change(i, cfg)
		})
	}
	for _, n := range nodes {
		require.NoError(t, n.Ready(t.Context()))
	}
	return nodes
}
