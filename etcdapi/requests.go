// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/metadata"
)

// requestCounters count requests by the version of the API that their clients use, which they send as "3.7". A client
// can send any text, so every version that no release of etcd has counts as unknown, like a missing one.
type requestCounters struct {
	vector *prometheus.CounterVec
	known  *atomic.Pointer[map[requestKey]prometheus.Counter] // the counters in use; the map never changes, only the pointer
	adding *sync.Mutex                                        // held while known is replaced
}

type requestKey struct{ kind, version string }

func newRequestCounters() requestCounters {
	c := requestCounters{
		vector: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_server_client_requests_total", Help: "The total number of client requests per client version.",
		}, []string{"type", "client_api_version"}),
		known: new(atomic.Pointer[map[requestKey]prometheus.Counter]), adding: new(sync.Mutex),
	}
	c.known.Store(&map[requestKey]prometheus.Counter{})
	return c
}

// clientVersion returns the version of the API that the client of a call sent, or "".
func clientVersion(ctx context.Context) string {
	if sent := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataClientAPIVersionKey); len(sent) > 0 {
		return sent[0]
	}
	return ""
}

// count counts a request of a client with a version of the API. Kind is "unary" or "stream".
func (c *requestCounters) count(version, kind string) {
	known := *c.known.Load()
	counter, ok := known[requestKey{kind, version}]
	if !ok && !isRelease(version) {
		version = unknownVersion
		counter, ok = known[requestKey{kind, version}]
	}
	if !ok {
		counter = c.add(requestKey{kind, version})
	}
	counter.Inc()
}

func (c *requestCounters) add(key requestKey) prometheus.Counter {
	c.adding.Lock()
	defer c.adding.Unlock()
	counter := c.vector.WithLabelValues(key.kind, key.version)
	known := maps.Clone(*c.known.Load())
	known[key] = counter
	c.known.Store(&known)
	return counter
}

const unknownVersion = "unknown"

// isRelease reports whether a version can be that of etcd's API, or of a release of etcd. Only few texts can, so the
// number of counters is bounded.
func isRelease(version string) bool {
	minor, ok := strings.CutPrefix(version, "3.")
	if !ok {
		return false
	}
	minor, patch, full := strings.Cut(minor, ".")
	return isNumber(minor, 1) && (!full || isNumber(patch, 2))
}

// isNumber reports whether a text is a number of at most some digits, without a zero in front.
func isNumber(text string, digits int) bool {
	if text == "" || len(text) > digits || len(text) > 1 && text[0] == '0' {
		return false
	}
	return strings.Trim(text, "0123456789") == ""
}
