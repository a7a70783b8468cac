// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/coterie-kv/coterie"
)

// The texts of rejected calls.
const (
	textDenied      = "etcdserver: permission denied"
	textWatchDenied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
)

// requireDenied checks that a call fails because of its user.
func requireDenied(t testing.TB, err error, what ...any) {
	t.Helper()
	require.Error(t, err, what...)
	if r, ok := err.(*reason); ok {
		require.Equal(t, textWatchDenied, r.text, what...)
		return
	}
	require.Equal(t, textDenied, status.Convert(err).Message(), what...)
}

func watchRequest(key, end string) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func rangeOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func deleteOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

// The end "\x00" of a range means that it has no end: GHSA-xg4h-6gfc-h4m8 was a watch that was checked like one of a
// single key. A range with an end that is not after its key also needs permission.
func TestT43_RangesAreCheckedAsTheyAre(t *testing.T) {
	n, addr := protected(t)
	for _, key := range []string{"a1", "b1", "c1"} {
		put(t, n, key, "secret")
	}
	token := tokenOf(t, addr, "alice")
	callers(t, addr, func(t *testing.T, call caller) {
		for _, r := range []struct {
			key, end string
			allowed  bool
		}{
			{"a", "", true}, {"a", "c", true}, {"b", "c", true}, {"a1", "a1\x00", true},
			{"a", "\x00", false}, {"a", "d", false}, {"a", "c\x00", false}, {"c", "", false}, {"\x00", "\x00", false}, {"A", "b", false},
			{"z", "a", false}, {"c", "a", false}, {"z", "z", false},
		} {
			for method, request := range map[string]proto.Message{
				"KV/Range":    &pb.RangeRequest{Key: []byte(r.key), RangeEnd: []byte(r.end)},
				"Watch/Watch": watchRequest(r.key, r.end),
				"KV/Txn":      &pb.TxnRequest{Success: []*pb.RequestOp{rangeOp(r.key, r.end)}},
			} {
				_, err := call(token, method, request)
				if r.allowed {
					require.NoError(t, err, "%s %q %q", method, r.key, r.end)
				} else {
					requireDenied(t, err, "%s %q %q", method, r.key, r.end)
				}
			}
		}
		for _, ends := range []string{"\x00", "c", "a\x01", "b\x00"} {
			_, err := call(token, "KV/DeleteRange", &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte(ends)})
			if ends == "a\x01" {
				require.NoError(t, err)
			} else {
				requireDenied(t, err, ends)
			}
		}
		_, err := call(token, "Watch/Watch", watchRequest("", ""))
		requireDenied(t, err, "the least key")
		_, err = call(token, "Watch/Watch", watchRequest("", "\x00"))
		requireDenied(t, err, "all keys")
	})
	require.EqualValues(t, 4, n.Header().Revision)
}

// addWriter adds a user that may write the keys from "a" to "b" and read none.
func addWriter(t testing.TB, n *coterie.Node) {
	addUser(t, n, "writer", coterie.Permission{Type: coterie.PermWrite, Key: "a", RangeEnd: "b"})
}

func TestT50_PreviousValuesNeedRead(t *testing.T) {
	n, addr := protected(t)
	addWriter(t, n)
	put(t, n, "a1", "secret")
	token := tokenOf(t, addr, "writer")
	callers(t, addr, func(t *testing.T, call caller) {
		key := []byte("a1")
		for method, request := range map[string]proto.Message{
			"KV/Put":         &pb.PutRequest{Key: key, PrevKv: true},
			"KV/DeleteRange": &pb.DeleteRangeRequest{Key: key, PrevKv: true},
			"KV/Range":       &pb.RangeRequest{Key: key},
			"KV/Txn":         &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, PrevKv: true}}}}},
		} {
			_, err := call(token, method, request)
			requireDenied(t, err, method)
		}
		_, err := call(token, "KV/Txn", &pb.TxnRequest{Failure: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key, PrevKv: true}}},
		}})
		requireDenied(t, err)
		for _, guess := range []string{"secret", "other"} { // a comparison reveals the value
			compare := &pb.Compare{Key: key, Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte(guess)}}
			_, err := call(token, "KV/Txn", &pb.TxnRequest{Compare: []*pb.Compare{compare}})
			requireDenied(t, err, guess)
		}
	})
	require.EqualValues(t, 2, n.Header().Revision)
}

// In CVE-2023-32082, LeaseTimeToLive returned the names of keys to every user.
func TestT50_LeasesNeedAllTheirKeys(t *testing.T) {
	n, addr := protected(t)
	ctx := t.Context()
	for _, id := range []coterie.LeaseID{1, 2} {
		_, err := n.Grant(ctx, time.Hour, coterie.WithGrantID(id))
		require.NoError(t, err)
	}
	_, err := n.Put(ctx, "a1", "v", coterie.WithLease(1))
	require.NoError(t, err)
	_, err = n.Put(ctx, "z", "v", coterie.WithLease(1))
	require.NoError(t, err)
	token := tokenOf(t, addr, "alice")
	callers(t, addr, func(t *testing.T, call caller) {
		for method, request := range map[string]proto.Message{
			"KV/Put":                &pb.PutRequest{Key: []byte("a"), Lease: 1},
			"KV/Txn":                &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("a"), Lease: 1}}}}},
			"Lease/LeaseRevoke":     &pb.LeaseRevokeRequest{ID: 1},
			"Lease/LeaseKeepAlive":  &pb.LeaseKeepAliveRequest{ID: 1},
			"Lease/LeaseTimeToLive": &pb.LeaseTimeToLiveRequest{ID: 1, Keys: true},
			"Lease/LeaseLeases":     &pb.LeaseLeasesRequest{},
		} {
			_, err := call(token, method, request)
			requireDenied(t, err, method)
		}
		r, err := call(token, "Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: 1})
		require.NoError(t, err)
		require.Empty(t, r.(*pb.LeaseTimeToLiveResponse).Keys)
		for _, request := range []proto.Message{&pb.PutRequest{Key: []byte("a"), Lease: 2}, &pb.PutRequest{Key: []byte("a")}} {
			_, err = call(token, "KV/Put", request)
			require.NoError(t, err)
		}
		_, err = call(token, "Lease/LeaseKeepAlive", &pb.LeaseKeepAliveRequest{ID: 2})
		require.NoError(t, err)
	})
	_, err = n.TimeToLive(ctx, 1)
	require.NoError(t, err)
}

func TestCVE_2026_33343_NestedTxns(t *testing.T) {
	n, addr := protected(t)
	put(t, n, "z", "secret")
	token := tokenOf(t, addr, "alice")
	callers(t, addr, func(t *testing.T, call caller) {
		forbidden := []*pb.TxnRequest{
			{Success: []*pb.RequestOp{rangeOp("z", "")}}, {Failure: []*pb.RequestOp{rangeOp("z", "")}},
			{Success: []*pb.RequestOp{putOp("z")}}, {Failure: []*pb.RequestOp{putOp("b")}},
			{Success: []*pb.RequestOp{deleteOp("b", "\x00")}}, {Failure: []*pb.RequestOp{deleteOp("z", "")}},
			{Compare: []*pb.Compare{{Key: []byte("z"), Target: pb.Compare_VERSION}}},
			{Compare: []*pb.Compare{{Key: []byte("a"), RangeEnd: []byte{0}, Target: pb.Compare_VERSION}}},
		}
		for _, inner := range forbidden {
			for depth := range 3 {
				_, err := call(token, "KV/Txn", inner)
				requireDenied(t, err, inner)
				inner = &pb.TxnRequest{Success: []*pb.RequestOp{putOp(fmt.Sprint("a", depth)), txnOp(inner)}}
				_, err = call(token, "KV/Txn", inner)
				requireDenied(t, err, inner)
				inner = &pb.TxnRequest{Failure: []*pb.RequestOp{txnOp(inner)}} // which does not run
			}
		}
		_, err := call(token, "KV/Txn", &pb.TxnRequest{Success: []*pb.RequestOp{txnOp(&pb.TxnRequest{Success: []*pb.RequestOp{rangeOp("a", "c")}})}})
		require.NoError(t, err)
	})
	require.EqualValues(t, 2, n.Header().Revision)
}

func TestLocksAndElectionsNeedPermission(t *testing.T) {
	n, addr := protected(t)
	token := tokenOf(t, addr, "alice")
	_, err := n.Grant(t.Context(), time.Hour, coterie.WithGrantID(7))
	require.NoError(t, err)
	put(t, n, "z/7", "leader")
	callers(t, addr, func(t *testing.T, call caller) {
		leader := &v3electionpb.LeaderKey{Name: []byte("z"), Key: []byte("z/7"), Rev: 2, Lease: 7}
		for method, request := range map[string]proto.Message{
			"Lock/Lock":         &v3lockpb.LockRequest{Name: []byte("z"), Lease: 7},
			"Lock/Unlock":       &v3lockpb.UnlockRequest{Key: []byte("z/7")},
			"Election/Campaign": &v3electionpb.CampaignRequest{Name: []byte("z"), Lease: 7},
			"Election/Proclaim": &v3electionpb.ProclaimRequest{Leader: leader, Value: []byte("v")},
			"Election/Resign":   &v3electionpb.ResignRequest{Leader: leader},
			"Election/Leader":   &v3electionpb.LeaderRequest{Name: []byte("z")},
		} {
			_, err := call(token, method, request)
			requireDenied(t, err, method)
		}
		// A lease with keys of other users is protected here, too.
		_, err := call(token, "Election/Observe", &v3electionpb.LeaderRequest{Name: []byte("z")})
		require.Error(t, err)
		held, err := call(token, "Lock/Lock", &v3lockpb.LockRequest{Name: []byte("a"), Lease: 7})
		require.NoError(t, err)
		_, err = call(token, "Lock/Unlock", &v3lockpb.UnlockRequest{Key: held.(*v3lockpb.LockResponse).Key})
		require.NoError(t, err)
	})
}

// Waiting calls of the Lock service keep the permissions of their callers, also while others wait.
func TestWaitersOfLocksActAsThemselves(t *testing.T) {
	n, addr := protected(t)
	addUser(t, n, "bob", coterie.Permission{Type: coterie.PermReadWrite, Key: "b", RangeEnd: "c"})
	type waiter struct {
		name, lock string
		lease      int64
	}
	for _, id := range []coterie.LeaseID{1, 2} {
		_, err := n.Grant(t.Context(), time.Hour, coterie.WithGrantID(id))
		require.NoError(t, err)
	}
	put(t, n, "a/0", "held")
	put(t, n, "b/0", "held")
	got := make(chan error, 2)
	for _, w := range []waiter{{"alice", "a", 1}, {"bob", "b", 2}} {
		ctx, conn := as(t, addr, w.name), dial(t, addr)
		go func() {
			_, err := v3lockpb.NewLockClient(conn).Lock(ctx, &v3lockpb.LockRequest{Name: []byte(w.lock), Lease: w.lease})
			got <- err
		}()
	}
	waitFor(t, n, "a/1")
	waitFor(t, n, "b/2")
	// The end of bob's permission ends bob's wait, and the waiter's key remains until its lease ends.
	_, err := n.UserRevokeRole(t.Context(), "bob", "bob")
	require.NoError(t, err)
	require.Regexp(t, textDenied+"|lost watcher", (<-got).Error())
	_, err = n.Delete(t.Context(), "a/0")
	require.NoError(t, err)
	require.NoError(t, <-got)
}

// A waiter that gives up deletes its key, with the rights of its caller.
func TestWaitersOfLocksCleanUp(t *testing.T) {
	n, addr := protected(t)
	_, err := n.Grant(t.Context(), time.Hour, coterie.WithGrantID(1))
	require.NoError(t, err)
	put(t, n, "a/0", "held")
	ctx, cancel := context.WithCancel(as(t, addr, "alice"))
	conn := dial(t, addr)
	gaveUp := make(chan error, 1)
	go func() {
		_, err := v3lockpb.NewLockClient(conn).Lock(ctx, &v3lockpb.LockRequest{Name: []byte("a"), Lease: 1})
		gaveUp <- err
	}()
	waitFor(t, n, "a/1")
	cancel()
	requireError(t, codes.Canceled, "context canceled", <-gaveUp)
	require.Eventually(t, func() bool {
		r, err := n.Get(t.Context(), "a/1")
		return err == nil && r.Count == 0
	}, 10*time.Second, time.Millisecond)
}
