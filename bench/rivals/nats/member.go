// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/coterie-kv/coterie/bench/rivals"
)

// A member is a server and the client of its callers, which share one connection. It is immutable after openBucket.
type member struct {
	server *server.Server
	client *nats.Conn
	bucket jetstream.KeyValue
}

// openMember starts the server with an index. The addresses are those that the servers use between them.
func openMember(dir string, sync bool, index int, addrs []string) (*member, error) {
	host, port, err := net.SplitHostPort(addrs[index])
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	var routes []*url.URL
	for _, addr := range addrs {
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: addr})
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "server" + strconv.Itoa(index),
		// A server of a cluster has to listen for clients. Those of this program connect within the process.
		Host: host, Port: server.RANDOM_PORT,
		Cluster: server.ClusterOpts{Name: "bench", Host: host, Port: number},
		Routes:  routes, JetStream: true, StoreDir: dir, SyncAlways: sync, NoLog: true, NoSigs: true,
	})
	if err != nil {
		return nil, err
	}
	s.Start() // returns when the server listens
	return &member{server: s}, nil
}

// connect connects the client.
func (m *member) connect(ctx context.Context) (err error) {
	if deadline, _ := ctx.Deadline(); !m.server.ReadyForConnections(time.Until(deadline)) {
		return errors.New("a server of NATS did not start in time")
	}
	m.client, err = nats.Connect("", nats.InProcessServer(m.server))
	return err
}

// openBucket opens the bucket.
func (m *member) openBucket(ctx context.Context) error {
	js, err := jetstream.New(m.client)
	if err != nil {
		return err
	}
	m.bucket, err = js.KeyValue(ctx, bucket)
	return err
}

func (m *member) close() {
	if m.client != nil {
		m.client.Close()
	}
	m.server.Shutdown()
	m.server.WaitForShutdown()
}

// Put puts a key. A server drops a request while the replicas have no leader, and the client does not repeat it: Put does.
func (m *member) Put(ctx context.Context, key, value string) (err error) {
	for range attempts {
		if _, err = m.bucket.PutString(ctx, key, value); !errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	return err
}

// Get reads a key. There are no linearizable reads: one replica answers, the server's own if it can, and it may not have
// applied the last puts yet, though they are acknowledged. So Get repeats a read that does not find the key.
func (m *member) Get(ctx context.Context, key, want string, local bool) error {
	if !local {
		return errors.ErrUnsupported
	}
	const patience = 5 * time.Second
	var entry jetstream.KeyValueEntry
	var err error
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		entry, err = m.bucket.Get(ctx, key)
		if !errors.Is(err, jetstream.ErrKeyNotFound) || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		return err
	}
	return rivals.Check(key, string(entry.Value()), true, want)
}
