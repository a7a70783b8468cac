// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// members is the number of members of a cluster.
const members = 3

// startCoterie starts three nodes, and an endpoint on each.
func startCoterie(ctx context.Context, dir string) (addrs []string, stop func() error, err error) {
	cluster, err := coterie.OpenCluster(ctx, members, coterie.Config{
		Dir: dir, Addr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, nil, err
	}
	leader, err := cluster.Leader(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, cluster.Close())
	}
	serving, cancel := context.WithCancel(context.Background())
	served := make(chan error, members)
	stop = func() error {
		cancel()
		var errs []error
		for range addrs {
			errs = append(errs, <-served)
		}
		return errors.Join(append(errs, cluster.Close())...)
	}
	for _, n := range leaderFirst(cluster.Nodes(), leader) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, errors.Join(err, stop())
		}
		addrs = append(addrs, l.Addr().String())
		go func() { served <- etcdapi.Serve(serving, l, n) }()
	}
	return addrs, stop, nil
}

// leaderFirst returns members in an order that begins with the leader.
func leaderFirst[T comparable](members []T, leader T) []T {
	i := slices.Index(members, leader)
	return slices.Concat(members[i:], members[:i])
}

// startEtcd starts three members of etcd.
func startEtcd(ctx context.Context, dir string) (addrs []string, stop func() error, err error) {
	var configs []*embed.Config
	var initial []string
	for i := range members {
		c := embed.NewConfig()
		c.Name = fmt.Sprintf("member%d", i+1)
		c.Dir = filepath.Join(dir, c.Name)
		c.LogLevel = "fatal"
		peer, client, err := twoFreeURLs()
		if err != nil {
			return nil, nil, err
		}
		c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		initial = append(initial, c.Name+"="+peer.String())
		configs = append(configs, c)
	}
	var started []*embed.Etcd
	stop = func() error {
		for _, e := range started {
			e.Close()
		}
		return nil
	}
	for _, c := range configs {
		c.InitialCluster = strings.Join(initial, ",")
		e, err := embed.StartEtcd(c)
		if err != nil {
			return nil, nil, errors.Join(err, stop())
		}
		started = append(started, e)
	}
	leader, err := leaderOf(ctx, started)
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	for _, e := range leaderFirst(started, leader) {
		addrs = append(addrs, e.Clients[0].Addr().String())
	}
	return addrs, stop, nil
}

// leaderOf waits until all members of etcd serve, and returns their leader.
func leaderOf(ctx context.Context, started []*embed.Etcd) (*embed.Etcd, error) {
	for _, e := range started {
		select {
		case <-e.Server.ReadyNotify():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for {
		for _, e := range started {
			if e.Server.Leader() == e.Server.MemberID() {
				return e, nil
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// twoFreeURLs returns URLs with ports that were free a moment ago: etcd needs to know them before it listens.
func twoFreeURLs() (a, b url.URL, err error) {
	var urls [2]url.URL
	for i := range urls {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return a, b, err
		}
		defer l.Close()
		urls[i] = url.URL{Scheme: "http", Host: l.Addr().String()}
	}
	return urls[0], urls[1], nil
}

// startBare starts three servers of gRPC that answer puts and ranges with constants.
func startBare(context.Context, string) (addrs []string, stop func() error, err error) {
	var started []*grpc.Server
	stop = func() error {
		for _, g := range started {
			g.Stop()
		}
		return nil
	}
	answers := newBareKV()
	for range members {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, errors.Join(err, stop())
		}
		g := grpc.NewServer()
		pb.RegisterKVServer(g, answers)
		started, addrs = append(started, g), append(addrs, l.Addr().String())
		go func() { _ = g.Serve(l) }() // it returns after Stop
	}
	return addrs, stop, nil
}

// A bareKV answers every put, and every range with the same value. It is immutable.
type bareKV struct {
	pb.UnimplementedKVServer
	put  *pb.PutResponse
	read *pb.RangeResponse
}

func newBareKV() *bareKV {
	header := &pb.ResponseHeader{ClusterId: 1 << 60, MemberId: 1 << 60, Revision: 1000, RaftTerm: 2}
	kv := &mvccpb.KeyValue{
		Key: []byte(theKey), Value: []byte(valueOf(theKey)), CreateRevision: 2, ModRevision: 2, Version: 1,
	}
	return &bareKV{
		put:  &pb.PutResponse{Header: header},
		read: &pb.RangeResponse{Header: header, Count: 1, Kvs: []*mvccpb.KeyValue{kv}},
	}
}

func (s *bareKV) Put(context.Context, *pb.PutRequest) (*pb.PutResponse, error) { return s.put, nil }

func (s *bareKV) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	return s.read, nil
}
