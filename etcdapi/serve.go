// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/coterie-kv/coterie"
)

// Serve serves gRPC and HTTP on a listener until ctx ends or the node has stopped. Then it closes the listener, ends the
// streams, and returns when all calls have returned. The node stays open.
//
// HTTP has the paths of etcd: the JSON gateway below /v3/, /health, /livez, /readyz, /version and /metrics. [WithHandler] adds
// others. Without TLS, a connection that begins with HTTP/2 carries gRPC, and any other connection HTTP/1.1. With TLS
// ([WithTLS]), HTTP may have either version, and a client that offers only HTTP/2 speaks gRPC.
//
// An untrusted client cannot occupy an endpoint for long: the number of connections is bounded
// ([WithMaxConnections]), each must send something within 10 seconds, and the requests are bounded
// ([WithMaxReceiving]).
//
// Errors: those of the configuration of TLS; the node's error if a fault has stopped it; those of the listener. Serve
// returns nil after the end of ctx, and after the node's Close.
func Serve(ctx context.Context, l net.Listener, n *coterie.Node, opts ...Option) error {
	s := newServer(n, append([]Option{WithCommonNames(true)}, opts...))
	s.direct, s.encoded = true, new(eventCache)
	s.measures = measuresOf(s)
	g := grpc.NewServer(append(append(ServerOptions(n), grpc.ForceServerCodecV2(newCodec()),
		grpc.Creds(handshaken{s.receipt}), grpc.MaxConcurrentStreams(s.maxStreams), grpc.MaxHeaderListSize(maxHeaderBytes)), s.keepalive...)...)
	s.registerAll(g)
	running, stop := context.WithCancel(ctx)
	defer stop()
	go s.publish(running)
	go s.compareMembers(running)
	web := http.NotFoundHandler()
	if !s.withoutHTTP {
		web = s.httpHandler()
	}
	return s.serve(running, l, g, web, &s.measures.traffic)
}

// ServeHTTP serves the HTTP interface of [Serve], without gRPC, on a listener of its own until ctx ends or the node has
// stopped, as etcd does with --listen-client-http-urls. The options of [Serve] apply as far as they concern HTTP, and the
// errors are those of Serve.
func ServeHTTP(ctx context.Context, l net.Listener, n *coterie.Node, opts ...Option) error {
	s := newServer(n, append([]Option{WithCommonNames(true)}, opts...))
	s.measures = measuresOf(s)
	return s.serve(ctx, l, nil, s.httpHandler(), &s.measures.traffic)
}

// ServeMetrics serves /metrics, /health, /livez and /readyz on a listener of their own until ctx ends or the node has
// stopped, as etcd does with --listen-metrics-urls. So programs without a certificate can watch an endpoint that
// requires certificates of clients.
//
// /metrics has the requests of the endpoints that have the same [WithMetrics]. The other options that apply are
// [WithHandler], the options that add handlers, such as [WithPprof], and [WithHosts], [WithOrigins], [WithTLS]
// and [WithMaxConnections]. The errors are those of [Serve].
func ServeMetrics(ctx context.Context, l net.Listener, n *coterie.Node, opts ...Option) error {
	s := newServer(n, opts)
	s.measures = measuresOf(s)
	mux := http.NewServeMux()
	s.handleWatching(mux)
	s.handleCallers(mux)
	return s.serve(ctx, l, nil, s.controlled(mux), new(traffic)) // etcd's counters are about clients
}

// serve serves a listener until ctx ends or the node has stopped. Without a gRPC server, every connection carries HTTP.
func (s *server) serve(ctx context.Context, l net.Listener, g *grpc.Server, h http.Handler, counted *traffic) error {
	if err := checkTLS(s.tls); err != nil {
		l.Close()
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	web := s.httpServer(ctx, g, h)
	in := newSplitter(l, s.maxConnections, s.tls, counted)
	var servers sync.WaitGroup
	servers.Go(func() { _ = web.Serve(in.http) }) // it ends with the splitter
	if g != nil {
		in.grpc = in.part()
		servers.Go(func() { _ = g.Serve(in.grpc) })
	}
	accepting := make(chan error, 1)
	go func() {
		accepting <- in.run()
		close(accepting)
	}()
	var err error
	select {
	case err = <-accepting:
	case <-ctx.Done():
	case <-s.node.Done():
	}
	stop()
	in.Close()
	if g != nil {
		g.Stop()
	}
	shutdown(web)
	in.closeConnections()
	s.sockets.Wait()
	servers.Wait()
	<-accepting
	if err != nil || s.node.Status().Err == nil {
		return err
	}
	return s.node.Err()
}

const (
	// maxHeaderBytes bounds the headers of a request. The largest ones are tokens.
	maxHeaderBytes = 64 << 10
	// headerTimeout is how long a client may take to send the first bytes of a connection, and the headers of a request.
	headerTimeout = 10 * time.Second
	// idleTimeout is how long a connection of HTTP may be idle.
	idleTimeout = 2 * time.Minute
	// shutdownTimeout is how long requests may take to notice that their context has ended.
	shutdownTimeout = 5 * time.Second
)

// httpServer returns the server of HTTP. The contexts of its requests end with ctx. It passes on gRPC from clients with
// TLS that offer both HTTP/2 and HTTP/1.1.
func (s *server) httpServer(ctx context.Context, g *grpc.Server, other http.Handler) *http.Server {
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if g != nil && r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
				// A stream of requests may go on without end, and gRPC bounds each of its requests.
				if r.URL.Path != pb.Watch_Watch_FullMethodName && r.URL.Path != pb.Lease_LeaseKeepAlive_FullMethodName {
					body := &countedBody{ReadCloser: r.Body, in: s.receipt}
					defer body.release()
					r.Body = body
				}
				g.ServeHTTP(w, r)
			} else {
				other.ServeHTTP(w, r)
			}
		}),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: int(min(s.maxStreams, math.MaxInt32))},
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          discardLog, // the lines are about clients
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
}

// shutdown waits until the requests have returned. Their contexts have ended.
func shutdown(h *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := h.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
		_ = h.Close() // the error is of a listener, and the splitter has closed it
	}
}
