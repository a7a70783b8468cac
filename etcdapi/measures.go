// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/coreos/go-semver/semver"
	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/api/v3/version"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/coterie-kv/coterie"
)

// measures are the metrics of one endpoint, with the names of etcd. The fields are immutable; their values are atomic.
type measures struct {
	registry *prometheus.Registry
	grpc     *grpcprom.ServerMetrics
	unaryOf  grpc.UnaryServerInterceptor
	streamOf grpc.StreamServerInterceptor

	requests                   *prometheus.CounterVec // by type and version of the client
	requestsOf                 sync.Map               // those, by requestKey, of the versions that etcd could have
	ranges, puts, deletes      prometheus.Counter
	txns, grants, revocations  prometheus.Counter
	healthSuccess, healthFault prometheus.Counter
	probe                      *prometheus.GaugeVec
	probes                     *prometheus.CounterVec

	received, sent atomic.Int64 // bytes of all connections
}

func newMeasures(s *server) *measures {
	m := &measures{registry: prometheus.NewRegistry(), grpc: grpcprom.NewServerMetrics()}
	m.unaryOf, m.streamOf = m.grpc.UnaryServerInterceptor(), m.grpc.StreamServerInterceptor()
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
	m.healthSuccess = counter("etcd_server_health_success", "The total number of successful health checks")
	m.healthFault = counter("etcd_server_health_failures", "The total number of failed health checks")
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "etcd_server_client_requests_total", Help: "The total number of client requests per client version.",
	}, []string{"type", "client_api_version"})
	m.probe = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "etcd_server_healthcheck", Help: "The result of each kind of healthcheck.",
	}, []string{"type", "name"})
	m.probes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "etcd_server_healthchecks_total", Help: "The total number of each kind of healthcheck.",
	}, []string{"type", "name", "status"})
	bytes := func(name, help string, n *atomic.Int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(n.Load()) })
	}
	m.registry.MustRegister(
		m.grpc, m.requests, m.probe, m.probes, stateCollector{s}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		bytes("etcd_network_client_grpc_sent_bytes_total", "The total number of bytes sent to grpc clients.", &m.sent),
		bytes("etcd_network_client_grpc_received_bytes_total", "The total number of bytes received from grpc clients.", &m.received),
	)
	if s.metrics != nil {
		m.registry.MustRegister(s.metrics)
	}
	return m
}

// handler returns the handler of /metrics.
func (m *measures) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
}

// maxScrapes bounds the requests of metrics at the same time.
const maxScrapes = 10

// unary is the interceptor of unary calls.
func (m *measures) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	m.countRequest(ctx, "unary")
	resp, err := m.unaryOf(ctx, req, info, handler)
	if err == nil {
		m.count(req)
	}
	return resp, err
}

// stream is the interceptor of streams.
func (m *measures) stream(impl any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	m.countRequest(ss.Context(), "stream")
	return m.streamOf(impl, ss, info, handler)
}

// countRequest counts a request by the version of its client. A client can send any text, so versions that no release of
// etcd has count as unknown, as if there were none.
func (m *measures) countRequest(ctx context.Context, kind string) {
	key := requestKey{kind: kind}
	if sent := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataClientAPIVersionKey); len(sent) > 0 {
		key.version = sent[0]
	}
	counter, ok := m.requestsOf.Load(key)
	if !ok {
		if !isRelease(key.version) {
			m.requests.WithLabelValues(kind, "unknown").Inc()
			return
		}
		counter, _ = m.requestsOf.LoadOrStore(key, m.requests.WithLabelValues(kind, key.version))
	}
	counter.(prometheus.Counter).Inc()
}

type requestKey struct{ kind, version string }

// isRelease reports whether a version can be that of a release of etcd. Few versions can.
func isRelease(text string) bool {
	v, err := semver.NewVersion(text)
	return err == nil && v.Major == 3 && v.Minor < 10 && v.Patch < 100 && v.String() == text && v.PreRelease == "" && v.Metadata == ""
}

// count counts a request that has succeeded.
func (m *measures) count(req any) {
	switch req.(type) {
	case *pb.RangeRequest:
		m.ranges.Inc()
	case *pb.PutRequest:
		m.puts.Inc()
	case *pb.DeleteRangeRequest:
		m.deletes.Inc()
	case *pb.TxnRequest:
		m.txns.Inc()
	case *pb.LeaseGrantRequest:
		m.grants.Inc()
	case *pb.LeaseRevokeRequest:
		m.revocations.Inc()
	}
}

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

// A versionMetric is a metric of etcd whose label is a version.
type versionMetric struct{ name, help, label, value string }

func versions() []versionMetric {
	return []versionMetric{
		{"etcd_server_version", "Which version is running. 1 for 'server_version' label with current version.", "server_version", version.Version},
		{"etcd_server_go_version", "Which Go version server is running with. 1 for 'server_go_version' label with current version.", "server_go_version", runtime.Version()},
		{"etcd_cluster_version", "Which version is running. 1 for 'cluster_version' label with current cluster version", "cluster_version", version.Cluster(version.Version)},
	}
}

// hexID returns an ID as etcd writes it.
func hexID(id coterie.MemberID) string { return strconv.FormatUint(uint64(id), 16) }
