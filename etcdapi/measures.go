// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// measures are the metrics of one endpoint, or of several that have the same Metrics, with the names of etcd. The
// fields are immutable, except of, which each new endpoint sets. The values of the metrics are atomic.
type measures struct {
	registry *prometheus.Registry
	calls    callVectors
	of       atomic.Pointer[server] // the newest endpoint
	traffic  traffic

	requests   requestCounters
	seconds    *prometheus.HistogramVec
	promotions *prometheus.CounterVec // failed promotions
	probe      *prometheus.GaugeVec
	probes     *prometheus.CounterVec

	ranges, puts, deletes, txns, promoted  prometheus.Counter
	grants, revocations, renewals          prometheus.Counter
	healthSuccess, healthFault             prometheus.Counter
	watchStreams                           prometheus.Gauge
	leaseTTLs, hashSeconds, hashRevSeconds prometheus.Histogram
}

// newMeasures returns the metrics of an endpoint. node has the measurements of the node, or is nil.
func newMeasures(s *server, node *Metrics) *measures {
	m := &measures{registry: prometheus.NewRegistry(), requests: newRequestCounters()}
	m.of.Store(s)
	if node != nil {
		m.registry.MustRegister(node)
	}
	m.calls = newCallVectors(m.registry, node != nil && node.Extensive)
	m.registry.MustRegister(
		m.requests.vector, stateCollector{&m.of}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.registerCounters()
	m.registerDistributions()
	m.registerVectors()
	return m
}

func (m *measures) registerCounters() {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		m.registry.MustRegister(c)
		return c
	}
	m.ranges = counter("etcd_mvcc_range_total", "Total number of ranges seen by this member.")
	m.puts = counter("etcd_mvcc_put_total", "Total number of puts seen by this member.")
	m.deletes = counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member.")
	m.txns = counter("etcd_mvcc_txn_total", "Total number of txns seen by this member.")
	m.grants = counter("etcd_debugging_lease_granted_total", "The total number of granted leases.")
	m.revocations = counter("etcd_debugging_lease_revoked_total", "The total number of revoked leases.")
	m.renewals = counter("etcd_debugging_lease_renewed_total", "The number of renewed leases seen by the leader.")
	m.promoted = counter("etcd_server_learner_promote_successes",
		"The total number of successful learner promotions while this member is leader.")
	m.healthSuccess = counter("etcd_server_health_success", "The total number of successful health checks")
	m.healthFault = counter("etcd_server_health_failures", "The total number of failed health checks")
	m.watchStreams = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "etcd_debugging_mvcc_watch_stream_total", Help: "Total number of watch streams.",
	})
	bytes := func(name, help string, n *atomic.Int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(n.Load()) })
	}
	m.registry.MustRegister(
		m.watchStreams,
		bytes("etcd_network_client_grpc_sent_bytes_total", "The total number of bytes sent to grpc clients.", &m.traffic.sent),
		bytes("etcd_network_client_grpc_received_bytes_total", "The total number of bytes received from grpc clients.", &m.traffic.received),
	)
}

func (m *measures) registerDistributions() {
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
		m.registry.MustRegister(h)
		return h
	}
	hashBuckets := prometheus.ExponentialBuckets(.01, 2, 15)
	m.leaseTTLs = histogram("etcd_debugging_lease_ttl_total", "Bucketed histogram of lease TTLs.", prometheus.ExponentialBuckets(1, 2, 24))
	m.hashSeconds = histogram("etcd_mvcc_hash_duration_seconds", "The latency distribution of storage hash operation.", hashBuckets)
	m.hashRevSeconds = histogram("etcd_mvcc_hash_rev_duration_seconds",
		"The latency distribution of storage hash by revision operation.", hashBuckets)
}

func (m *measures) registerVectors() {
	m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "etcd_server_request_duration_seconds", Help: "Response latency distribution in seconds for each type.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
	}, []string{"type", "success"})
	m.promotions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "etcd_server_learner_promote_failures",
		Help: "The total number of failed learner promotions (likely learner not ready) while this member is leader.",
	}, []string{"Reason"})
	m.probe = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "etcd_server_healthcheck", Help: "The result of each kind of healthcheck.",
	}, []string{"type", "name"})
	m.probes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "etcd_server_healthchecks_total", Help: "The total number of each kind of healthcheck.",
	}, []string{"type", "name", "status"})
	m.registry.MustRegister(m.seconds, m.promotions, m.probe, m.probes)
}

// handler returns the handler of /metrics.
func (m *measures) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
}

// maxScrapes bounds the number of simultaneous requests for metrics.
const maxScrapes = 10

// countProbe counts a check of /livez or /readyz.
func (m *measures) countProbe(kind, name string, ok bool) {
	status := "error"
	if ok {
		status = "success"
	}
	m.probe.WithLabelValues(kind, name).Set(oneIf(ok))
	m.probes.WithLabelValues(kind, name, status).Inc()
}

// countHealth counts a request of /health.
func (m *measures) countHealth(ok bool) {
	if ok {
		m.healthSuccess.Inc()
	} else {
		m.healthFault.Inc()
	}
}
