// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func TestDemonstration(t *testing.T) {
	var out strings.Builder
	require.NoError(t, demonstrate(t.Context(), &out))
	require.Regexp(t, `^placed (orders/\d+)\netcd's client reads orders/\d+: three lamps\n$`, out.String())
}

func TestOnePortServesBoth(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{l.Addr().String()}, DialTimeout: 10 * time.Second, Logger: zap.NewNop()})
	require.NoError(t, err)
	defer client.Close()

	first, err := place(t.Context(), conn, "a lamp")
	require.NoError(t, err)
	watch := client.Watch(t.Context(), "orders/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watch
	second, err := place(t.Context(), conn, "a chair")
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	require.Equal(t, second, string((<-watch).Events[0].Kv.Key))
	_, err = place(t.Context(), conn, "")
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	got, err := client.Get(t.Context(), first)
	require.NoError(t, err)
	require.Equal(t, "a lamp", string(got.Kvs[0].Value))
	members, err := client.MemberList(t.Context())
	require.NoError(t, err)
	require.Len(t, members.Members, 1)
	health, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, healthpb.HealthCheckResponse_SERVING, health.Status)
	stop()
	require.NoError(t, <-served)
}
