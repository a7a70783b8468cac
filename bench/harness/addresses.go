// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// FreeAddrs returns addresses of the loopback interface that are not in use, for systems that need to know the addresses of
// all members before the first one listens. The ports begin at a random one, below those that the kernel gives to
// connections, so that no connection takes one before a member listens.
func FreeAddrs(n int) (addrs []string, err error) {
	for port := 10_000 + rand.IntN(18_000); len(addrs) < n; port++ {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			if port >= 1<<15 {
				return nil, err
			}
			continue // in use
		}
		addrs = append(addrs, l.Addr().String())
		l.Close()
	}
	return addrs, nil
}
