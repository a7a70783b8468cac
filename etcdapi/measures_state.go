// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"math"
	"runtime"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/version"

	"github.com/coterie-kv/coterie"
)

// A stateCollector has the metrics of etcd that are part of the state of a node. It reads that state at each collection.
type stateCollector struct{ of *atomic.Pointer[server] }

// Describe implements prometheus.Collector. It describes nothing: the metrics are those that Collect sends.
func (c stateCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c stateCollector) Collect(to chan<- prometheus.Metric) {
	s := c.of.Load()
	g := gauges{to}
	g.server(s.node.Status(), s.selfID())
	g.store(s.node.Status())
	members, err := s.node.Members(context.Background(), coterie.WithSerializable())
	if err == nil {
		g.members(s.node.ID(), members)
	}
	if alarms, err := s.alarms(context.Background()); err == nil {
		g.alarms(members, alarms)
	}
}

// gauges sends metrics to a collection.
type gauges struct{ to chan<- prometheus.Metric }

// set sends a metric. labels are names and values.
func (g gauges) set(name, help string, value float64, labels ...string) {
	var names, values []string
	for i := 0; i < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	g.to <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), prometheus.GaugeValue, value, values...)
}

func (g gauges) server(s coterie.Status, id uint64) {
	g.set("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", oneIf(s.Leader != 0))
	g.set("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", oneIf(s.Role == coterie.RoleLeader))
	g.set("etcd_server_id", "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.", 1, "server_id", hexID(id))
	g.set("etcd_server_version", "Which version is running. 1 for 'server_version' label with current version.", 1, "server_version", version.Version)
	g.set("etcd_server_go_version", "Which Go version server is running with. 1 for 'server_go_version' label with current version.", 1,
		"server_go_version", runtime.Version())
	g.set("etcd_cluster_version", "Which version is running. 1 for 'cluster_version' label with current cluster version", 1,
		"cluster_version", version.Cluster(version.Version))
	g.set("etcd_server_proposals_committed_total", "The total number of consensus proposals committed.", float64(s.Committed))
	g.set("etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", float64(s.Applied))
}

func (g gauges) store(s coterie.Status) {
	// Alerts divide by the quota and compare with it. Without a quota, report an infinite one: the size is then 0 % of
	// it.
	quota := math.Inf(1)
	if s.QuotaBytes > 0 {
		quota = float64(s.QuotaBytes)
	}
	size := float64(emptySize + s.Bytes)
	g.set("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.", quota)
	g.set("etcd_mvcc_db_total_size_in_bytes", "Total size of the underlying database physically allocated in bytes.", size)
	g.set("etcd_mvcc_db_total_size_in_use_in_bytes", "Total size of the underlying database logically in use in bytes.", size)
	g.set("etcd_debugging_mvcc_keys_total", "Total number of keys.", float64(s.Keys))
	g.set("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", float64(s.Watchers))
	g.set("etcd_debugging_mvcc_current_revision", "The current revision of store.", float64(s.Revision))
	g.set("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.", float64(s.CompactRevision))
}

func (g gauges) members(self coterie.MemberID, members []coterie.Member) {
	learner := false
	for _, m := range members {
		if m.ID == self {
			learner = !m.Voter
			continue
		}
		g.set("etcd_network_known_peers", "The current number of known peers.", 1, "Local", hexID(wireIDOf(members, self)), "Remote", hexID(wireID(&m)))
	}
	g.set("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.", oneIf(learner))
}

func (g gauges) alarms(members []coterie.Member, alarms []coterie.Alarm) {
	for _, a := range alarms {
		g.set("etcd_debugging_server_alarms", "Alarms for every member in cluster. 1 for 'server_id' label with current ID. "+
			"2 for 'alarm_type' label with type of this alarm", 1, "server_id", hexID(wireIDOf(members, a.Member)), "alarm_type", a.Kind.String())
	}
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// hexID returns an ID as etcd writes it.
func hexID(id uint64) string { return strconv.FormatUint(id, 16) }
