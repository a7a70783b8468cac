// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// FreeAddrs returns addresses of the loopback interface that are not in use, for systems that need to know the addresses of
// all members before the first one listens.
func FreeAddrs(n int) ([]string, error) {
	addrs, release, err := ReserveAddrs(n)
	if err != nil {
		return nil, err
	}
	return addrs, release()
}

// ReserveAddrs is FreeAddrs for systems that stop members and start them again. Until release, neither function returns the
// addresses again, in this process or another: a UDP socket reserves each port. The ports begin at a random one, below those
// that the kernel gives to connections, so that no connection takes one while no member listens.
func ReserveAddrs(n int) (addrs []string, release func() error, err error) {
	var sockets []net.PacketConn
	release = func() error {
		var errs []error
		for _, s := range sockets {
			errs = append(errs, s.Close())
		}
		return errors.Join(errs...)
	}
	for port := 10_000 + rand.IntN(18_000); len(addrs) < n; port++ {
		addr := fmt.Sprint("127.0.0.1:", port)
		s, err := reserve(addr)
		if err != nil {
			if port >= 1<<15 {
				return nil, nil, errors.Join(err, release())
			}
			continue // in use
		}
		addrs, sockets = append(addrs, addr), append(sockets, s)
	}
	return addrs, release, nil
}

func reserve(addr string) (net.PacketConn, error) {
	s, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, l.Close()
}
