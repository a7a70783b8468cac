// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/version"

	"github.com/coterie-kv/coterie"
)

var discardLog = log.New(io.Discard, "", 0)

// NewHandler returns the HTTP interface of [Serve], for a program with an HTTP server of its own: the JSON gateway and
// the paths for health, version and metrics. Requests end with their context, not with the node.
func NewHandler(n *coterie.Node, opts ...Option) http.Handler {
	s := newServer(n, opts)
	s.measures = measuresOf(s)
	return s.httpHandler()
}

// httpHandler returns the handler of all requests that are not gRPC.
func (s *server) httpHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v3/", s.gateway())
	mux.HandleFunc("/version", s.serveVersion)
	s.handleWatching(mux)
	s.handleCallers(mux)
	return s.controlled(mux)
}

// handleCallers adds the handlers of WithHandler.
func (s *server) handleCallers(mux *http.ServeMux) {
	for pattern, h := range s.handlers {
		mux.Handle(pattern, h)
	}
}

// handleWatching adds the paths for programs that watch an endpoint.
func (s *server) handleWatching(mux *http.ServeMux) {
	mux.Handle("/metrics", s.measures.handler())
	s.handleProbes(mux)
}

// controlled returns a handler that checks hosts and origins before it calls another one.
func (s *server) controlled(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/v3beta/"); ok { // etcd's name for /v3/ before v3.4
			r.URL.Path = "/v3/" + rest
		}
		if !s.hostAllowed(r) {
			http.Error(w, "the endpoint does not serve this host without TLS", http.StatusMisdirectedRequest)
			return
		}
		if origin := s.allowedOrigin(r); origin != "" {
			w.Header().Add("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
			w.Header().Add("Access-Control-Allow-Origin", origin)
			w.Header().Add("Access-Control-Allow-Headers", "accept, content-type, authorization")
			if r.Method == http.MethodOptions {
				w.WriteHeader(http.StatusOK)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// hostAllowed reports whether a request without TLS addresses a host of WithHosts.
func (s *server) hostAllowed(r *http.Request) bool {
	if len(s.hosts) == 0 || r.TLS != nil {
		return true
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return slices.Contains(s.hosts, "*") || slices.Contains(s.hosts, host)
}

// allowedOrigin returns the origin that the answer to a request allows, or "".
func (s *server) allowedOrigin(r *http.Request) string {
	origin := r.Header.Get("Origin")
	switch {
	case slices.Contains(s.origins, "*"):
		return "*"
	case slices.Contains(s.origins, origin):
		return origin
	}
	return ""
}

// serveVersion returns the versions of an etcd. The version of the cluster is known when the node is a member of it.
func (s *server) serveVersion(w http.ResponseWriter, r *http.Request) {
	if !onlyGet(w, r) {
		return
	}
	v := version.Versions{Server: version.Version, Cluster: "not_decided", Storage: "unknown"}
	if s.node.Status().ClusterID != 0 {
		v.Cluster, v.Storage = clusterVersion(), clusterVersion()
	}
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, "%s", text)
}

// onlyGet reports whether a request is a GET, and answers requests of other methods.
func onlyGet(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet {
		return true
	}
	w.Header().Set("Allow", http.MethodGet)
	http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	return false
}
