// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net"
	"net/url"
)

// advertiseDefaultHost advertises this machine's address if the member listens for others on every address, and no flag
// says how they reach it. etcd does the same.
func (s *Settings) advertiseDefaultHost() {
	if s.Given("initial-advertise-peer-urls") || len(s.Listen.Peer) == 0 || s.Listen.Peer[0].Hostname() != "0.0.0.0" {
		return
	}
	host, err := defaultHost()
	if err != nil {
		s.Warnings = append(s.Warnings, "failed to detect the default host for --initial-advertise-peer-urls: "+err.Error())
		return
	}
	u := *s.Listen.Peer[0]
	u.Host = net.JoinHostPort(host, u.Port())
	s.Cluster.AdvertisePeer = urlList{(*url.URL)(&u)}
}

// defaultHost returns the address from which this machine reaches others. It sends nothing.
func defaultHost() (string, error) {
	c, err := net.Dial("udp", "192.0.2.1:9") // an address for documentation, which no machine has
	if err != nil {
		return "", err
	}
	defer c.Close()
	host, _, err := net.SplitHostPort(c.LocalAddr().String())
	return host, err
}
