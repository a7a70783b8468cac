// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/coterie-kv/coterie"
)

// Metrics is a [coterie.Metrics] for Prometheus. It has the measurements of one node under coterie's names. Those that
// etcd also has are there under etcd's names, too:
//
//	var metrics etcdapi.Metrics
//	node, err := coterie.Open(ctx, coterie.Config{Metrics: &metrics, …})
//	err = etcdapi.Serve(ctx, l, node, etcdapi.WithMetrics(&metrics))
//
// The endpoints of one node that have the same Metrics count their requests together, and each of them reports all of
// these at /metrics: see [ServeMetrics].
//
// It is a prometheus.Collector of the measurements of the node, so that a program can register it elsewhere. The zero
// value is ready to use, and its methods may be called concurrently.
type Metrics struct {
	// Extensive adds grpc_server_handling_seconds, the time of each call, as etcd does with --metrics extensive. That
	// is ten series for each method. Set Extensive before the first use.
	Extensive bool

	mu     sync.Mutex
	made   map[string]prometheus.Collector // by name; guarded by mu
	shared *measures                       // of the endpoints; guarded by mu
}

// An etcdMetric is a metric of etcd that has the value of one or more metrics of coterie.
type etcdMetric struct {
	name, help string
	of         []coterie.Metric
	create     func(e *etcdMetric) prometheus.Collector
	buckets    []float64
	// late metrics have no value before the first measurement. In etcd they have a label for the other member.
	late bool
}

var etcdMetrics = []etcdMetric{
	{
		name: "etcd_server_leader_changes_seen_total", help: "The number of leader changes seen.",
		of: []coterie.Metric{coterie.MetricLeaderChanges}, create: newCounter,
	},
	{
		name: "etcd_server_proposals_failed_total", help: "The total number of failed proposals seen.",
		of: []coterie.Metric{coterie.MetricProposalsGivenUp, coterie.MetricProposalsUncertain}, create: newCounter,
	},
	{
		name: "etcd_server_proposals_pending", help: "The current number of pending proposals to commit.",
		of: []coterie.Metric{coterie.MetricPendingCalls}, create: newGauge,
	},
	{
		name: "etcd_debugging_mvcc_events_total", help: "Total number of events sent by this member.",
		of: []coterie.Metric{coterie.MetricWatchEvents}, create: newCounter,
	},
	{
		name: "etcd_disk_wal_fsync_duration_seconds", help: "The latency distributions of fsync called by WAL.",
		of: []coterie.Metric{coterie.MetricLogWriteSeconds}, create: newHistogram, buckets: diskBuckets(),
	},
	{
		// The only commit to disk is that of the log.
		name: "etcd_disk_backend_commit_duration_seconds", help: "The latency distributions of commit called by backend.",
		of: []coterie.Metric{coterie.MetricLogWriteSeconds}, create: newHistogram, buckets: diskBuckets(),
	},
	{
		name: "etcd_disk_wal_write_bytes_total", help: "Total number of bytes written in WAL.",
		of: []coterie.Metric{coterie.MetricLogWriteBytes}, create: newGauge,
	},
	{
		name: "etcd_debugging_snap_save_total_duration_seconds", help: "The total latency distributions of save called by snapshot.",
		of: []coterie.Metric{coterie.MetricSnapshotSeconds}, create: newHistogram, buckets: diskBuckets(),
	},
	{
		name: "etcd_network_peer_sent_failures_total", help: "The total number of send failures from peers.",
		of: []coterie.Metric{coterie.MetricCallsFailed, coterie.MetricHeartbeatsFailed}, create: newCounter, late: true,
	},
	{
		name: "etcd_network_peer_sent_bytes_total", help: "The total number of bytes sent to peers.",
		of: []coterie.Metric{coterie.MetricPeerSentBytes}, create: newCounter, late: true,
	},
	{
		name: "etcd_network_peer_received_bytes_total", help: "The total number of bytes received from peers.",
		of: []coterie.Metric{coterie.MetricPeerReceivedBytes}, create: newCounter, late: true,
	},
	{
		name: "etcd_network_peer_round_trip_time_seconds", help: "Round-Trip-Time histogram between peers",
		of: []coterie.Metric{coterie.MetricHeartbeatSeconds}, create: newHistogram, late: true,
		buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
	},
	{
		name: "etcd_server_heartbeat_send_failures_total",
		help: "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
		of:   []coterie.Metric{coterie.MetricHeartbeatsFailed}, create: newCounter,
	},
}

// diskBuckets returns the buckets of a time that the disk takes.
func diskBuckets() []float64 { return prometheus.ExponentialBuckets(0.001, 2, 14) }

func newCounter(e *etcdMetric) prometheus.Collector {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: e.name, Help: e.help})
}

func newGauge(e *etcdMetric) prometheus.Collector {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: e.name, Help: e.help})
}

func newHistogram(e *etcdMetric) prometheus.Collector {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: e.name, Help: e.help, Buckets: e.buckets})
}

// Add implements [coterie.Metrics].
func (m *Metrics) Add(of coterie.Metric, delta float64) {
	m.each(of, newCounter, func(c prometheus.Collector) { c.(prometheus.Counter).Add(delta) })
}

// Set implements [coterie.Metrics].
func (m *Metrics) Set(of coterie.Metric, value float64) {
	m.each(of, newGauge, func(c prometheus.Collector) { c.(prometheus.Gauge).Set(value) })
}

// Observe implements [coterie.Metrics].
func (m *Metrics) Observe(of coterie.Metric, value float64) {
	m.each(of, newHistogram, func(c prometheus.Collector) {
		switch c := c.(type) {
		case prometheus.Histogram:
			c.Observe(value)
		case prometheus.Gauge: // the sum of a distribution
			c.Add(value)
		}
	})
}

// each calls fn with every collector of a metric of coterie, and holds the lock. The first collector has coterie's
// name.
func (m *Metrics) each(of coterie.Metric, create func(*etcdMetric) prometheus.Collector, fn func(prometheus.Collector)) {
	own := etcdMetric{
		name: string(of), help: "See docs/metrics.md of coterie.", create: create, buckets: prometheus.ExponentialBuckets(1, 4, 16),
	}
	if strings.HasSuffix(own.name, "_seconds") {
		own.buckets = prometheus.ExponentialBuckets(0.0001, 2, 18)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	fn(m.collector(&own))
	for i := range etcdMetrics {
		for _, metric := range etcdMetrics[i].of {
			if metric == of {
				fn(m.collector(&etcdMetrics[i]))
			}
		}
	}
}

// collector returns the collector of a metric, and makes it at the first call. The caller holds the lock.
func (m *Metrics) collector(e *etcdMetric) prometheus.Collector {
	if m.made == nil {
		m.made = map[string]prometheus.Collector{}
	}
	c := m.made[e.name]
	if c == nil {
		c = e.create(e)
		m.made[e.name] = c
	}
	return c
}

// Describe implements prometheus.Collector. It describes nothing, because the names come from the node.
func (m *Metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. It sends metrics of etcd before their first measurement, as etcd does,
// because the rate of a counter that appears with its first value does not include that value.
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range etcdMetrics {
		if !etcdMetrics[i].late {
			m.collector(&etcdMetrics[i])
		}
	}
	for _, c := range m.made {
		c.Collect(to)
	}
}

// measuresOf returns the measurements of an endpoint. All endpoints with the same Metrics share them.
func measuresOf(s *server) *measures {
	m := s.metrics
	if m == nil {
		return newMeasures(s, nil)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shared == nil {
		m.shared = newMeasures(s, m)
	}
	m.shared.of.Store(s)
	return m.shared
}
