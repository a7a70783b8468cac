// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-semver/semver"
	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// measures are the metrics of one endpoint, or of several that have the same Metrics, with the names of etcd. The fields are
// immutable, except that of is set for each endpoint; their values are atomic.
type measures struct {
	registry *prometheus.Registry
	grpc     *grpcprom.ServerMetrics
	unaryOf  grpc.UnaryServerInterceptor
	streamOf grpc.StreamServerInterceptor
	of       atomic.Pointer[server] // the newest endpoint
	traffic  traffic

	requests   *prometheus.CounterVec // by type and version of the client
	requestsOf sync.Map               // those, by requestKey, of the versions that etcd could have
	seconds    *prometheus.HistogramVec
	promotions *prometheus.CounterVec // those that failed
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
	m := &measures{registry: prometheus.NewRegistry(), grpc: grpcprom.NewServerMetrics()}
	m.of.Store(s)
	if node != nil {
		m.registry.MustRegister(node)
		if node.Extensive {
			m.grpc = grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram())
		}
	}
	m.unaryOf, m.streamOf = m.grpc.UnaryServerInterceptor(), m.grpc.StreamServerInterceptor()
	m.registry.MustRegister(
		m.grpc, stateCollector{&m.of}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
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
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "etcd_server_client_requests_total", Help: "The total number of client requests per client version.",
	}, []string{"type", "client_api_version"})
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
	m.registry.MustRegister(m.requests, m.seconds, m.promotions, m.probe, m.probes)
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
	begin := time.Now()
	resp, err := m.unaryOf(ctx, req, info, handler)
	took := time.Since(begin).Seconds()
	if kind := requestType(req, info.FullMethod); kind != "" {
		m.seconds.WithLabelValues(kind, strconv.FormatBool(err == nil)).Observe(took)
	}
	if err == nil {
		m.count(req, took)
	} else if _, ok := req.(*pb.MemberPromoteRequest); ok {
		m.promotions.WithLabelValues(status.Convert(err).Message()).Inc()
	}
	return resp, err
}

// stream is the interceptor of streams.
func (m *measures) stream(impl any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	m.countRequest(ss.Context(), "stream")
	switch info.FullMethod {
	case pb.Watch_Watch_FullMethodName:
		m.watchStreams.Inc()
		defer m.watchStreams.Dec()
	case pb.Lease_LeaseKeepAlive_FullMethodName:
		ss = &renewalStream{ss, m.renewals}
	}
	return m.streamOf(impl, ss, info, handler)
}

// A renewalStream counts the renewals of a stream.
type renewalStream struct {
	grpc.ServerStream
	renewals prometheus.Counter
}

func (s *renewalStream) SendMsg(m any) error {
	if r, ok := m.(*pb.LeaseKeepAliveResponse); ok && r.TTL > 0 {
		s.renewals.Inc()
	}
	return s.ServerStream.SendMsg(m)
}

// requestType returns the name of a request in etcd's metric of durations, or "" for one that etcd does not measure.
func requestType(req any, method string) string {
	switch r := req.(type) {
	case *pb.RangeRequest:
		return "Range"
	case *pb.TxnRequest:
		if onlyReads(r) {
			return "ReadonlyTxn"
		}
		return "Txn"
	case *pb.CompactionRequest:
		return "Compaction"
	case *pb.PutRequest, *pb.DeleteRangeRequest, *pb.LeaseGrantRequest, *pb.LeaseRevokeRequest, *pb.AlarmRequest:
		return path.Base(method)
	}
	name, ok := strings.CutPrefix(method, "/etcdserverpb.Auth/")
	if ok && !strings.HasPrefix(name, "Auth") {
		name = "Auth" + name
	} else if !ok {
		name = ""
	}
	return name
}

// onlyReads reports whether a transaction has no operation that writes.
func onlyReads(r *pb.TxnRequest) bool {
	writes := func(op *pb.RequestOp) bool {
		nested := op.GetRequestTxn()
		return op.GetRequestRange() == nil && (nested == nil || !onlyReads(nested))
	}
	return !slices.ContainsFunc(r.Success, writes) && !slices.ContainsFunc(r.Failure, writes)
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

// count counts a request that has succeeded after some seconds.
func (m *measures) count(req any, took float64) {
	switch r := req.(type) {
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
		m.leaseTTLs.Observe(float64(r.TTL))
	case *pb.LeaseRevokeRequest:
		m.revocations.Inc()
	case *pb.MemberPromoteRequest:
		m.promoted.Inc()
	case *pb.HashRequest:
		m.hashSeconds.Observe(took)
	case *pb.HashKVRequest:
		m.hashRevSeconds.Observe(took)
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
