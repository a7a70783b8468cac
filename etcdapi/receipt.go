// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// A receipt bounds the memory that the requests of an endpoint take from their first byte to their answer. gRPC bounds
// each request, and the streams of each connection, but not their sum. Beyond the limit, the receipt closes the
// connection with the most bytes, so a client that floods the endpoint loses its own connections.
type receipt struct {
	limit int64
	held  atomic.Int64

	mu    sync.Mutex // guards conns
	conns map[*meteredConn]struct{}
}

// streamCost is the number of bytes that a stream adds to its request, for its goroutine and the state of gRPC.
const streamCost = 16 << 10

var errReceipt = errors.New("etcdapi: too many requests are being received")

func newReceipt(limit int64) *receipt {
	return &receipt{limit: limit, conns: map[*meteredConn]struct{}{}}
}

// meter returns a connection that counts its requests.
func (r *receipt) meter(nc net.Conn) *meteredConn {
	c := &meteredConn{Conn: nc, in: r, requests: frames{skip: len(preface)}, streams: map[uint32]request{}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[c] = struct{}{}
	return c
}

// relieve closes connections until the sum is within the limit.
func (r *receipt) relieve() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.held.Load() > r.limit {
		var most *meteredConn
		var held int64
		for c := range r.conns {
			if h := c.holds(); h > held {
				most, held = c, h
			}
		}
		if most == nil {
			return // the sum has only requests over HTTP
		}
		delete(r.conns, most)
		most.leave()
		_ = most.Conn.Close() // its reader gets the error
	}
}

// A meteredConn is a connection of gRPC. It follows the frames in both directions, because they show when a stream begins
// and ends, and the size of its requests.
type meteredConn struct {
	net.Conn
	in *receipt

	requests frames // of the goroutine that reads
	answers  frames // of the goroutine that writes

	mu      sync.Mutex // guards the fields below
	streams map[uint32]request
	held    int64 // the bytes of this connection in the sum
	gone    bool  // the sum no longer has these bytes
}

// A request is the newest request of a stream.
type request struct {
	head     [5]byte // of a message of gRPC: a flag and its length
	headSize int8
	left     uint32 // bytes that have not arrived
	size     int64  // bytes that have arrived
}

func (c *meteredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.requests.follow(p[:n], (*received)(c))
	if err != nil {
		c.forget()
	}
	return n, err
}

func (c *meteredConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.answers.follow(p[:n], (*answered)(c))
	if err != nil {
		c.forget()
	}
	return n, err
}

func (c *meteredConn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// forget takes the connection out of the receipt.
func (c *meteredConn) forget() {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	delete(c.in.conns, c)
	c.leave()
}

// leave takes the bytes of the connection out of the sum.
func (c *meteredConn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.held.Add(-c.held)
	c.held, c.gone = 0, true
}

func (c *meteredConn) holds() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

// unlock adds to the bytes of the connection, releases the lock, and closes connections if there are too many.
func (c *meteredConn) unlock(delta int64) {
	over := false
	if delta != 0 && !c.gone {
		c.held += delta
		over = c.in.held.Add(delta) > c.in.limit && delta > 0
	}
	c.mu.Unlock()
	if over {
		c.in.relieve()
	}
}

// drop ends a stream.
func (c *meteredConn) drop(stream uint32) {
	c.mu.Lock()
	delta := int64(0)
	if r, open := c.streams[stream]; open {
		delete(c.streams, stream)
		delta = -r.size - streamCost
	}
	c.unlock(delta)
}

// received is a connection to which the frames of the client apply.
type received meteredConn

func (c *received) data(f *frames, data []byte) {
	conn := (*meteredConn)(c)
	conn.mu.Lock()
	delta := int64(0)
	if r, open := conn.streams[f.stream]; open { // otherwise the client does not know yet that the stream has ended
		before := r.size
		r.follow(data)
		conn.streams[f.stream] = r
		delta = r.size - before
	}
	conn.unlock(delta)
}

func (c *received) end(f *frames) {
	conn := (*meteredConn)(c)
	switch f.kind {
	case frameHeaders:
		conn.mu.Lock()
		delta := int64(0)
		if _, open := conn.streams[f.stream]; !open {
			conn.streams[f.stream] = request{}
			delta = streamCost
		}
		conn.unlock(delta)
	case frameReset:
		conn.drop(f.stream)
	}
}

// answered is a connection to which the frames of the server apply.
type answered meteredConn

func (c *answered) data(*frames, []byte) {}

func (c *answered) end(f *frames) {
	if f.kind == frameReset || f.flags&flagEndStream != 0 && (f.kind == frameHeaders || f.kind == frameData) {
		(*meteredConn)(c).drop(f.stream)
	}
}

// follow reads the next bytes of a sequence of messages.
func (r *request) follow(data []byte) {
	for len(data) > 0 {
		if r.left > 0 {
			n := min(int64(r.left), int64(len(data)))
			r.left -= uint32(n)
			r.size += n
			data = data[n:]
			continue
		}
		n := copy(r.head[r.headSize:], data)
		r.headSize += int8(n)
		data = data[n:]
		if int(r.headSize) == len(r.head) {
			*r = request{left: binary.BigEndian.Uint32(r.head[1:])}
		}
	}
}

// The kinds of frames of HTTP/2 that matter here, and their flags: RFC 9113, section 6.
const (
	frameData, frameHeaders, frameReset = 0, 1, 3
	flagEndStream, flagPadded           = 0x1, 0x8
	frameHead                           = 9
)

// frames follows the frames of HTTP/2 in one direction of a connection.
type frames struct {
	skip        int // bytes before the first frame
	head        [frameHead]byte
	headSize    int
	kind, flags byte
	stream      uint32
	left        int // bytes of the frame that have not arrived
	padding     int // how many of them, at the end, are padding
	padded      bool
}

// A frameReader is called with the parts of the data of a frame, and at the end of each frame.
type frameReader interface {
	data(f *frames, part []byte)
	end(f *frames)
}

// follow reads the next bytes.
func (f *frames) follow(b []byte, to frameReader) {
	for len(b) > 0 {
		switch {
		case f.skip > 0:
			n := min(f.skip, len(b))
			f.skip -= n
			b = b[n:]
			continue
		case f.headSize < frameHead:
			n := copy(f.head[f.headSize:], b)
			f.headSize += n
			b = b[n:]
			if f.headSize < frameHead {
				return
			}
			f.begin()
		case f.padded:
			f.padding, f.padded = int(b[0]), false
			f.left--
			b = b[1:]
		default:
			n := min(f.left, len(b))
			if useful := min(n, f.left-f.padding); f.kind == frameData && useful > 0 {
				to.data(f, b[:useful])
			}
			f.left -= n
			b = b[n:]
		}
		if f.left == 0 {
			to.end(f)
			f.headSize = 0
		}
	}
}

// begin reads the head of a frame.
func (f *frames) begin() {
	f.left = int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
	f.kind, f.flags = f.head[3], f.head[4]
	f.stream = binary.BigEndian.Uint32(f.head[5:]) & (1<<31 - 1)
	f.padding, f.padded = 0, f.kind == frameData && f.flags&flagPadded != 0 && f.left > 0
}

// A countedBody is the body of a request over HTTP. Its bytes are in the sum until release.
type countedBody struct {
	io.ReadCloser
	in *receipt

	mu       sync.Mutex // guards the fields below
	held     int64
	released bool
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.released { // a goroutine of the gateway may still read for a moment
		return n, err
	}
	b.held += int64(n)
	if b.in.held.Add(int64(n)) > b.in.limit {
		return n, errReceipt
	}
	return n, err
}

func (b *countedBody) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.in.held.Add(-b.held)
	b.released = true
}
