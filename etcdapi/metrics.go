// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/coterie-kv/coterie"
)

// Metrics is a [coterie.Metrics] for Prometheus. It has the measurements of one node under coterie's names, and under the
// names of etcd those that etcd has, too:
//
//	var metrics etcdapi.Metrics
//	node, err := coterie.Open(ctx, coterie.Config{Metrics: &metrics, …})
//	err = etcdapi.Serve(ctx, l, node, etcdapi.WithMetrics(&metrics))
//
// It is a prometheus.Collector, so that a program can register it elsewhere. The zero value is ready to use, and its
// methods may be called concurrently.
type Metrics struct {
	mu   sync.Mutex
	made map[string]prometheus.Collector // by name; guarded by mu
}

// An etcdMetric is a metric of etcd that has the value of one or more metrics of coterie.
type etcdMetric struct {
	of         coterie.Metric
	name, help string
	buckets    []float64
}

var etcdMetrics = []etcdMetric{
	{of: coterie.MetricLeaderChanges, name: "etcd_server_leader_changes_seen_total", help: "The number of leader changes seen."},
	{of: coterie.MetricProposalsGivenUp, name: "etcd_server_proposals_failed_total", help: proposalsFailed},
	{of: coterie.MetricProposalsUncertain, name: "etcd_server_proposals_failed_total", help: proposalsFailed},
	{of: coterie.MetricPendingCalls, name: "etcd_server_proposals_pending", help: "The current number of pending proposals to commit."},
	{of: coterie.MetricWatchEvents, name: "etcd_debugging_mvcc_events_total", help: "Total number of events sent by this member."},
	{
		of: coterie.MetricLogWriteSeconds, name: "etcd_disk_wal_fsync_duration_seconds",
		help: "The latency distributions of fsync called by WAL.", buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
	},
}

const proposalsFailed = "The total number of failed proposals seen."

// Add implements [coterie.Metrics].
func (m *Metrics) Add(of coterie.Metric, delta float64) {
	m.each(of, func(name, help string, _ []float64) {
		collector(m, name, func() prometheus.Counter {
			return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		}).Add(delta)
	})
}

// Set implements [coterie.Metrics].
func (m *Metrics) Set(of coterie.Metric, value float64) {
	m.each(of, func(name, help string, _ []float64) {
		collector(m, name, func() prometheus.Gauge {
			return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		}).Set(value)
	})
}

// Observe implements [coterie.Metrics].
func (m *Metrics) Observe(of coterie.Metric, value float64) {
	m.each(of, func(name, help string, buckets []float64) {
		collector(m, name, func() prometheus.Histogram {
			return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
		}).Observe(value)
	})
}

// each calls fn, under the lock, with every name that a metric has.
func (m *Metrics) each(of coterie.Metric, fn func(name, help string, buckets []float64)) {
	buckets := prometheus.ExponentialBuckets(1, 4, 16)
	if strings.HasSuffix(string(of), "_seconds") {
		buckets = prometheus.ExponentialBuckets(0.0001, 2, 18)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	fn(string(of), "See docs/metrics.md of coterie.", buckets)
	for _, e := range etcdMetrics {
		if e.of == of {
			fn(e.name, e.help, e.buckets)
		}
	}
}

// collector returns the collector of a name, and makes it at the first call. The caller holds the lock.
func collector[C prometheus.Collector](m *Metrics, name string, create func() C) C {
	if m.made == nil {
		m.made = map[string]prometheus.Collector{}
	}
	if m.made[name] == nil {
		m.made[name] = create()
	}
	return m.made[name].(C)
}

// Describe implements prometheus.Collector. It describes nothing, because the names come from the node.
func (m *Metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.made {
		c.Collect(to)
	}
}

// A stateCollector has the metrics of etcd that are part of a node's status.
type stateCollector struct{ *server }

// Describe implements prometheus.Collector. It describes nothing: the metrics are those that Collect sends.
func (c stateCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c stateCollector) Collect(to chan<- prometheus.Metric) {
	s := c.node.Status()
	learner := 0.0
	if c.checkVote(context.Background()) != nil {
		learner = 1
	}
	send := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		var names, values []string
		for i := 0; i < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		to <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, value, values...)
	}
	gauge := func(name, help string, value float64, labels ...string) {
		send(prometheus.GaugeValue, name, help, value, labels...)
	}
	gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.", oneIf(s.Leader != 0))
	gauge("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.", oneIf(s.Role == coterie.RoleLeader))
	gauge("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.", learner)
	gauge("etcd_server_id", "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.", 1, "server_id", hexID(s.ID))
	for _, v := range versions() {
		gauge(v.name, v.help, 1, v.label, v.value)
	}
	gauge("etcd_server_proposals_committed_total", "The total number of consensus proposals committed.", float64(s.Committed))
	gauge("etcd_server_proposals_applied_total", "The total number of consensus proposals applied.", float64(s.Applied))
	gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.", float64(s.QuotaBytes))
	size := float64(emptySize + s.Bytes)
	gauge("etcd_mvcc_db_total_size_in_bytes", "Total size of the underlying database physically allocated in bytes.", size)
	gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Total size of the underlying database logically in use in bytes.", size)
	gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", float64(s.Keys))
	gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", float64(s.Watchers))
	gauge("etcd_debugging_mvcc_current_revision", "The current revision of store.", float64(s.Revision))
	gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.", float64(s.CompactRevision))
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
