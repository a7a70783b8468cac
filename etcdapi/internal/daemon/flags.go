// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"flag"
	"fmt"
	"io"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
)

// newFlags returns the flags of a daemon, which set the fields of s. They are etcd's, with etcd's names and defaults:
// those that coteried has, and those that it refuses.
func newFlags(s *Settings) *flag.FlagSet {
	f := flag.NewFlagSet("coteried", flag.ContinueOnError)
	f.SetOutput(io.Discard) // the caller prints the error
	memberFlags(f, s)
	clusterFlags(f, s)
	securityFlags(f, s)
	otherFlags(f, s)
	for _, r := range refused {
		f.Var(&refusedValue{refusedFlag: r, settings: s}, r.name, r.advice)
	}
	return f
}

func memberFlags(f *flag.FlagSet, s *Settings) {
	s.Listen.Peer.init(defaultPeerURL)
	s.Listen.Client.init(defaultClientURL)
	f.StringVar(&s.Name, "name", defaultName, "Name of this member.")
	f.StringVar(&s.DataDir, "data-dir", "", "Directory of the data; ${name}.etcd if empty.")
	f.Var(&s.Listen.Peer, "listen-peer-urls", "URL to listen on for the other members.")
	f.Var(&s.Listen.Client, "listen-client-urls", "URLs to listen on for clients.")
	f.Var(&s.Listen.ClientHTTP, "listen-client-http-urls", "URLs to listen on for clients with HTTP; the others then have gRPC alone.")
	f.Var(&s.Listen.Metrics, "listen-metrics-urls", "URLs to listen on for metrics and health alone.")
	f.Uint64Var(&s.Snapshots, "snapshot-count", 10_000, "Log entries between two snapshots.")
	f.UintVar(&s.HeartbeatMs, "heartbeat-interval", 100, "Milliseconds; a fifth of --election-timeout at most. Heartbeats follow from --election-timeout.")
	f.UintVar(&s.ElectionMs, "election-timeout", 1000, "Milliseconds for which a leader is silent before an election; the same for each member.")
	f.Int64Var(&s.QuotaBytes, "quota-backend-bytes", 0, "Bytes that the store may hold: 0 for 2 GiB, negative for no bound.")
	f.UintVar(&s.MaxTxnOps, "max-txn-ops", 128, "Operations that a transaction may have.")
	f.UintVar(&s.MaxRequest, "max-request-bytes", 1.5*1024*1024, "Bytes that a request may have.")
	s.MaxStreams = math.MaxUint32
	f.Var(newUint32(&s.MaxStreams), "max-concurrent-streams", "Calls and streams that a client connection may have.")
	f.DurationVar(&s.KeepAlive.MinTime, "grpc-keepalive-min-time", 5*time.Second, "How long clients have to wait between two pings.")
	f.DurationVar(&s.KeepAlive.Interval, "grpc-keepalive-interval", 2*time.Hour, "How often clients are pinged; 0 for never.")
	f.DurationVar(&s.KeepAlive.Timeout, "grpc-keepalive-timeout", 20*time.Second, "How long a client may take to answer a ping.")
}

func clusterFlags(f *flag.FlagSet, s *Settings) {
	c := &s.Cluster
	c.AdvertisePeer.init(defaultPeerURL)
	s.Listen.AdvertiseClient.init(defaultClientURL)
	f.Var(&c.AdvertisePeer, "initial-advertise-peer-urls", "URL by which the other members reach this one.")
	f.Var(&s.Listen.AdvertiseClient, "advertise-client-urls", "URLs by which clients reach this member.")
	c.Members = defaultName + "=" + defaultPeerURL
	f.StringVar(&c.Members, "initial-cluster", c.Members, "The members, as name=URL, separated by commas.")
	c.State = bootstrap.StateNew
	f.Var(&choice{&c.State, []string{bootstrap.StateNew, bootstrap.StateExisting}}, "initial-cluster-state", "new for a new cluster, existing to join one.")
	f.StringVar(&c.Token, "initial-cluster-token", "etcd-cluster", "Name of the cluster.")
	f.StringVar(&c.SRV, "discovery-srv", "", "DNS domain with SRV records that name the members.")
	f.StringVar(&c.SRVName, "discovery-srv-name", "", "Suffix of the service in those records.")
	f.BoolVar(&s.ForceNew, "force-new-cluster", false, "Continue as the only member, with the data of this directory.")
	f.StringVar(&s.CompactionMode, "auto-compaction-mode", "periodic", "The meaning of --auto-compaction-retention: periodic or revision.")
	f.StringVar(&s.Retention, "auto-compaction-retention", "0", "History to keep: a duration, hours if without a unit, or revisions; 0 for all.")
}

func securityFlags(f *flag.FlagSet, s *Settings) {
	c, p := &s.Client, &s.Peer
	f.StringVar(&c.CertFile, "cert-file", "", "Certificate for clients.")
	f.StringVar(&c.KeyFile, "key-file", "", "Its private key.")
	f.BoolVar(&c.ClientCertAuth, "client-cert-auth", false, "Require a certificate of clients.")
	f.StringVar(&c.TrustedCAFile, "trusted-ca-file", "", "Certificates of the CAs of clients; clients then need a certificate.")
	f.StringVar(&c.CRLFile, "client-crl-file", "", "Revocation lists of those CAs.")
	f.Var(&c.AllowedHostnames, "client-cert-allowed-hostname", "Names that the certificate of a client must be valid for one of.")
	f.BoolVar(&c.Auto, "auto-tls", false, "Make a certificate for clients, which they cannot verify.")
	f.BoolVar(&p.Auto, "peer-auto-tls", false, "Make a certificate for other members, which they do not verify.")
	f.UintVar(&s.SelfSignedYears, "self-signed-cert-validity", 1, "Years that those certificates are valid.")
	f.Var(&s.CipherSuites, "cipher-suites", "Cipher suites for clients with TLS 1.2.")
	f.StringVar(&s.TLSMin, "tls-min-version", "TLS1.2", "Lowest version of TLS for clients: TLS1.2 or TLS1.3.")
	f.StringVar(&s.TLSMax, "tls-max-version", "", "Highest version of TLS for clients: TLS1.2 or TLS1.3.")
	f.StringVar(&p.CertFile, "peer-cert-file", "", "Certificate for the other members.")
	f.StringVar(&p.KeyFile, "peer-key-file", "", "Its private key.")
	f.BoolVar(&p.ClientCertAuth, "peer-client-cert-auth", false, "Require a certificate of other members; with --peer-cert-file, coteried always does.")
	f.StringVar(&p.TrustedCAFile, "peer-trusted-ca-file", "", "Certificates of the CAs of members.")
	f.Var(&p.AllowedCNs, "peer-cert-allowed-cn", "Common names that the certificate of a member may have.")
	f.Var(&p.AllowedHostnames, "peer-cert-allowed-hostname", "Names that the certificate of a member must be valid for one of.")
	f.StringVar(&s.Users.Token, "auth-token", "simple", "simple, or jwt,sign-method=…,pub-key=…,priv-key=…,ttl=… for JSON web tokens.")
	f.UintVar(&s.Users.TTLSeconds, "auth-token-ttl", 300, "Seconds that a simple token lasts.")
	f.UintVar(&s.Users.BcryptCost, "bcrypt-cost", 10, "Cost of the hashes of passwords.")
	s.Origins, s.Hosts = stringList{"*"}, stringList{"*"}
	f.Var(&s.Origins, "cors", "Origins of web pages that may use the HTTP interface.")
	f.Var(&s.Hosts, "host-whitelist", "Host names that HTTP requests without TLS may address.")
}

func otherFlags(f *flag.FlagSet, s *Settings) {
	f.StringVar(&s.Log.Logger, "logger", "zap", "zap, which stands for structured lines with etcd's keys.")
	s.Log.Outputs = stringList{"default"}
	f.Var(&s.Log.Outputs, "log-outputs", "default, stderr, stdout, or files; separated by commas.")
	f.StringVar(&s.Log.Level, "log-level", "info", "debug, info, warn, error, dpanic, panic or fatal.")
	f.StringVar(&s.Log.Format, "log-format", "json", "json or console.")
	f.StringVar(&s.Metrics, "metrics", "basic", "basic, or extensive for histograms of the calls, too.")
	f.BoolVar(&s.Pprof, "enable-pprof", false, "Serve profiles of the process at /debug/pprof/ of the client URLs.")
	f.DurationVar(&s.ProgressNotify, "watch-progress-notify-interval", 0, "How long a watch with progress notifications may be silent; 0 for 10 minutes.")
	f.DurationVar(&s.Checks.CorruptTime, "corrupt-check-time", 0, "How often the leader compares the data of the members; 0 for never.")
	f.DurationVar(&s.Checks.HashTime, "compact-hash-check-time", time.Minute, "The same, with the feature gate CompactHashCheck.")
	f.Var(&gates{settings: s}, "feature-gates", "Gates, such as InitialCorruptCheck=true, separated by commas.")
	f.StringVar(&s.ConfigFile, "config-file", "", "YAML file with these settings. It replaces all flags and environment variables.")
	f.BoolVar(&s.Version, "version", false, "Print the version and exit.")
}

// A urlList is a flag with URLs, separated by commas.
type urlList []*url.URL

func (l *urlList) init(text string) {
	if err := l.Set(text); err != nil {
		panic(err)
	}
}

// Set reads URLs as etcd does. It keeps their order, and drops repeated ones.
func (l *urlList) Set(text string) error {
	*l = nil
	if text == "" {
		return nil
	}
	list := strings.Split(text, ",")
	if _, err := types.NewURLs(list); err != nil {
		return err
	}
	for _, one := range list {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(*l, func(have *url.URL) bool { return have.String() == u.String() }) {
			*l = append(*l, u)
		}
	}
	return nil
}

func (l *urlList) String() string { return strings.Join(l.strings(), ",") }

func (l *urlList) strings() []string {
	all := make([]string, len(*l))
	for i, u := range *l {
		all[i] = u.String()
	}
	return all
}

// A stringList is a flag with words, separated by commas.
type stringList []string

func (l *stringList) Set(text string) error {
	*l = nil
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word != "" && !slices.Contains(*l, word) {
			*l = append(*l, word)
		}
	}
	return nil
}

func (l *stringList) String() string { return strings.Join(*l, ",") }

// A choice is a flag with one of a few words.
type choice struct {
	word *string
	of   []string
}

func (c *choice) Set(text string) error {
	if !slices.Contains(c.of, text) {
		return fmt.Errorf("the value must be one of %s", strings.Join(c.of, ", "))
	}
	*c.word = text
	return nil
}

func (c *choice) String() string {
	if c.word == nil {
		return ""
	}
	return *c.word
}
