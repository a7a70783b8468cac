// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// BenchmarkServedCalls measures calls over TCP. Its clients send prepared bytes and do not decode responses, so that
// nearly all of the CPU time is that of the endpoint. Each client makes ten calls at a time, as in the rows of bench
// over the wire.
func BenchmarkServedCalls(b *testing.B) {
	const conns, pipelined = 20, 10
	key := []byte("key-0001")
	for _, c := range []struct {
		name, method string
		request      proto.Message
	}{
		{"put", pb.KV_Put_FullMethodName, &pb.PutRequest{Key: key, Value: make([]byte, 256)}},
		{"linearizable", pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: key}},
		{"serializable", pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: key, Serializable: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			n := open(b)
			_, err := n.Put(b.Context(), string(key), string(make([]byte, 256)))
			require.NoError(b, err)
			addr := serve(b, n)
			var clients []*bareClient
			for range conns {
				clients = append(clients, newBareClient(b, addr, c.method, c.request))
			}
			b.ReportAllocs()
			b.ResetTimer()
			before := cpuNanos(b)
			var running sync.WaitGroup
			for _, c := range clients {
				running.Go(func() {
					for range b.N / conns / pipelined {
						if err := c.calls(pipelined); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			running.Wait()
			b.ReportMetric(float64(cpuNanos(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

func cpuNanos(b *testing.B) int64 {
	var r syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return r.Utime.Nano() + r.Stime.Nano()
}

// A bareClient makes the same call again and again on a connection of its own.
type bareClient struct {
	net.Conn
	headers, data []byte        // of a call: the payloads of two frames
	stream        uint32        // of the next call
	frames        *http2.Framer // of responses
	out           bytes.Buffer
}

func newBareClient(b *testing.B, addr, method string, request proto.Message) *bareClient {
	nc, err := net.Dial("tcp", addr)
	require.NoError(b, err)
	b.Cleanup(func() { nc.Close() })
	c := &bareClient{Conn: nc, stream: 1}
	c.frames = http2.NewFramer(&c.out, bufio.NewReaderSize(nc, 32<<10))
	c.frames.SetReuseFrames()
	c.out.WriteString(http2.ClientPreface)
	require.NoError(b, c.frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}))
	require.NoError(b, c.frames.WriteWindowUpdate(0, 1<<30))
	message, err := proto.Marshal(request)
	require.NoError(b, err)
	c.data = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for range 2 { // the second block refers to the fields of the first one
		block.Reset()
		for _, f := range [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", addr}, {"content-type", "application/grpc"},
			{"user-agent", "grpc-go/1.85.0"}, {"te", "trailers"}, {"client-api-version", "3.7.3"},
		} {
			require.NoError(b, encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
		}
		c.headers = bytes.Clone(block.Bytes())
		require.NoError(b, c.calls(1))
	}
	return c
}

// calls makes n calls at the same time, and waits for all responses.
func (c *bareClient) calls(n int) error {
	for range n {
		if err := c.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: c.headers, EndHeaders: true}); err != nil {
			return err
		}
		if err := c.frames.WriteData(c.stream, true, c.data); err != nil {
			return err
		}
		c.stream += 2
	}
	if _, err := c.out.WriteTo(c.Conn); err != nil {
		return err
	}
	for answered := 0; answered < n; {
		frame, err := c.frames.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				answered++
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return fmt.Errorf("the endpoint sent %v", f)
		}
	}
	return nil
}
