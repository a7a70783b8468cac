// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
)

// discover finds the members by the SRV records of a domain, as etcd does: those of etcd-server-ssl with https, and
// those of etcd-server with http. A member finds itself by the address that its advertised peer URL resolves to.
// Members have the names of their records, because all of them must agree about the names. MemberList still has --name.
func (s *Settings) discover(ctx context.Context, r *net.Resolver) (bootstrap.Flags, error) {
	f := bootstrap.Flags{Token: s.Cluster.Token, State: s.Cluster.State}
	own := map[string]*url.URL{} // by the address that the host of a URL resolves to
	for _, u := range s.Cluster.AdvertisePeer {
		addr, err := resolve(ctx, r, u.Host)
		if err != nil {
			return f, fmt.Errorf("--initial-advertise-peer-urls: %w", err)
		}
		own[addr] = u
	}
	suffix := ""
	if s.Cluster.SRVName != "" {
		suffix = "-" + s.Cluster.SRVName
	}
	var members []string
	var errs []error
	for _, kind := range []struct{ scheme, service string }{{"https", "etcd-server-ssl"}, {"http", "etcd-server"}} {
		_, records, err := r.LookupSRV(ctx, kind.service+suffix, "tcp", s.Cluster.SRV)
		if err != nil {
			errs = append(errs, err)
		}
		for _, record := range records {
			host := net.JoinHostPort(strings.TrimSuffix(record.Target, "."), strconv.Itoa(int(record.Port)))
			addr, err := resolve(ctx, r, host)
			if err != nil {
				errs = append(errs, err)
			}
			member := kind.scheme + "://" + host
			if u, ok := own[addr]; ok && u.Scheme != kind.scheme {
				return f, fmt.Errorf("the SRV records have %s, but --initial-advertise-peer-urls has %s: correct one of them", member, u)
			} else if ok {
				f.Name, f.AdvertiseURLs = host, []string{member}
			}
			members = append(members, host+"="+member)
		}
	}
	slices.Sort(members)
	f.Members = strings.Join(members, ",")
	switch {
	case len(members) == 0:
		return f, fmt.Errorf("--discovery-srv=%s: no SRV record names a member: %w", s.Cluster.SRV, errors.Join(errs...))
	case f.Name == "":
		return f, errors.Join(fmt.Errorf("cannot find local etcd member %q in SRV records: none of %s is at %s",
			s.Name, strings.Join(members, ", "), s.Cluster.AdvertisePeer.String()), errors.Join(errs...))
	}
	return f, nil
}

// resolve returns the IP address and the port of a host:port.
func resolve(ctx context.Context, r *net.Resolver, hostport string) (string, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return "", err
	}
	addrs, err := r.LookupIPAddr(ctx, host)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(addrs[0].String(), port), nil
}
