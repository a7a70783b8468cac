// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/rpc"
)

// member returns a TLS configuration on loopback for the member with a name.
func (a *authority) member(t *testing.T, name string) *tls.Config {
	t.Helper()
	cfg := a.static(t, "127.0.0.1")
	pair, err := tls.X509KeyPair(a.issue(t, "127.0.0.1", func(c *x509.Certificate) { c.DNSNames = []string{name} }))
	require.NoError(t, err)
	cfg.Certificates = []tls.Certificate{pair}
	return cfg
}

// A tlsDialer dials with a certificate of its own.
type tlsDialer struct{ *tls.Config }

func (tlsDialer) Listen(string) (net.Listener, error) { return nil, errors.ErrUnsupported }

func (d tlsDialer) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return (&tls.Dialer{Config: d.Config}).DialContext(ctx, "tcp", addr)
}

func TestCertificateBelongsToOneMember(t *testing.T) {
	for name, verify := range map[string]func(context.Context, coterie.Claim) error{
		"any member": nil, "one member": coterie.VerifyMemberName,
	} {
		t.Run(name, func(t *testing.T) {
			ca := newAuthority(t, "ca")
			var founders []coterie.Founder
			for _, name := range []string{"a", "b", "c"} {
				founders = append(founders, coterie.Founder{Name: name, Addr: freeAddr(t)})
			}
			nodes := map[string]*coterie.Node{}
			for _, p := range founders {
				n, err := coterie.Open(t.Context(), coterie.Config{
					InMemory: true, Name: p.Name, Addr: p.Addr, Founders: founders, TLS: ca.member(t, p.Name), VerifyMember: verify,
				})
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, n.Close()) })
				nodes[p.Name] = n
			}
			for _, n := range nodes {
				ready(t, n)
				put(t, n, "k", "v")
			}
			joined, err := coterie.Open(t.Context(), coterie.Config{
				InMemory: true, Name: "d", Addr: "127.0.0.1:0", Join: []string{founders[0].Addr}, TLS: ca.member(t, "d"), VerifyMember: verify,
			})
			require.NoError(t, err)
			ready(t, joined)
			require.NoError(t, joined.Close())

			// The holder of b's certificate claims to c to be a.
			pose := func(certificate string) error {
				client := rpc.NewClient(tlsDialer{ca.member(t, certificate)}, posing(nodes["a"].ID(), nodes["c"]))
				defer client.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				conn, err := client.Open(ctx, rpc.Peer{ID: uint64(nodes["c"].ID()), Addr: founders[2].Addr}, rpc.LaneRaft)
				if err == nil {
					conn.Close()
				}
				return err
			}
			require.NoError(t, pose("a"))
			if err := pose("b"); verify == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, rpc.ErrCertificate)
			}
		})
	}
}

func TestFailingVerifyMemberRejects(t *testing.T) {
	for says, verify := range map[string]func(context.Context, coterie.Claim) error{
		"not today":             func(context.Context, coterie.Claim) error { return errors.New("not today") },
		"deadline exceeded":     nil,
		"has panicked: verdict": func(context.Context, coterie.Claim) error { panic("verdict") },
		"of other members": func(ctx context.Context, c coterie.Claim) error {
			c.ID++
			return coterie.VerifyMemberName(ctx, c)
		},
	} {
		t.Run(says, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				over, wait := make(chan struct{}), 500*time.Millisecond
				if verify == nil {
					verify = func(context.Context, coterie.Claim) error { <-over; return nil }
					wait = 10 * time.Second
				}
				network, ca := memnet.New(), newAuthority(t, "ca")
				founders := []coterie.Founder{{Name: "a", Addr: "a:1"}, {Name: "b", Addr: "b:1"}}
				var nodes []*coterie.Node
				var log record
				for _, p := range founders {
					n, err := coterie.Open(t.Context(), coterie.Config{
						InMemory: true, Name: p.Name, Addr: p.Addr, Founders: founders, Network: network.Host(p.Name), TLS: ca.static(t, p.Name),
						VerifyMember: verify, Logger: log.logger(),
					})
					require.NoError(t, err)
					nodes = append(nodes, n)
				}
				err := notReady(t, nodes[0], wait)
				require.ErrorIs(t, err, coterie.ErrClusterMismatch)
				require.ErrorContains(t, err, "the certificate belongs to another member")
				synctest.Wait()
				require.NotEmpty(t, log.lines("connection refused", says), &log.text)
				for _, n := range nodes {
					begin := time.Now()
					require.NoError(t, n.Close())
					require.Less(t, time.Since(begin), 5*time.Second)
				}
				close(over)
			})
		})
	}
}

func TestVerifyMemberNeedsTLS(t *testing.T) {
	_, err := coterie.Open(t.Context(), coterie.Config{InMemory: true, VerifyMember: coterie.VerifyMemberName})
	require.ErrorIs(t, err, coterie.ErrInvalidOption)
	require.ErrorContains(t, err, "Config.VerifyMember")
}

func TestPlainTextIsWarnedAboutOnce(t *testing.T) {
	ca := newAuthority(t, "ca")
	for name, c := range map[string]struct {
		cfg  coterie.Config
		warn int
	}{
		"any address": {coterie.Config{Addr: "0.0.0.0:0", Advertise: "127.0.0.1:1"}, 1},
		"loopback":    {coterie.Config{Addr: "127.0.0.1:0"}, 0},
		"with TLS":    {coterie.Config{Addr: "0.0.0.0:0", Advertise: "127.0.0.1:1", TLS: ca.static(t, "127.0.0.1")}, 0},
		"in memory":   {coterie.Config{Addr: "10.0.0.1:1", Network: coterie.NewMemoryNetwork()}, 0},
		"no network":  {coterie.Config{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var log record
			c.cfg.InMemory, c.cfg.Logger = true, log.logger()
			n, err := coterie.Open(t.Context(), c.cfg)
			require.NoError(t, err)
			ready(t, n)
			require.NoError(t, n.Close())
			require.Len(t, log.lines("level=WARN", "no Config.TLS"), c.warn, fmt.Sprint(&log.text))
		})
	}
}
