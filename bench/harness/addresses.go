// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// reserved are the UDP sockets that keep other processes from the ports of FreeAddrs.
var reserved struct {
	sync.Mutex
	sockets []net.PacketConn
}

// FreeAddrs returns addresses of the loopback interface that are not in use, for systems that need to know the addresses of
// all members before the first one listens. The ports begin at a random one, below those that the kernel gives to
// connections, so that no connection takes one while no member listens. Until this process ends, FreeAddrs returns them to no
// other one, since a UDP socket reserves each.
func FreeAddrs(n int) (addrs []string, err error) {
	reserved.Lock()
	defer reserved.Unlock()
	for port := 10_000 + rand.IntN(18_000); len(addrs) < n; port++ {
		addr := fmt.Sprint("127.0.0.1:", port)
		socket, err := reserve(addr)
		if err != nil {
			if port >= 1<<15 {
				return nil, err
			}
			continue // in use
		}
		addrs, reserved.sockets = append(addrs, addr), append(reserved.sockets, socket)
	}
	return addrs, nil
}

func reserve(addr string) (net.PacketConn, error) {
	socket, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		socket.Close()
		return nil, err
	}
	return socket, l.Close()
}
