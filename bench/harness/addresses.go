// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
)

// nextPort is the next port that FreeAddrs tries. The processes of systems begin at different ports. All are below those that
// the kernel gives to connections, so that no connection takes one before a member listens.
var nextPort atomic.Int64

func init() { nextPort.Store(10_000 + rand.Int64N(18_000)) }

// FreeAddrs returns addresses of the loopback interface that are not in use, for systems that need to know the addresses of
// all members before the first one listens. No other call in this process returns them.
func FreeAddrs(n int) (addrs []string, err error) {
	for len(addrs) < n {
		port := nextPort.Add(1)
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
