// SPDX-License-Identifier: Apache-2.0

package etcdapi

import "net"

// A call needs a stack of 8 KiB, and a goroutine begins with less: the runtime chooses 2, 4 or 8 KiB by the mean depth of the
// stacks that the last garbage collection has seen. If a stack grows when gRPC reads the request, below seventeen frames, the
// runtime decodes the layout of every frame that it copies: 3.4 µs a call.

// growStack grows the stack of the goroutine of a call to 8 KiB. It is called below only five frames.
func growStack() { useStack(false) }

// useStack has a frame of 4 KiB. It does not use the frame, because the compiler would clear it first.
//
//go:noinline
func useStack(frame bool) {
	if frame {
		var bytes [4 << 10]byte
		keep(bytes[:])
	}
}

// deepRead reads from a connection, below a frame of 12 KiB that it does not use either. One goroutine of each connection is
// here at every garbage collection. With them, the mean depth is that at which the runtime begins with 8 KiB, and most calls
// need not grow their stacks.
//
//go:noinline
func deepRead(c net.Conn, p []byte, frame bool) (int, error) {
	if frame {
		var bytes [12 << 10]byte
		keep(bytes[:])
	}
	return c.Read(p)
}

//go:noinline
func keep(frame []byte) { frame[0]++ }
