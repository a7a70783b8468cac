// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
)

// A zone has the records of a DNS server: addresses by name, and targets with ports by service.
type zone struct {
	addrs map[string][4]byte
	srv   map[string][]dnsmessage.SRVResource
}

// serve starts a DNS server for the zone, and returns a resolver that asks it.
func (z zone) serve(t *testing.T) *net.Resolver {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if answer, err := z.answer(b[:n]); err == nil {
				_, _ = c.WriteTo(answer, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", c.LocalAddr().String())
	}}
}

func (z zone) answer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	q := m.Questions[0]
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
	addr, known := z.addrs[q.Name.String()]
	targets := z.srv[q.Name.String()]
	if !known && targets == nil {
		m.RCode = dnsmessage.RCodeNameError
	}
	if known && q.Type == dnsmessage.TypeA {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: addr}})
	}
	if q.Type == dnsmessage.TypeSRV {
		for _, target := range targets {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &target})
		}
	}
	return m.Pack()
}

func target(host string, port uint16) dnsmessage.SRVResource {
	return dnsmessage.SRVResource{Target: dnsmessage.MustNewName(host), Port: port}
}

func TestSRVRecordsNameTheMembers(t *testing.T) {
	r := zone{
		addrs: map[string][4]byte{"a.example.com.": {10, 0, 0, 1}, "b.example.com.": {10, 0, 0, 2}},
		srv: map[string][]dnsmessage.SRVResource{
			"_etcd-server._tcp.example.com.":         {target("b.example.com.", 2380), target("a.example.com.", 2380)},
			"_etcd-server-ssl-two._tcp.example.com.": {target("b.example.com.", 2390), target("a.example.com.", 2390)},
		},
	}.serve(t)
	discover := func(args ...string) (bootstrap.Flags, error) {
		s, err := Parse(append([]string{"--discovery-srv=example.com"}, args...), nil)
		require.NoError(t, err)
		return s.discover(t.Context(), r)
	}
	for name, own := range map[string]string{"x": "a.example.com", "y": "10.0.0.2"} {
		f, err := discover("--name="+name, "--initial-advertise-peer-urls=http://"+own+":2380", "--initial-cluster-token=t")
		require.NoError(t, err)
		p, err := bootstrap.New(f)
		require.NoError(t, err)
		require.Equal(t, []coterie.Founder{
			{Name: "a.example.com:2380", Addr: "a.example.com:2380"}, {Name: "b.example.com:2380", Addr: "b.example.com:2380"},
		}, p.Founders, "all members must have the same list")
		require.Equal(t, p.Name, p.Advertise)
		require.Equal(t, "t", p.Cluster)
	}
	f, err := discover("--discovery-srv-name=two", "--listen-peer-urls=https://127.0.0.1:2390", "--initial-advertise-peer-urls=https://a.example.com:2390",
		"--peer-cert-file=a", "--peer-key-file=b", "--peer-trusted-ca-file=c")
	require.NoError(t, err)
	require.Equal(t, "a.example.com:2390=https://a.example.com:2390,b.example.com:2390=https://b.example.com:2390", f.Members)
	require.Equal(t, []string{"https://a.example.com:2390"}, f.AdvertiseURLs)

	_, err = discover("--initial-advertise-peer-urls=http://10.0.0.9:2380")
	require.ErrorContains(t, err, `cannot find local etcd member "default" in SRV records`)
	_, err = discover("--initial-advertise-peer-urls=http://a.example.com:2380", "--discovery-srv-name=none")
	require.ErrorContains(t, err, "no SRV record names a member")
	_, err = discover("--initial-advertise-peer-urls=http://missing.example.com:2380")
	require.ErrorContains(t, err, "--initial-advertise-peer-urls: ")
	_, err = discover("--listen-peer-urls=https://127.0.0.1:2380", "--initial-advertise-peer-urls=https://a.example.com:2380",
		"--peer-cert-file=a", "--peer-key-file=b", "--peer-trusted-ca-file=c")
	require.ErrorContains(t, err, "correct one of them")
}
