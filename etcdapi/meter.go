// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// callVectors are the metrics of gRPC calls, with the names and labels of go-grpc-middleware, which etcd uses.
type callVectors struct {
	started, handled, received, sent *prometheus.CounterVec
	seconds                          *prometheus.HistogramVec // nil unless they are extensive
}

func newCallVectors(r prometheus.Registerer, extensive bool) callVectors {
	method := []string{"grpc_type", "grpc_service", "grpc_method"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, slices.Concat(method, labels))
		r.MustRegister(v)
		return v
	}
	v := callVectors{
		started:  counter("grpc_server_started_total", "Total number of RPCs started on the server."),
		handled:  counter("grpc_server_handled_total", "Total number of RPCs completed on the server, regardless of success or failure.", "grpc_code"),
		received: counter("grpc_server_msg_received_total", "Total number of RPC stream messages received on the server."),
		sent:     counter("grpc_server_msg_sent_total", "Total number of gRPC stream messages sent by the server."),
	}
	if extensive {
		v.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_server_handling_seconds", Buckets: prometheus.DefBuckets,
			Help: "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
		}, method)
		r.MustRegister(v.seconds)
	}
	return v
}

// A meter counts the calls of one method. It is made when the method is registered, because looking up a metric by its
// labels is too slow for each call.
type meter struct {
	*measures
	method                  string // the full name
	started, received, sent prometheus.Counter
	handled                 [codes.Unauthenticated + 1]prometheus.Counter // by code
	handling                prometheus.Observer                           // nil unless the metrics are extensive

	took      [2]duration // of calls that failed, and that succeeded
	tookReads [2]duration // the same, of transactions that only read
}

// A duration is one of etcd's metrics of durations. It is created by the first call, as in etcd.
type duration struct {
	once     sync.Once
	observer prometheus.Observer
}

func (m *measures) meter(service, method, kind string) *meter {
	labels := []string{kind, service, method}
	t := &meter{
		measures: m, method: "/" + service + "/" + method, started: m.calls.started.WithLabelValues(labels...),
		received: m.calls.received.WithLabelValues(labels...), sent: m.calls.sent.WithLabelValues(labels...),
	}
	for c := range t.handled {
		t.handled[c] = m.calls.handled.WithLabelValues(append(labels, codes.Code(c).String())...)
	}
	if m.calls.seconds != nil {
		t.handling = m.calls.seconds.WithLabelValues(labels...)
	}
	return t
}

// kindOf returns the kind of a stream, as a label.
func kindOf(s *grpc.StreamDesc) string {
	switch {
	case !s.ServerStreams:
		return "client_stream"
	case !s.ClientStreams:
		return "server_stream"
	}
	return "bidi_stream"
}

// unary counts a unary call, which it passes to next.
func (t *meter) unary(ctx context.Context, version string, req any, next unaryStep, handler grpc.UnaryHandler) (any, error) {
	t.requests.count(version, "unary")
	t.started.Inc()
	t.received.Inc()
	begin := time.Now()
	resp, err := next(ctx, version, req, handler)
	took := time.Since(begin).Seconds()
	t.sent.Inc()
	t.end(err, took)
	t.observe(req, err == nil, took)
	switch _, promotion := req.(*pb.MemberPromoteRequest); {
	case err == nil:
		t.count(req, took)
	case promotion:
		t.promotions.WithLabelValues(status.Convert(err).Message()).Inc()
	}
	return resp, err
}

// stream counts a stream, which it passes to next.
func (t *meter) stream(ss grpc.ServerStream, next func(grpc.ServerStream) error) error {
	t.requests.count(clientVersion(ss.Context()), "stream")
	t.started.Inc()
	if t.method == pb.Watch_Watch_FullMethodName {
		t.watchStreams.Inc()
		defer t.watchStreams.Dec()
	}
	begin := time.Now()
	err := next(&meteredStream{ss, t})
	t.end(err, time.Since(begin).Seconds())
	return err
}

// end counts the end of a call that took some seconds.
func (t *meter) end(err error, took float64) {
	code := status.Code(err)
	if int(code) >= len(t.handled) {
		code = codes.Unknown
	}
	t.handled[code].Inc()
	if t.handling != nil {
		t.handling.Observe(took)
	}
}

// A meteredStream counts the messages of a stream.
type meteredStream struct {
	grpc.ServerStream
	meter *meter
}

func (s *meteredStream) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	s.meter.sent.Inc()
	if r, ok := m.(*pb.LeaseKeepAliveResponse); ok && r.TTL > 0 {
		s.meter.renewals.Inc()
	}
	return err
}

func (s *meteredStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	s.meter.received.Inc()
	return err
}

// observe adds the duration of a call to etcd's metric, if etcd measures calls of this kind.
func (t *meter) observe(req any, success bool, took float64) {
	durations := &t.took
	if r, ok := req.(*pb.TxnRequest); ok && onlyReads(r) {
		durations = &t.tookReads
	}
	d := &durations[0]
	if success {
		d = &durations[1]
	}
	d.once.Do(func() {
		if kind := requestType(req, t.method); kind != "" {
			d.observer = t.seconds.WithLabelValues(kind, strconv.FormatBool(success))
		}
	})
	if d.observer != nil {
		d.observer.Observe(took)
	}
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

// count counts a request that succeeded and took some seconds.
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
