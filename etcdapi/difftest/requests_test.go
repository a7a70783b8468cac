// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// A request can be sent to both endpoints.
type request struct {
	name  string
	pb    proto.Message
	send  func(ctx context.Context, e *endpoint) (proto.Message, error)
	after func(resp proto.Message) // notes the answer of etcd
}

func (r request) String() string {
	return r.name + " " + prototext.MarshalOptions{Multiline: false}.Format(r.pb)
}

// to makes a request of a method of a client.
func to[C any, Q, R proto.Message](name string, q Q, client func(*endpoint) C, call func(C, context.Context, Q, ...grpc.CallOption) (R, error)) request {
	return request{name: name, pb: q, send: func(ctx context.Context, e *endpoint) (proto.Message, error) {
		r, err := call(client(e), ctx, proto.Clone(q).(Q))
		if err != nil {
			return nil, err
		}
		return r, nil
	}}
}

func kv(e *endpoint) pb.KVClient                   { return e.kv }
func lease(e *endpoint) pb.LeaseClient             { return e.lease }
func maintenance(e *endpoint) pb.MaintenanceClient { return e.maintenance }

// write returns a request that may change the store.
func (g *generator) write() request {
	switch n := g.IntN(100); {
	case n < 45:
		return to("Put", g.put(), kv, pb.KVClient.Put)
	case n < 60:
		return to("DeleteRange", g.deleteRange(), kv, pb.KVClient.DeleteRange)
	case n < 92:
		return to("Txn", g.txn(2), kv, pb.KVClient.Txn)
	case n < 96:
		return g.grant()
	}
	return to("LeaseRevoke", &pb.LeaseRevokeRequest{ID: g.leaseID()}, lease, pb.LeaseClient.LeaseRevoke)
}

func (g *generator) grant() request {
	q := &pb.LeaseGrantRequest{ID: int64(g.IntN(30)) - 2, TTL: pick[int64](g, 5000, 100000, 9_000_000_000, 9_000_000_001, 1<<62)}
	if q.ID == 0 { // a script has the requests for which the servers choose an ID
		q.ID = pick[int64](g, 77, math.MaxInt64, math.MinInt64)
	}
	if g.private != "" {
		q.ID = g.firstID + int64(g.IntN(30))
	}
	r := to("LeaseGrant", q, lease, pb.LeaseClient.LeaseGrant)
	r.after = func(proto.Message) { g.leases = append(g.leases[max(0, len(g.leases)-10):], q.ID) }
	return r
}

func (g *generator) compact() request {
	q := &pb.CompactionRequest{Revision: g.revision(), Physical: g.chance(2)}
	r := to("Compact", q, kv, pb.KVClient.Compact)
	r.after = func(proto.Message) { g.compacted = q.Revision }
	return r
}

// read returns a request that changes nothing.
func (g *generator) read() request {
	switch n := g.IntN(100); {
	case n < 70:
		return to("Range", g.rangeRequest(), kv, pb.KVClient.Range)
	case n < 80:
		return g.rangeStream()
	case n < 85:
		return to("LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: g.leaseID(), Keys: g.chance(2)}, lease, pb.LeaseClient.LeaseTimeToLive)
	case n < 90:
		return to("LeaseLeases", &pb.LeaseLeasesRequest{}, lease, pb.LeaseClient.LeaseLeases)
	case n < 95:
		return g.keepAlive()
	}
	// etcd remembers some hashes of revisions to which it has compacted, and answers a request for 0 with that of
	// Compact(0).
	q := &pb.HashKVRequest{Revision: pick(g, g.rev+1, g.rev, g.rev-int64(g.IntN(10)), math.MaxInt64, -1)}
	if q.Revision <= g.compacted && q.Revision >= 0 {
		q.Revision = g.rev + 1
	}
	return to("HashKV", q, maintenance, pb.MaintenanceClient.HashKV)
}

// rangeStream returns the request for a range in several responses. The responses count as one.
func (g *generator) rangeStream() request {
	q := g.rangeRequest()
	if !g.chance(5) {
		q.SortOrder, q.SortTarget = 0, 0
		q.MinModRevision, q.MaxModRevision, q.MinCreateRevision, q.MaxCreateRevision = 0, 0, 0, 0
	}
	if q.SortOrder == 0 {
		q.SortTarget = 0 // etcd sorts the keys of each response
	}
	return request{name: "RangeStream", pb: q, send: func(ctx context.Context, e *endpoint) (proto.Message, error) {
		stream, err := e.kv.RangeStream(ctx, q)
		if err != nil {
			return nil, err
		}
		all := &pb.RangeResponse{}
		for {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return all, nil
			}
			if err != nil {
				return nil, err
			}
			kvs := append(all.Kvs, r.RangeResponse.Kvs...)
			all = r.RangeResponse
			all.Kvs = kvs
		}
	}}
}

// keepAlive renews some leases on one stream.
func (g *generator) keepAlive() request {
	q := &pb.LeaseKeepAliveRequest{ID: g.leaseID()}
	ids := []int64{q.ID}
	for g.chance(3) {
		ids = append(ids, g.leaseID())
	}
	return scripted("LeaseKeepAlive", q, func(ctx context.Context, e *endpoint, s *script) {
		stream, err := e.lease.LeaseKeepAlive(ctx)
		for _, id := range ids {
			if err == nil {
				err = sent(stream.Send(&pb.LeaseKeepAliveRequest{ID: id}))
			}
		}
		for range ids {
			var renewed *pb.LeaseKeepAliveResponse
			if err == nil {
				renewed, err = stream.Recv()
			}
			note(s, renewed, err)
		}
		if err == nil {
			err = stream.CloseSend()
		}
		s.say(err)
	})
}

// sent returns the error of a Send. After the end of the stream that is the next error of Recv.
func sent(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// rare returns a request that is not about the store. Each round has every kind once, in a random order.
func (g *generator) rare() request {
	if len(g.turns) == 0 {
		g.rounds++
		g.turns = []func() request{
			g.memberCalls, g.learner, g.alarmCall, g.noSpace, g.corrupt, g.noAlarm, g.maintenanceCalls, g.state, g.shortLease, g.lock, g.waitForLock,
			g.election, g.strangeElection, g.large, g.tooLarge, g.fragments, g.notifications, g.snapshot, g.unknownMethods, g.metadata,
			g.strangeFields,
		}
		if g.users != nil {
			g.turns = g.usersTurns()
		}
		g.Shuffle(len(g.turns), func(i, j int) { g.turns[i], g.turns[j] = g.turns[j], g.turns[i] })
	}
	next := g.turns[0]
	g.turns = g.turns[1:]
	return next()
}

func (g *generator) alarmCall() request {
	q := &pb.AlarmRequest{
		Action: pick(g, pb.AlarmRequest_GET, pb.AlarmRequest_DEACTIVATE), Alarm: pb.AlarmType(g.IntN(4)), MemberID: uint64(g.IntN(3)),
	}
	return to("Alarm", q, maintenance, pb.MaintenanceClient.Alarm)
}

func (g *generator) large() request    { return g.ofSize(1600 << 10) } // for the log
func (g *generator) tooLarge() request { return g.ofSize(3 << 20) }    // for a connection

// ofSize returns a put of a large value, or with a large key.
func (g *generator) ofSize(n int) request {
	q := &pb.PutRequest{Key: []byte("large"), Value: []byte(strings.Repeat("x", n))}
	if g.chance(2) {
		q.Key, q.Value = q.Value, q.Key
	}
	r := to("Put", q, kv, pb.KVClient.Put)
	r.pb = &pb.PutRequest{Key: fmt.Appendf(nil, "%d bytes", len(q.Key)), Value: fmt.Appendf(nil, "%d bytes", len(q.Value))}
	return r
}
