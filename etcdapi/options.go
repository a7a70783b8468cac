// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"crypto/tls"
	"math"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// An Option is an option of [Register], [Serve], [NewHandler], [NewClient] and [NewConn].
type Option func(*options)

type options struct {
	name             string
	clientURLs       []string
	peerURLs         []string
	progressInterval time.Duration
	learnerCalls     bool
	corruptionCheck  time.Duration

	// Of users.
	bcryptCost  int
	tokenTTL    time.Duration
	jwt         *JWT // nil: the tokens are those of the node
	commonNames bool
	as          *string // the user of NewClient and NewConn; nil for the program itself

	// Of HTTP.
	handlers       map[string]http.Handler
	hosts, origins []string
	metrics        *Metrics
	// Of Serve alone.
	tls            *tls.Config
	maxConnections int
	maxStreams     uint32
	maxReceiving   int64
	keepalive      []grpc.ServerOption
	withoutHTTP    bool
}

func defaultOptions() options {
	return options{
		progressInterval: 10 * time.Minute, bcryptCost: bcrypt.DefaultCost, tokenTTL: defaultTokenTTL,
		maxConnections: 10_000, maxStreams: 10_000, maxReceiving: 1 << 30,
	}
}

// MemberList returns the values of these keys of a member's metadata: lists of URLs, separated by commas, and a name.
// [Serve] and the calls that change members write them. A program that sets coterie.Config.Metadata must add them
// there, because Config.Metadata replaces the metadata on record at each start.
const (
	MetadataClientURLs = "etcd.clientURLs"
	MetadataPeerURLs   = "etcd.peerURLs"
	MetadataName       = "etcd.name"
)

// WithName sets the name of the member in MemberList. It may differ from coterie.Config.Name, which is the address for
// a member that MemberAdd has added. [Serve] puts the name on record with the cluster.
func WithName(name string) Option {
	return func(o *options) { o.name = name }
}

// WithPeerURLs sets the URLs in MemberList by which other members reach the member. [Serve] puts them on record with
// the cluster. They apply only while the first of them has the address of the node. Without them MemberList returns the
// address, with the scheme http.
func WithPeerURLs(urls ...string) Option {
	return func(o *options) { o.peerURLs = slices.Clone(urls) }
}

// WithClientURLs sets the URLs by which clients reach this endpoint, such as "http://10.0.0.1:2379". MemberList
// returns them, and clients that look for the members of the cluster dial them. [Serve] puts them on record with the
// cluster, so that every endpoint lists them, as soon as a leader is known. For an endpoint of [Register], set
// [MetadataClientURLs] in coterie.Config.Metadata, or only this endpoint lists them.
func WithClientURLs(urls ...string) Option {
	return func(o *options) { o.clientURLs = append([]string(nil), urls...) }
}

// minProgressInterval is etcd's.
const minProgressInterval = 100 * time.Millisecond

// WithProgressInterval sets how long a watch with progress notifications may be silent before it gets one, as
// etcd's --watch-progress-notify-interval. The default is 10 minutes, the minimum 100 ms.
func WithProgressInterval(d time.Duration) Option {
	return func(o *options) { o.progressInterval = max(d, minProgressInterval) }
}

// WithCorruptionCheck makes [Serve] compare the data of the members at intervals, while its node leads, and raise the alarm
// CORRUPT for each member that differs from the majority, as etcd's --corrupt-check-time. If no majority agrees, the alarm
// is for member 0. As long as there is an alarm, every endpoint rejects writes with "etcdserver: corrupt cluster". Give
// every endpoint the same interval, because any node may lead. By default there is no comparison.
func WithCorruptionCheck(interval time.Duration) Option {
	return func(o *options) { o.corruptionCheck = interval }
}

// WithLearnerCalls makes the endpoint of a node without a vote answer every call. By default it answers the same calls
// as a learner of etcd: serializable ranges, Status, and Snapshot. For other calls its clients get "etcdserver: rpc not
// supported for learner". The option does not affect [NewClient] and [NewConn], with which a program calls its own
// node: they answer every call.
func WithLearnerCalls() Option {
	return func(o *options) { o.learnerCalls = true }
}

// WithBcryptCost sets the cost of the hashes of passwords, as etcd's --bcrypt-cost. The default is 10; a cost below 4 or
// above 31 means the default.
func WithBcryptCost(cost int) Option {
	if cost < bcrypt.MinCost || cost > bcrypt.MaxCost {
		cost = bcrypt.DefaultCost
	}
	return func(o *options) { o.bcryptCost = cost }
}

// WithTokenTTL sets how long the tokens of Authenticate live, as etcd's --auth-token-ttl. The default is 5 minutes, the
// minimum a second. Unlike in etcd, the use of a token does not extend its time. A stream of watches or renewals
// continues after its token has expired. The option does not apply to the tokens of [WithJWT].
func WithTokenTTL(d time.Duration) Option {
	return func(o *options) { o.tokenTTL = max(d, time.Second) }
}

// WithJWT makes Authenticate return JSON web tokens, and the endpoint accept no other tokens, as etcd's --auth-token=jwt.
// All endpoints of a cluster need the same key. As in etcd, after a change of users or roles all earlier tokens lose
// access to keys. The removal of a user's password does not end a token. With nil, the tokens are those of
// [coterie.Node.NewToken], which is the default.
func WithJWT(j *JWT) Option {
	return func(o *options) { o.jwt = j }
}

// WithCommonNames sets whether the common name in the certificate of a client is the name of the user of its calls over
// gRPC, unless they have a token, as with etcd's --client-cert-auth. Only certificates that the server has verified count.
// The default is true for [Serve] and false for [Register], because the server of the caller may verify certificates
// for another purpose.
//
// Common names do not count over HTTP. As etcd does, the gateway rejects requests from clients with such a certificate
// while permissions are checked.
func WithCommonNames(use bool) Option {
	return func(o *options) { o.commonNames = use }
}

// WithUser makes the calls of [NewClient] and [NewConn] those of a user. The program is responsible for the name; with
// an empty name the calls have no user. Without the option the calls are the program's own, and not checked. Other
// functions ignore it.
func WithUser(name string) Option {
	return func(o *options) { o.as = &name }
}

// WithHandler makes [Serve], [ServeMetrics] and [NewHandler] answer HTTP requests for a pattern of [http.ServeMux] with a
// handler of the caller. Users and permissions do not apply to it. Those functions panic if the pattern is invalid, or
// conflicts with another one.
func WithHandler(pattern string, h http.Handler) Option {
	return func(o *options) {
		if o.handlers == nil {
			o.handlers = map[string]http.Handler{}
		}
		o.handlers[pattern] = h
	}
}

// WithMetrics adds the measurements of the node to /metrics of [Serve], [ServeMetrics] and [NewHandler]. m must be the
// node's coterie.Config.Metrics. Endpoints with the same value count their requests together. Without the option,
// /metrics has the state of the node, and the requests of this endpoint.
func WithMetrics(m *Metrics) Option {
	return func(o *options) { o.metrics = m }
}

// WithHosts sets the host names that HTTP requests without TLS may address, as etcd's --host-whitelist. [Serve]
// rejects requests for other hosts with the status 421, which stops attacks with DNS rebinding. Without hosts every name is
// accepted.
func WithHosts(hosts ...string) Option {
	return func(o *options) { o.hosts = append([]string(nil), hosts...) }
}

// WithOrigins sets the origins of web pages that may use the HTTP interface of [Serve], as etcd's --cors. The origin
// "*" means all of them, and is etcd's default. Here the default is none, because otherwise a page could use an
// endpoint that the visitor of the page can reach.
func WithOrigins(origins ...string) Option {
	return func(o *options) { o.origins = append([]string(nil), origins...) }
}

// WithTLS makes [Serve] accept connections with TLS alone, with a configuration of [LoadTLS] or of the caller. With
// every configuration, the version is 1.2 or newer and sessions are not resumed. If the configuration has ClientCAs,
// every client needs a certificate of one of them.
func WithTLS(cfg *tls.Config) Option {
	return func(o *options) { o.tls = cfg.Clone() }
}

// WithMaxConnections sets how many connections [Serve] keeps at the same time, those in a handshake included. It closes
// further ones at once. The default is 10,000.
func WithMaxConnections(n int) Option {
	return func(o *options) { o.maxConnections = max(n, 1) }
}

// WithMaxStreams sets how many calls and streams a connection to [Serve] may have at the same time, as etcd's
// --max-concurrent-streams. Further ones wait in the client. The default is 10,000.
func WithMaxStreams(n uint32) Option {
	return func(o *options) { o.maxStreams = max(n, 1) }
}

// WithMaxReceiving sets how many bytes of requests [Serve] holds at the same time, from their first byte to their
// answer. Every open stream adds 16 KiB. Beyond the limit, the endpoint closes the connection with the most bytes, and
// rejects requests over HTTP. So a client that floods the endpoint loses its own connections. The default is 1 GiB,
// which is 65,536 streams without requests.
func WithMaxReceiving(bytes int64) Option {
	return func(o *options) { o.maxReceiving = max(bytes, 1) }
}

// WithKeepalive sets how [Serve] and its clients ping each other: how long clients have to wait between two pings, how long
// a connection is idle before the endpoint pings the client, and how long the client may take to answer. They correspond to
// etcd's --grpc-keepalive-min-time, --grpc-keepalive-interval and --grpc-keepalive-timeout. The defaults are 5 seconds,
// 2 hours and 20 seconds. As in etcd, the endpoint does not ping if the interval or the timeout is 0.
func WithKeepalive(minTime, interval, timeout time.Duration) Option {
	p := keepalive.ServerParameters{Time: interval, Timeout: timeout}
	if interval <= 0 || timeout <= 0 {
		p.Time, p.Timeout = math.MaxInt64, 0
	}
	return func(o *options) {
		o.keepalive = []grpc.ServerOption{
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minTime}), grpc.KeepaliveParams(p),
		}
	}
}

// WithoutHTTP makes [Serve] serve gRPC alone. [ServeHTTP] then serves HTTP on another listener, as etcd does with
// --listen-client-http-urls.
func WithoutHTTP() Option {
	return func(o *options) { o.withoutHTTP = true }
}
