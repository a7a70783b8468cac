// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
	"github.com/coterie-kv/coterie/etcdapi/internal/processtest"
)

// A store is one of the two under comparison: a cluster of etcd or of coterie.
type store struct {
	name      string
	endpoints []string // the leader's first
	flags     []string // of every command
	tls       *tls.Config
	client    *clientv3.Client
	masks     []string          // pairs: a text that is different in each store, and its replacement
	values    map[string]string // by name: texts that commands of this store have printed
}

// newStore waits until the endpoints of a store list each other, and masks the identities of the members. Members are
// numbered in the order of their IDs, which is the order of every list.
func newStore(t testing.TB, name string, endpoints []string, security transport.TLSInfo) *store {
	cfg := clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()}
	s := &store{name: name, values: map[string]string{"etcdctl": etcdctl, "etcdutl": etcdutl}}
	if !security.Empty() {
		var err error
		s.tls, err = security.ClientConfig()
		require.NoError(t, err)
		s.tls.InsecureSkipVerify = true // the commands verify the host
		cfg.TLS = s.tls
		s.flags = flagsOf(security)
	}
	c, err := clientv3.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	s.client = c
	var all *clientv3.MemberListResponse
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		all, err = c.MemberList(ctx)
		if err != nil || len(all.Members) != len(endpoints) {
			return false
		}
		for _, m := range all.Members {
			if len(m.ClientURLs) == 0 {
				return false
			}
		}
		return true
	}, 30*time.Second, 20*time.Millisecond, "the members of %s", name)
	s.maskID("CLUSTER", all.Header.ClusterId)
	for i, m := range all.Members {
		s.maskID(fmt.Sprint("MEMBER", i), m.ID)
		s.values[fmt.Sprint("member", i)] = fmt.Sprintf("%x", m.ID)
		s.mask(fmt.Sprint("PEER", i), m.PeerURLs[0])
		s.mask(fmt.Sprint("CLIENT", i), m.ClientURLs[0])
		if len(all.Members) > 1 {
			s.mask(fmt.Sprint("NAME", i), m.Name)
		}
	}
	for i, e := range endpoints {
		status, err := c.Status(t.Context(), e)
		require.NoError(t, err)
		if status.Leader == status.Header.MemberId {
			endpoints[0], endpoints[i] = endpoints[i], endpoints[0]
		}
	}
	s.endpoints = endpoints
	for i, e := range endpoints {
		s.values[fmt.Sprint("endpoint", i)] = e
		s.mask(fmt.Sprint("ENDPOINT", i), e)
	}
	return s
}

// flagsOf returns the flags of etcdctl for a certificate.
func flagsOf(security transport.TLSInfo) []string {
	return []string{"--cacert=" + security.TrustedCAFile, "--cert=" + security.CertFile, "--key=" + security.KeyFile}
}

func (s *store) mask(name, text string) { s.masks = append(s.masks, text, name) }

func (s *store) maskID(name string, id uint64) {
	s.mask(name, fmt.Sprintf("%x", id))
	s.mask(name, fmt.Sprint(id))
}

// revision returns the newest revision.
func (s *store) revision(t testing.TB) int64 {
	r, err := s.client.Get(t.Context(), "k", clientv3.WithCountOnly())
	require.NoError(t, err)
	return r.Header.Revision
}

// fill replaces {name} in an argument by the value of that name, and {next} by the next revision.
func (s *store) fill(t testing.TB, arg string) string {
	if strings.Contains(arg, "{next}") {
		arg = strings.ReplaceAll(arg, "{next}", fmt.Sprint(s.revision(t)+1))
	}
	for name, v := range s.values {
		arg = strings.ReplaceAll(arg, "{"+name+"}", v)
	}
	return arg
}

// freeURLs returns URLs of ports that are free. No other call returns them.
func freeURLs(t testing.TB, n int) (urls []url.URL) {
	t.Helper()
	for range n {
		urls = append(urls, url.URL{Scheme: "http", Host: processtest.FreeAddr(t)})
	}
	return urls
}

// A setup is how both stores are configured.
type setup struct {
	members  int
	security transport.TLSInfo // of servers and clients; none if it is empty
	quota    int64
	progress time.Duration // of watches that ask for notifications
	jwt      string        // etcd's flag --auth-token; tokens are those of the default if it is empty
}

// startEtcd starts an etcd in this process, for one test.
func (u setup) startEtcd(t testing.TB) *store {
	t.Helper()
	peers, clients := freeURLs(t, u.members), freeURLs(t, u.members)
	if !u.security.Empty() {
		for i := range clients {
			clients[i].Scheme = "https"
		}
	}
	name := func(i int) string { return fmt.Sprint("etcd-member-", i) }
	if u.members == 1 {
		name = func(int) string { return "default" }
	}
	var founders, endpoints []string
	for i := range peers {
		founders = append(founders, name(i)+"="+peers[i].String())
		endpoints = append(endpoints, clients[i].Host)
	}
	var started []*embed.Etcd
	for i := range peers {
		cfg := embed.NewConfig()
		cfg.Name, cfg.Dir = name(i), t.TempDir()
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = clients[i:i+1], clients[i:i+1]
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = peers[i:i+1], peers[i:i+1]
		cfg.ClientTLSInfo = u.security
		cfg.QuotaBackendBytes = u.quota
		if u.jwt != "" {
			cfg.AuthToken = u.jwt
		}
		if u.progress > 0 {
			cfg.WatchProgressNotifyInterval = u.progress
		}
		cfg.InitialCluster = strings.Join(founders, ",")
		cfg.LogLevel = "panic"
		cfg.UnsafeNoFsync, cfg.BcryptCost = true, uint(bcrypt.MinCost)
		e, err := embed.StartEtcd(cfg)
		require.NoError(t, err)
		t.Cleanup(func() { closeEtcd(e) })
		started = append(started, e)
	}
	for _, e := range started {
		select {
		case <-e.Server.ReadyNotify():
		case <-time.After(30 * time.Second):
			t.Fatal("etcd is not ready")
		}
	}
	return newStore(t, "etcd", endpoints, u.security)
}

// closeEtcd closes a member. It stops the server first: Close waits until a member serves or its server stops, and a member
// without a majority never serves.
func closeEtcd(e *embed.Etcd) {
	e.Server.HardStop()
	e.Close()
}

// etcdQuota is etcd's default.
const etcdQuota = 2 << 30

// config returns the configuration of a node that keeps its history and has a quota, as etcd does.
func (u setup) config() coterie.Config {
	return coterie.Config{
		InMemory: true, Addr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), QuotaBytes: cmp.Or(u.quota, etcdQuota),
		Retention: coterie.Retention{Age: -1, Revisions: -1, Bytes: -1},
	}
}

// openNode opens a node, for one test.
func openNode(t testing.TB, cfg coterie.Config) *coterie.Node {
	t.Helper()
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	require.NoError(t, n.Ready(t.Context()))
	return n
}

// startNodes starts nodes with an endpoint each, for one test.
func (u setup) startNodes(t testing.TB) *store {
	t.Helper()
	cfg := u.config()
	if u.members == 1 {
		cfg.Name = "default"
		return newStore(t, "coterie", []string{u.serve(t, openNode(t, cfg))}, u.security)
	}
	c, err := coterie.OpenCluster(t.Context(), u.members, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	var endpoints []string
	for _, n := range c.Nodes() {
		endpoints = append(endpoints, u.serve(t, n))
	}
	return newStore(t, "coterie", endpoints, u.security)
}

// serve serves a node over TCP, for one test, and returns the address.
func (u setup) serve(t testing.TB, n *coterie.Node) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr = l.Addr().String()
	opts := []etcdapi.Option{etcdapi.WithClientURLs("http://" + addr), etcdapi.WithBcryptCost(bcrypt.MinCost)}
	if u.jwt != "" {
		j, err := etcdapi.LoadJWT(u.jwt)
		require.NoError(t, err)
		opts = append(opts, etcdapi.WithJWT(j))
	}
	if u.progress > 0 {
		opts = append(opts, etcdapi.WithProgressInterval(u.progress))
	}
	if !u.security.Empty() {
		cfg, err := u.security.ServerConfig()
		require.NoError(t, err)
		opts = append(opts, etcdapi.WithClientURLs("https://"+addr), etcdapi.WithTLS(cfg))
	}
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { served <- etcdapi.Serve(ctx, l, n, opts...) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-served)
	})
	return addr
}

// remember names an ID that a command has printed in a base, for use in arguments, and masks all its forms.
func (s *store) remember(t testing.TB, name, text string, base int) {
	id, err := strconv.ParseUint(text, base, 64)
	require.NoError(t, err)
	s.mask(name, fmt.Sprintf("%016x", id))
	s.maskID(name, id)
	s.values[name] = fmt.Sprintf("%x", id)
}

func TestRememberedIDWithoutLetters(t *testing.T) {
	s := &store{values: map[string]string{}}
	s.remember(t, "added", "2403344915868125", 16)
	require.Equal(t, "2403344915868125", s.values["added"])
	require.Equal(t, "added added", s.maskText("2403344915868125 2594975298793931045", nil))
	s.remember(t, "lease", "2594975298793931046", 10)
	require.Equal(t, "2403344915868126", s.values["lease"])
}
