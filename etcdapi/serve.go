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

	"google.golang.org/grpc"

	"github.com/coterie-kv/coterie"
)

// Serve serves gRPC and HTTP on a listener until ctx ends or the node has stopped. Then it closes the listener, ends the
// streams, and returns when all calls have returned. The node stays open.
//
// HTTP has the paths of etcd: the JSON gateway below /v3/, /health, /livez, /readyz, /version and /metrics. [WithHandler] adds
// others. Without TLS, a connection that begins with HTTP/2 carries gRPC, and any other one HTTP/1.1. With TLS ([WithTLS])
// HTTP may have either version; a client that offers HTTP/2 alone speaks gRPC.
//
// Strangers cannot occupy an endpoint for long: connections are bounded in number ([WithMaxConnections]), must send
// something within 10 seconds, and have bounded requests.
//
// Errors: those of the configuration of TLS; nil after the end of ctx, and after the node's Close; the node's error if a fault has stopped it; those of
// the listener.
func Serve(ctx context.Context, l net.Listener, n *coterie.Node, opts ...Option) error {
	s := newServer(n, opts)
	s.measures = newMeasures(s)
	if err := checkTLS(s.tls); err != nil {
		l.Close()
		return err
	}
	g := grpc.NewServer(append(ServerOptions(n),
		grpc.ChainUnaryInterceptor(s.measures.unary), grpc.ChainStreamInterceptor(s.measures.stream),
		grpc.Creds(handshaken{}), grpc.MaxConcurrentStreams(s.maxStreams), grpc.MaxHeaderListSize(maxHeaderBytes))...)
	s.registerAll(g)
	s.measures.grpc.InitializeMetrics(g)
	running, stop := context.WithCancel(ctx)
	defer stop()
	h := s.httpServer(running, g)
	go s.publish(running)

	in := newSplitter(l, s.maxConnections, s.tls, s.measures)
	var servers sync.WaitGroup
	servers.Go(func() { _ = g.Serve(in.grpc) }) // they end with the splitter
	servers.Go(func() { _ = h.Serve(in.http) })
	accepting := make(chan error, 1)
	go func() {
		accepting <- in.run()
		close(accepting)
	}()
	var err error
	select {
	case err = <-accepting:
	case <-ctx.Done():
	case <-n.Done():
	}
	stop()
	in.Close()
	g.Stop()
	shutdown(h)
	in.closeConnections()
	servers.Wait()
	<-accepting
	if err != nil || n.Status().Err == nil {
		return err
	}
	return n.Err()
}

const (
	// maxHeaderBytes bounds the headers of a request. The largest ones are tokens.
	maxHeaderBytes = 64 << 10
	// headerTimeout is how long a client may take to send the first bytes of a connection, and the headers of a request.
	headerTimeout = 10 * time.Second
	// idleTimeout is how long a connection of HTTP may have no request.
	idleTimeout = 2 * time.Minute
	// shutdownTimeout is how long requests may take to notice that their context has ended.
	shutdownTimeout = 5 * time.Second
)

// httpServer returns the server of HTTP. The contexts of its requests end with ctx. It passes gRPC on, which it gets from
// clients with TLS that offer HTTP/1.1, too.
func (s *server) httpServer(ctx context.Context, g *grpc.Server) *http.Server {
	other := s.httpHandler()
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
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
